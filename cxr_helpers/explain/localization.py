"""How well heat maps localise a known region of the image.

Pointing game: Zhang et al. (2018), *Top-Down Neural Attention by Excitation Backprop*, IJCV,
doi:10.1007/s11263-017-1059-x.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def score_maps(maps: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """Score heat maps against ground-truth masks, image by image.

    Parameters
    ----------
    maps : ndarray of float, shape (n, height, width)
        Negative values count as 0.
    masks : ndarray of bool, shape (n, height, width)

    Returns
    -------
    pandas.DataFrame
        One row per image: ``hit`` (the pointing game: 1 if the maximum lies inside the mask,
        0 if outside; the expected value if ties were broken at random), ``heat`` (fraction of the
        total heat inside), ``rank`` (fraction of the hottest pixels, as many as the mask has, that
        lie inside), ``auprc`` (average precision of the heat for the pixels inside) and ``area``
        (fraction of the image inside: the expected value of all for an uninformative map). All but
        ``area`` are NaN for a map without heat; ``rank`` and ``auprc`` also for an empty mask.

    Raises
    ------
    ValueError
        If the shapes of ``maps`` and ``masks`` differ.
    """
    if maps.shape != masks.shape:
        raise ValueError(f"maps of shape {maps.shape} but masks of shape {masks.shape}")
    heat = np.maximum(np.asarray(maps, dtype=float), 0).reshape(len(maps), -1)
    inside = np.asarray(masks, dtype=bool).reshape(len(masks), -1)
    total = heat.sum(axis=1)
    within = (heat * inside).sum(axis=1)
    hottest = (heat == heat.max(axis=1, keepdims=True)) & (heat > 0)
    ranked = [_ranked(values, mask) for values, mask in zip(heat, inside, strict=True)]
    scores = pd.DataFrame(
        {
            "hit": (hottest & inside).sum(axis=1) / np.maximum(1, hottest.sum(axis=1)),
            "heat": within / np.where(total > 0, total, 1),
            "rank": [rank for rank, _ in ranked],
            "auprc": [precision for _, precision in ranked],
        }
    )
    scores[total <= 0] = np.nan
    return scores.assign(area=inside.mean(axis=1))


def _ranked(heat: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Return the rank in the mask and the average precision of one map.

    Equal values are one step of both. The average precision is scikit-learn's, whose function spends
    most of its time on checks of its arguments.
    """
    n = int(inside.sum())
    if n == 0:
        return np.nan, np.nan
    order = np.argsort(-heat)
    last = np.append(np.flatnonzero(np.diff(heat[order])), len(heat) - 1)  # of equal values
    found, taken = np.cumsum(inside[order])[last], last + 1
    rank = np.interp(n, np.append(0, taken), np.append(0, found)) / n  # a share of the tied pixels
    precision = np.sum(np.diff(found, prepend=0) * found / taken) / n
    return float(rank), float(precision)


def box_masks(boxes: np.ndarray, size: int) -> np.ndarray:
    """Return masks of boxes.

    Parameters
    ----------
    boxes : ndarray of int, shape (n, 4)
        Left, top, right and bottom in pixels; the right and bottom edges are outside the box.
    size : int
        Height and width of the images in pixels.

    Returns
    -------
    ndarray of bool, shape (n, size, size)
    """
    x0, y0, x1, y1 = (np.asarray(edge)[:, None, None] for edge in np.asarray(boxes).T)
    y, x = np.mgrid[:size, :size]
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)

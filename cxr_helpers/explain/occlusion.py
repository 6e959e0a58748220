"""Occlusion maps: how much a score falls when part of the image is covered.

Zeiler & Fergus (2014), *Visualizing and Understanding Convolutional Networks*, ECCV,
doi:10.1007/978-3-319-10590-1_53.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def positions(length: int, *, patch: int, stride: int) -> np.ndarray:
    """Return the first pixel of each patch along one side, so that every pixel is covered.

    The last patch ends at the last pixel, whether or not ``stride`` divides the side.

    Parameters
    ----------
    length, patch, stride : int
        Of the side, the patch and the step, in pixels.

    Returns
    -------
    ndarray of int

    Raises
    ------
    ValueError
        Unless 1 <= stride <= patch <= length.
    """
    if not 1 <= stride <= patch <= length:
        raise ValueError(
            f"patch {patch} and stride {stride} on a side of {length}: "
            "expected 1 <= stride <= patch <= side"
        )
    starts = list(range(0, length - patch + 1, stride))
    if starts[-1] != length - patch:
        starts.append(length - patch)
    return np.array(starts)


def corners(height: int, width: int, *, patch: int, stride: int) -> list[tuple[int, int]]:
    """Return the first row and column of each patch, see ``positions``."""
    return [
        (int(top), int(left))
        for top in positions(height, patch=patch, stride=stride)
        for left in positions(width, patch=patch, stride=stride)
    ]


def covered_scores(
    score: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    levels: np.ndarray,
    places: Sequence[tuple[int, int]],
    *,
    patch: int,
    batch_size: int,
) -> np.ndarray:
    """Return the score of every image with a patch at every place.

    Parameters
    ----------
    score : callable
        Images, as they are given here, to their scores, shape (k,), such as class probabilities.
        Each call receives at most ``batch_size`` covered copies.
    images : ndarray of float, shape (n, height, width)
        They stay as they are.
    levels : ndarray of float, shape (n, m)
        Grey level of the patch, by image and place.
    places : sequence of (int, int)
        First row and column of each of the m patches, see ``corners``.
    patch : int
        Side of the square patch in pixels.
    batch_size : int

    Returns
    -------
    ndarray of float, shape (n, m)
    """
    found = []
    for k in range(0, levels.size, batch_size):
        of, at = np.divmod(np.arange(k, min(k + batch_size, levels.size)), len(places))
        copies = images[of]
        for copy, place, level in zip(copies, at, levels[of, at], strict=True):
            top, left = places[place]
            copy[top : top + patch, left : left + patch] = level
        found.append(score(copies))
    return np.concatenate(found).reshape(levels.shape)


def mean_fall(
    falls: np.ndarray, places: Sequence[tuple[int, int]], *, patch: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return the mean fall of the score over the patches that cover a pixel.

    Parameters
    ----------
    falls : ndarray of float, shape (..., m)
        Of each patch.
    places : sequence of (int, int)
        First row and column of each patch; together they cover every pixel.
    patch : int
        Side of the patches in pixels.
    shape : (int, int)
        Of the image.

    Returns
    -------
    ndarray of float32, shape (..., height, width)
    """
    falls = np.asarray(falls)
    total, counts = np.zeros((*falls.shape[:-1], *shape)), np.zeros(shape)
    for number, (top, left) in enumerate(places):
        covered = np.s_[..., top : top + patch, left : left + patch]
        total[covered] += falls[..., number, None, None]
        counts[covered] += 1
    return (total / counts).astype(np.float32)

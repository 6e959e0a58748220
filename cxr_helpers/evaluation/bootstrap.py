"""Intervals of metrics: how far a score would move had other patients been imaged.

Images of one patient resemble each other, so patients are drawn, not images (Field & Welsh 2007,
*Bootstrapping clustered data*); the interval is the middle 95 % of the draws (Efron & Tibshirani
1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# of (y_true, said, weights), as in ``cxr_helpers.evaluation.metrics``
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def resamples(
    groups: np.ndarray, classes: np.ndarray, *, draws: int = 2000, seed: int
) -> np.ndarray:
    """Draw whole groups with replacement, as many of each class as there are.

    Parameters
    ----------
    groups : array of str or int, shape (n,)
        Images of one group are drawn together.
    classes : array, shape (n,)
        A group with images of several classes counts to the class of its first image.
    draws, seed : int

    Returns
    -------
    ndarray of int, shape (draws, n)
        How often each image counts in each draw. The same arguments give the same draws, so rows
        scored on the same images can be compared pair by pair.

    Raises
    ------
    ValueError
        If there is not one class an image, or ``draws`` is below 1.
    """
    groups, classes = np.asarray(groups), np.asarray(classes)
    if len(groups) != len(classes):
        raise ValueError(f"{len(groups)} groups and {len(classes)} classes: expected one an image")
    if draws < 1:
        raise ValueError(f"draws {draws} is out of range: expected at least 1")
    draw = np.random.default_rng(seed)
    names, first, position = np.unique(groups, return_index=True, return_inverse=True)
    stratum = classes[first]
    times = np.zeros((draws, len(names)), dtype=int)
    for name in np.unique(stratum):
        own = np.flatnonzero(stratum == name)
        times[:, own] = draw.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
    return times[:, position]


def percentile(found: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of a metric over draws.

    Parameters
    ----------
    found : array of float, shape (draws,)
        Draws that leave the metric undefined are left out; NaN and NaN if all do. Where all draws
        agree, as when no image is called wrong, the interval has no width and says too much.
    """
    found = np.asarray(found, dtype=float)
    found = found[np.isfinite(found)]
    if not len(found):
        return np.nan, np.nan
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def estimate(
    metric: Metric, y_true: np.ndarray, said: np.ndarray, *, weights: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return a metric and its 95 % interval.

    Parameters
    ----------
    metric : callable
        One of ``cxr_helpers.evaluation.metrics``.
    y_true, said : array, shape (n,) or, for several probabilities, (n, k)
    weights : array of int, shape (draws, n), optional
        From ``resamples``. Without them the interval is NaN and NaN.
    """
    value = float(metric(y_true, said, np.ones((1, len(y_true))))[0])
    if weights is None or np.isnan(value):
        return value, np.nan, np.nan
    return value, *percentile(metric(y_true, said, weights))


def difference(
    metric: Metric,
    y_true: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    weights: np.ndarray,
) -> tuple[float, float, float]:
    """Return by how much the first row's metric exceeds the second's, and the 95 % interval.

    Both rows are scored on the same images in each draw, so what makes images hard for both
    cancels. Parameters are those of ``estimate``, ``first`` and ``second`` what two rows said.
    """

    def gap(y_true: np.ndarray, _: None, weights: np.ndarray) -> np.ndarray:
        return metric(y_true, first, weights) - metric(y_true, second, weights)

    return estimate(gap, y_true, None, weights=weights)


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Return the exact two-sided p of two rows being right equally often (McNemar 1947).

    Only images that one row has right and the other wrong tell; each is a toss of a fair coin.
    The images are taken as independent: several of one patient make p too small.

    Parameters
    ----------
    right_a, right_b : array of bool, shape (n,)
        Whether each row is right about each image.

    Returns
    -------
    float, range (0, 1]
        1 where the rows never differ.

    Raises
    ------
    ValueError
        If the rows are not of the same images.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise ValueError(f"{right_a.shape} and {right_b.shape} images: expected the same images")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return 1.0
    from scipy import stats  # takes a second to import

    return float(stats.binomtest(only_a, only_a + only_b).pvalue)

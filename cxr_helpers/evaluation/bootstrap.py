"""Bootstrap intervals: how much a metric would vary had other patients been imaged.

Images of one patient resemble each other, so patients are resampled, not images (Field & Welsh
2007, *Bootstrapping clustered data*). The interval is the middle 95 % of the resamples (Efron &
Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cxr_helpers.evaluation import metrics

# of (y_true, predictions, weights), as in ``cxr_helpers.evaluation.metrics``
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Weights, draws times images, that are made at once: 2,000 draws of 8,388 images. More take a byte
# each instead of eight.
AT_ONCE = 2**24
# Weights that are scored at once, as floats and in a few copies: 2,000 draws of 1,048 images. What a
# score needs beside the weights does not grow with the number of images.
BLOCK = 2**21

FEWEST = 6  # patients from which on an interval decides: resamples of fewer hardly differ


def resamples(
    groups: np.ndarray, classes: np.ndarray, *, draws: int = 2000, seed: int
) -> np.ndarray:
    """Resample whole groups with replacement, within each class.

    Parameters
    ----------
    groups : array of str or int, shape (n,)
        Images of one group are resampled together.
    classes : array, shape (n,)
        A group with images of several classes belongs to the class of its first image.
    draws : int
        Number of resamples.
    seed : int

    Returns
    -------
    ndarray of int, shape (draws, n)
        How often each image occurs in each resample. The same arguments give the same resamples,
        so rows scored on the same images can be compared resample by resample. Above ``AT_ONCE``
        weights, uint8: the same numbers, to be multiplied as floats only.

    Raises
    ------
    ValueError
        If the numbers of groups and classes differ, or ``draws`` is below 1.
    """
    groups, classes = np.asarray(groups), np.asarray(classes)
    if len(groups) != len(classes):
        raise ValueError(
            f"{len(groups)} groups and {len(classes)} classes: expected one of each per image"
        )
    if draws < 1:
        raise ValueError(f"draws {draws} is out of range: expected at least 1")
    rng = np.random.default_rng(seed)
    names, first, position = np.unique(groups, return_index=True, return_inverse=True)
    stratum = classes[first]
    many = draws * len(groups) > AT_ONCE
    # a group of n occurs about once; more than 255 times, never
    times = np.zeros((draws, len(names)), dtype=np.uint8 if many else int)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        n = len(members)
        step = max(1, BLOCK // n) if many else draws
        for start in range(0, draws, step):  # one after the other, they are the same as at once
            size = min(step, draws - start)
            times[start : start + size, members] = rng.multinomial(n, np.full(n, 1 / n), size=size)
    return times[:, position]


def in_blocks(function: Callable[[np.ndarray], np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return a function of resamples, evaluated on blocks of them where there are many weights.

    Parameters
    ----------
    function : callable
        Takes weights of shape (some draws, n), returns an array whose last axis is these draws.
    weights : array of int, shape (draws, n)
        From ``resamples``; up to ``BLOCK`` of them, ``function`` is called once.
    """
    if weights.size <= BLOCK:
        return function(weights)
    step = max(1, BLOCK // weights.shape[1])
    starts = range(0, len(weights), step)
    return np.concatenate([function(weights[i : i + step]) for i in starts], axis=-1)


def percentile(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of a metric over resamples.

    Parameters
    ----------
    values : array of float, shape (draws,)
        Resamples on which the metric is undefined are ignored; if it is undefined on all, both
        percentiles are NaN. Where all resamples agree, for instance because every prediction is
        correct, the interval has no width and understates the uncertainty.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def estimate(
    metric: Metric,
    y_true: np.ndarray,
    predictions: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    fewest: int = 1,
) -> tuple[float, float, float]:
    """Return a metric and its 95 % interval.

    Parameters
    ----------
    metric : callable
        One of ``cxr_helpers.evaluation.metrics``.
    y_true : array of int, shape (n,)
    predictions : array, shape (n,) or, for probabilities of k classes, (n, k)
        What the metric compares with the labels.
    weights : array of int, shape (draws, n), optional
        From ``resamples``. Without them the interval is NaN and NaN.
    fewest : int
        The interval is NaN where the images are those of fewer patients, see ``FEWEST``.
    """
    value = float(metric(y_true, predictions, np.ones((1, len(y_true))))[0])
    if weights is None or np.isnan(value) or not _enough(weights, fewest):
        return value, np.nan, np.nan
    values = in_blocks(lambda part: metric(y_true, predictions, part), np.asarray(weights))
    return value, *percentile(values)


def mean(values: np.ndarray, *, weights: np.ndarray, fewest: int = 1) -> tuple[float, float, float]:
    """Return the mean of a number that each image has, and its 95 % interval.

    Parameters
    ----------
    values : array of float or bool, shape (n,)
        NaN leaves an image out.
    weights : array of int, shape (draws, n)
        From ``resamples``.
    fewest : int
        The interval is NaN where the images of fewer patients have the number, see ``FEWEST``.
    """
    values = np.asarray(values, dtype=float)
    value, *interval = estimate(metrics.mean, values, values, weights=weights)
    enough = _enough(weights[:, np.isfinite(values)], fewest)
    return value, *(interval if enough else (np.nan, np.nan))


def _enough(weights: np.ndarray, fewest: int) -> bool:
    return fewest <= 1 or n_groups(weights) >= fewest


def n_groups(weights: np.ndarray) -> int:
    """Return how many groups the images belong to: those of one occur equally often in each resample.

    Parameters
    ----------
    weights : array of int, shape (draws, n)
        From ``resamples``; a hundred draws or more tell any two groups of a class apart.
    """
    images = np.ascontiguousarray(weights[:200].T)  # np.unique along an axis takes much longer
    return len({image.tobytes() for image in images})


def fewest_patients(groups: np.ndarray, classes: np.ndarray) -> int:
    """Return how many groups of images the class with the fewest has: compare it with ``FEWEST``."""
    groups, classes = np.asarray(groups), np.asarray(classes)
    return min((len(np.unique(groups[classes == c])) for c in np.unique(classes)), default=0)


def difference(
    metric: Metric,
    y_true: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    weights: np.ndarray,
    fewest: int = 1,
) -> tuple[float, float, float]:
    """Return by how much the first row's metric exceeds the second's, and the 95 % interval.

    Both rows are scored on the same images in each resample, so that difficulty common to both
    cancels. Parameters are those of ``estimate``; ``first`` and ``second`` are the predictions of
    two rows.
    """

    def gap(y_true: np.ndarray, _: None, weights: np.ndarray) -> np.ndarray:
        return metric(y_true, first, weights) - metric(y_true, second, weights)

    return estimate(gap, y_true, None, weights=weights, fewest=fewest)


class Comparison(NamedTuple):
    """How two rows differ: the difference, its 95 % interval, and McNemar's p."""

    difference: float
    low: float
    high: float
    p: float


def paired(
    y_true: np.ndarray, first: np.ndarray, second: np.ndarray, *, groups: np.ndarray, seed: int
) -> Comparison:
    """Compare the accuracies of two rows of predictions on the same images.

    Parameters
    ----------
    y_true, first, second : array of int, shape (n,)
        Labels, and the predictions of the two rows.
    groups : array of str, shape (n,)
        Patient groups, which are resampled whole.
    seed : int
        Of the resamples.

    Returns
    -------
    Comparison
        First minus second; ``p`` of McNemar's exact test takes images as independent.
    """
    weights = resamples(groups, y_true, seed=seed)
    interval = difference(metrics.accuracy, y_true, first, second, weights=weights)
    return Comparison(*interval, mcnemar(first == y_true, second == y_true))


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Return the exact two-sided p-value of two rows being equally accurate (McNemar 1947).

    Only images that exactly one row classifies correctly count; under the null hypothesis either
    row is equally likely to be the correct one. Images are treated as independent: several of one
    patient make p too small.

    Parameters
    ----------
    right_a, right_b : array of bool, shape (n,)
        Whether each row's prediction is correct.

    Returns
    -------
    float, range (0, 1]
        1 where the rows are correct on the same images.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise ValueError(f"{right_a.shape} and {right_b.shape} images: expected the same images")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return 1.0
    from scipy import stats  # takes a second to import

    return float(stats.binomtest(only_a, only_a + only_b).pvalue)

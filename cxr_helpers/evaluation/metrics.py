"""Metrics of images that count several times, for all draws of a bootstrap at once.

Each function takes ``weights``, array of int or float, shape (draws, n): how often an image counts
in a draw, from ``intervals.resamples``; one row of ones gives the plain metric. It returns float64,
shape (draws,), NaN where a draw leaves the metric undefined. ``y_true`` and ``y_pred`` are
arrays of int, shape (n,). All but the calibration error equal scikit-learn's metric of that name
with ``sample_weight``, which takes one draw at a time.
"""

from __future__ import annotations

import numpy as np


def accuracy(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of images that are called what they are."""
    y_true, y_pred, weights = _images(y_true, y_pred, weights)
    return _over(weights @ (y_true == y_pred), weights.sum(axis=1))


def sensitivity(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the images of class 1 that are called 1."""
    return _recall(y_true, y_pred, weights, of=1)


def specificity(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the images of class 0 that are called 0."""
    return _recall(y_true, y_pred, weights, of=0)


def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over classes of the share called right.

    A class that a draw lacks is left out of its mean; fewer than two classes give NaN.
    """
    found = np.array([_recall(y_true, y_pred, weights, of=k) for k in np.unique(y_true)])
    seen = np.isfinite(found).sum(axis=0)
    return _over(np.nansum(found, axis=0), np.where(seen < 2, 0, seen))


def auroc(y_true: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of (1, 0) pairs of images that the score orders right; a tie counts half.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1, and anything else for the rest.
    score : array of float, shape (n,)
        Higher means class 1, any scale.
    weights : array, shape (draws, n)

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    ill, well = _by_score(y_true, score, weights)
    above = np.cumsum(ill, axis=0) - ill / 2
    return _over((well * above).sum(axis=0), ill.sum(axis=0) * well.sum(axis=0))


def macro_auroc(y_true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean AUROC of each class against the rest; NaN where a class is missing.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        Columns of ``probabilities``.
    probabilities : array of float, shape (n, k)
    weights : array, shape (draws, n)
    """
    columns = np.asarray(probabilities).T
    each = [auroc(np.asarray(y_true) == k, column, weights) for k, column in enumerate(columns)]
    return np.mean(each, axis=0)


def average_precision(y_true: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the precision at each distinct score, weighted by the recall it adds.

    Parameters and errors are those of ``auroc``. A draw without either class gives NaN.
    """
    ill, well = _by_score(y_true, score, weights)
    found, wrong = np.cumsum(ill, axis=0), np.cumsum(well, axis=0)
    # no image so high counts in the draw: it adds no recall, whatever its precision
    precision = np.nan_to_num(_over(found, found + wrong))
    return _over((ill * precision).sum(axis=0), np.where(wrong[-1] > 0, found[-1], 0))


def brier(y_true: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean squared difference between probability and y_true (Brier 1950).

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 or 0.
    probability : array of float, shape (n,), range [0, 1]
        Of class 1.
    weights : array, shape (draws, n)

    Raises
    ------
    ValueError
        If a probability is out of range.
    """
    y_true, probability, weights = _images(y_true, check_probability(probability), weights)
    return _over(weights @ (probability - y_true) ** 2, weights.sum(axis=1))


def calibration_error(
    y_true: np.ndarray, probability: np.ndarray, weights: np.ndarray, *, bins: int = 10
) -> np.ndarray:
    """Return the expected calibration error over bins of equal width.

    The mean over images of the gap, in their bin, between mean probability and share of class 1
    (Guo et al. 2017, for the probability of class 1). Parameters and errors are those of
    ``brier``; bins are those of ``bin_of``. Chance alone opens gaps, and drawing images anew opens
    more: the draws lie above the plain value, and where that is small an interval may leave it out.
    """
    y_true, probability, weights = _images(y_true, check_probability(probability), weights)
    member = bin_index(probability, bins=bins)[:, None] == np.arange(bins)
    gaps = np.abs(weights @ (member * (probability - y_true)[:, None]))
    return _over(gaps.sum(axis=1), weights.sum(axis=1))


def bin_index(probability: np.ndarray, *, bins: int) -> np.ndarray:
    """Return each probability's bin, 0 to ``bins`` - 1, of equal width over [0, 1].

    A bin holds its upper edge, the first one 0 too, as in scikit-learn's ``calibration_curve``.
    """
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)


def check_probability(probability: np.ndarray) -> np.ndarray:
    """Return probabilities as float64; ValueError if one is outside [0, 1]."""
    probability = np.asarray(probability, dtype=float)
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        raise ValueError(f"{probability[outside][0]} is no probability: expected 0 to 1")
    return probability


def _images(y_true: np.ndarray, said: np.ndarray, weights: np.ndarray) -> tuple:
    y_true, said, weights = np.asarray(y_true), np.asarray(said), np.asarray(weights, dtype=float)
    if not len(y_true) == len(said) == weights.shape[-1] or weights.ndim != 2:
        raise ValueError(
            f"{len(y_true)} truths, {len(said)} answers and weights of shape {weights.shape}: "
            "expected one of each an image"
        )
    if not len(y_true):
        raise ValueError("there are no images to score")
    return y_true, said, weights


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _recall(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray, *, of: int):
    y_true, y_pred, weights = _images(y_true, y_pred, weights)
    return _over(weights @ ((y_true == of) & (y_pred == of)), weights @ (y_true == of))


def _by_score(y_true: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple:
    """Return the weight of class 1 and of the rest at each distinct score, the highest first."""
    y_true, score, weights = _images(y_true, np.asarray(score, dtype=float), weights)
    if not np.isfinite(score).all():
        raise ValueError(
            f"score {score[~np.isfinite(score)][0]} cannot be ordered: expected finite"
        )
    order = np.argsort(-score)
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    ill = (y_true[order] == 1)[:, None]
    images = weights.T[order]
    return np.add.reduceat(images * ill, starts), np.add.reduceat(images * ~ill, starts)

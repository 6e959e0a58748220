"""Metrics of weighted images, for all resamples of a bootstrap at once.

Each function takes ``weights``, array of int or float, shape (draws, n): how often each image
occurs in a resample, from ``bootstrap.resamples``; a single row of ones gives the plain metric.
It returns float64, shape (draws,), NaN where the metric is undefined on a resample. ``y_true``
and ``y_pred`` are arrays of int, shape (n,). All but the calibration error equal scikit-learn's
metric of that name with ``sample_weight``, which takes one resample at a time.
"""

from __future__ import annotations

import numpy as np


def accuracy(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of images whose prediction is correct."""
    y_true, y_pred, weights = _images(y_true, y_pred, weights)
    return _ratio(weights @ (y_true == y_pred), weights.sum(axis=1))


def mean(_: object, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of a number that each image has; NaN leaves an image out.

    Parameters
    ----------
    _ : object
        In the place of the labels, which are not read.
    values : array of float, shape (n,)
    weights : array, shape (draws, n)
    """
    values, weights = np.asarray(values, dtype=float), np.asarray(weights)
    known = np.isfinite(values)
    return _ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def sensitivity(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the recall of class 1."""
    return _recall(y_true, y_pred, weights, of=1)


def specificity(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the recall of class 0."""
    return _recall(y_true, y_pred, weights, of=0)


def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean recall over classes.

    A class that is missing from a resample is left out of its mean; fewer than two classes give
    NaN.
    """
    recalls = np.array([_recall(y_true, y_pred, weights, of=k) for k in np.unique(y_true)])
    present = np.isfinite(recalls).sum(axis=0)
    return _ratio(np.nansum(recalls, axis=0), np.where(present < 2, 0, present))


def auroc(y_true: np.ndarray, y_score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of (1, 0) pairs of images that are ordered correctly; ties count half.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for the positive class, any other value for the rest.
    y_score : array of float, shape (n,)
        Higher means class 1, on any scale.
    weights : array, shape (draws, n)

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    positive, negative = _by_score(y_true, y_score, weights)
    above = np.cumsum(positive, axis=0) - positive / 2
    pairs = positive.sum(axis=0) * negative.sum(axis=0)
    return _ratio((negative * above).sum(axis=0), pairs)


def explained_auroc(y_true: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC of the value minus its ``residual_auroc``; the parameters are the same."""
    plain = auroc(y_true, np.asarray(values)[:, 0], weights)
    return plain - residual_auroc(y_true, values, weights)


def residual_auroc(y_true: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC of a value in excess of that of class 0 with an equal covariate.

    In each resample, a straight line is fitted to its images of class 0: the uncertainty of the line,
    which images of class 1 may lie beyond, is part of the interval.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for the positive class, 0 for the other.
    values : array of float, shape (n, 2)
        The value, and its covariate.
    weights : array, shape (draws, n)

    Returns
    -------
    ndarray of float64, shape (draws,)
        NaN where a resample lacks a class.
    """
    y, x = np.asarray(values, dtype=float).T
    x = x - x.mean()  # else the differences of squares below lose their digits
    weights = np.asarray(weights, dtype=float)
    of_zero = weights * (np.asarray(y_true) == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = of_zero / of_zero.sum(axis=1, keepdims=True)
        mean_x, mean_y = share @ x, share @ y
        variance, covariance = share @ x**2 - mean_x**2, share @ (x * y) - mean_x * mean_y
        slope = np.where(variance > 1e-12, covariance / variance, 0.0)
    excess = np.nan_to_num(y - mean_y[:, None] - slope[:, None] * (x - mean_x[:, None]))
    each = zip(excess, weights, strict=True)
    return np.array([auroc(y_true, of_draw, draw[None])[0] for of_draw, draw in each])


def macro_auroc(y_true: np.ndarray, y_prob: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean AUROC of each class against the rest; NaN where a class is missing.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        Columns of ``y_prob``.
    y_prob : array of float, shape (n, k)
    weights : array, shape (draws, n)
    """
    columns = np.asarray(y_prob).T
    each = [auroc(np.asarray(y_true) == k, column, weights) for k, column in enumerate(columns)]
    return np.mean(each, axis=0)


def average_precision(y_true: np.ndarray, y_score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean precision over distinct scores, weighted by the recall each adds.

    Parameters and errors are those of ``auroc``. A resample that lacks a class gives NaN.
    """
    positive, negative = _by_score(y_true, y_score, weights)
    true, false = np.cumsum(positive, axis=0), np.cumsum(negative, axis=0)
    # undefined where no image of the resample scores so high; no recall is added there
    precision = np.nan_to_num(_ratio(true, true + false))
    return _ratio((positive * precision).sum(axis=0), np.where(false[-1] > 0, true[-1], 0))


def brier(y_true: np.ndarray, y_prob: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean squared difference between probability and label (Brier 1950).

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 or 0.
    y_prob : array of float, shape (n,), range [0, 1]
        Probability of class 1.
    weights : array, shape (draws, n)

    Raises
    ------
    ValueError
        If a probability is out of range.
    """
    y_true, y_prob, weights = _images(y_true, check_probability(y_prob), weights)
    return _ratio(weights @ (y_prob - y_true) ** 2, weights.sum(axis=1))


def calibration_error(
    y_true: np.ndarray, y_prob: np.ndarray, weights: np.ndarray, *, bins: int = 10
) -> np.ndarray:
    """Return the expected calibration error over bins of equal width.

    The gap between mean probability and share of class 1 in each bin, averaged over images (Guo
    et al. 2017, equation 3, for the probability of class 1). Parameters and errors are those of
    ``brier``; bins are those of ``bin_index``. Sampling noise alone opens gaps, and resampling
    adds to it: bootstrap values are biased upwards, and the interval of a small error may exclude
    the error itself.
    """
    y_true, y_prob, weights = _images(y_true, check_probability(y_prob), weights)
    member = bin_index(y_prob, bins=bins)[:, None] == np.arange(bins)
    gaps = np.abs(weights @ (member * (y_prob - y_true)[:, None]))
    return _ratio(gaps.sum(axis=1), weights.sum(axis=1))


def bin_index(y_prob: np.ndarray, *, bins: int) -> np.ndarray:
    """Return each probability's bin, 0 to ``bins`` - 1, of equal width over [0, 1].

    A bin includes its upper edge, the first one 0 too, as in scikit-learn's
    ``calibration_curve``.
    """
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], y_prob)


def check_probability(y_prob: np.ndarray) -> np.ndarray:
    """Return probabilities as float64; ValueError if one is outside [0, 1]."""
    y_prob = np.asarray(y_prob, dtype=float)
    outside = ~((y_prob >= 0) & (y_prob <= 1))
    if outside.any():
        raise ValueError(f"{y_prob[outside][0]} is not a probability: expected 0 to 1")
    return y_prob


def _images(y_true: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> tuple:
    """Return the arguments as arrays, checked to be of the same images."""
    y_true, predictions = np.asarray(y_true), np.asarray(predictions)
    weights = np.asarray(weights, dtype=float)
    if not len(y_true) == len(predictions) == weights.shape[-1] or weights.ndim != 2:
        raise ValueError(
            f"{len(y_true)} labels, {len(predictions)} predictions and weights of shape "
            f"{weights.shape}: expected one of each per image"
        )
    if not len(y_true):
        raise ValueError("there are no images to score")
    return y_true, predictions, weights


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a quotient, NaN where the denominator is 0."""
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _recall(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray, *, of: int):
    y_true, y_pred, weights = _images(y_true, y_pred, weights)
    return _ratio(weights @ ((y_true == of) & (y_pred == of)), weights @ (y_true == of))


def _by_score(y_true: np.ndarray, y_score: np.ndarray, weights: np.ndarray) -> tuple:
    """Return the weight of class 1 and of the rest at each distinct score, highest score first."""
    y_true, y_score, weights = _images(y_true, np.asarray(y_score, dtype=float), weights)
    if not np.isfinite(y_score).all():
        raise ValueError(f"score {y_score[~np.isfinite(y_score)][0]} is not finite")
    order = np.argsort(-y_score)
    starts = np.flatnonzero(np.diff(y_score[order], prepend=np.inf))
    positive = (y_true[order] == 1)[:, None]
    images = weights.T[order]
    return np.add.reduceat(images * positive, starts), np.add.reduceat(images * ~positive, starts)

"""Calibration of probabilities, and the thresholds that turn them into classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from cxr_helpers.evaluation import metrics


def threshold(
    y_true: np.ndarray, y_score: np.ndarray, *, aim: str = "accuracy", at_least: float = 0.95
) -> float:
    """Choose a threshold on validation images: ``y_score >= threshold`` predicts pneumonia.

    Candidates lie midway between neighbouring distinct scores, and beyond both ends.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    y_score : array of float, shape (n,)
        Higher means pneumonia, on any scale.
    aim : str
        ``accuracy``: the threshold of highest accuracy; ties are broken by the widest gap between
        scores, then by the lowest threshold. ``sensitivity``: the highest of the candidates with a
        sensitivity of at least ``at_least``, or the lowest score if that needs all images.
    at_least : float
        Required sensitivity, above 0 and up to 1; unused for ``accuracy``.

    Returns
    -------
    numpy.float64
        On the scale of ``y_score``; not a Python float, which NumPy would round to the type of
        float32 scores before it compares. For ``accuracy``, a threshold that gives all images the
        same class lies outside the scores by their range, or by 1 if that is more.

    Raises
    ------
    ValueError
        If a class is missing, a score is not finite, or an option is unknown or out of range.
    """
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=float)
    if y_true.shape != y_score.shape or set(np.unique(y_true)) != {0, 1}:
        raise ValueError(
            f"{len(y_score)} scores and classes {np.unique(y_true).tolist()}: expected one class, "
            "0 or 1, for each score, and images of both"
        )
    if not np.isfinite(y_score).all():
        raise ValueError(f"score {y_score[~np.isfinite(y_score)][0]} is not finite")
    if aim not in ("accuracy", "sensitivity"):
        raise ValueError(f"aim {aim!r} is unknown: expected accuracy or sensitivity")
    if not 0 < at_least <= 1:
        raise ValueError(f"sensitivity {at_least} is out of range: expected above 0, up to 1")
    level, position = np.unique(y_score, return_inverse=True)
    middle = (level[:-1] + level[1:]) / 2
    beyond = max(1.0, level[-1] - level[0])
    candidates = np.r_[level[0] - beyond, np.maximum(middle, np.nextafter(level[:-1], np.inf))]
    candidates = np.r_[candidates, level[-1] + beyond]
    positive, negative = (np.bincount(position, y_true == k, len(level)) for k in (1, 0))
    # below each candidate
    false_negative, true_negative = (np.r_[0, np.cumsum(count)] for count in (positive, negative))
    true_positive = positive.sum() - false_negative
    if aim == "sensitivity":
        enough = candidates[true_positive / positive.sum() >= at_least]
        return enough[-1] if len(enough) > 1 else level[0]
    correct = true_positive + true_negative
    width = np.r_[0, np.diff(level), 0]
    return candidates[np.lexsort((-candidates, width, correct))[-1]]


def thresholds(
    y_true: np.ndarray, y_prob: np.ndarray, *, at_least: float = 0.95
) -> dict[str, float]:
    """Return the thresholds that a report compares, by name: 0.5 and those chosen.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        As for ``threshold``. With one class only, no threshold is chosen.
    y_prob : array of float, shape (n,), range [0, 1]
        Probability of pneumonia.
    at_least : float
        Required sensitivity of the last threshold.

    Returns
    -------
    dict of name to numpy.float64
        ``0.5``, ``most accurate`` and ``sensitivity <at_least>``. The second is 0 where all images
        are predicted positive, the next number after 1 where none is.
    """
    chosen = {"0.5": 0.5}
    if len(np.unique(y_true)) == 2:
        chosen["most accurate"] = threshold(y_true, y_prob)
        name = f"sensitivity {at_least:g}"
        chosen[name] = threshold(y_true, y_prob, aim="sensitivity", at_least=at_least)
    return {name: np.clip(value, 0, np.nextafter(1, 2)) for name, value in chosen.items()}


def temperature(logits: np.ndarray, y_true: np.ndarray) -> float:
    """Fit the temperature by which logits are divided (Guo et al. 2017, section 4.2).

    It minimises the log loss on validation images. Dividing softens or sharpens the probabilities
    and leaves the order of the classes unchanged. scikit-learn has the same from 1.8 on, as
    ``CalibratedClassifierCV(method="temperature")``.

    Parameters
    ----------
    logits : array of float, shape (n, k)
        Before the softmax. For a network with a single logit z, the columns are 0 and z.
    y_true : array of int, shape (n,)
        Columns of ``logits``.

    Returns
    -------
    float, range [0.01, 100]
        Above 1 where the network is overconfident. NaN where every prediction is correct: the lower
        the temperature, the lower the loss then, and the images do not determine it.

    Raises
    ------
    ValueError
        If there are fewer than two columns, or a label is not one of them.
    """
    logits, y_true = np.asarray(logits, dtype=float), np.asarray(y_true)
    if logits.ndim != 2 or logits.shape[1] < 2 or y_true.shape != logits.shape[:1]:
        raise ValueError(
            f"logits of shape {logits.shape} for {len(y_true)} images: expected one row per image "
            "and at least two columns"
        )
    if not np.isin(y_true, range(logits.shape[1])).all():
        raise ValueError(
            f"classes {np.unique(y_true).tolist()}: expected 0 to {logits.shape[1] - 1}"
        )

    others = np.where(np.arange(logits.shape[1]) == y_true[:, None], -np.inf, logits)
    if (logits[np.arange(len(y_true)), y_true] > others.max(axis=1)).all():
        return np.nan

    def loss(log_t: float) -> float:
        log_prob = special.log_softmax(logits / np.exp(log_t), axis=1)
        return -log_prob[np.arange(len(y_true)), y_true].mean()

    bounds = (np.log(0.01), np.log(100))
    best = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(best.x))


def prior_shift(
    y_prob: np.ndarray, *, trained: np.ndarray | float, target: np.ndarray | float
) -> np.ndarray:
    """Adjust probabilities from the class shares of training to those of other images.

    Saerens et al. 2002, equation 4, with both shares known. It assumes that the distribution of
    images within each class is the same in both.

    Parameters
    ----------
    y_prob : array of float, shape (n, k), or (n,) for the probability of pneumonia
        Rows sum to 1.
    trained, target : array of float, shape (k,), or float for the share of pneumonia
        Class shares at training and those to adjust to; each above 0, together 1.

    Returns
    -------
    ndarray of float64, the shape of ``y_prob``

    Raises
    ------
    ValueError
        If there are not as many shares as classes, or they are out of range.
    """
    y_prob = metrics.check_probability(y_prob)
    if y_prob.ndim == 1:
        both = np.column_stack([1 - y_prob, y_prob])
        shares = {"trained": [1 - trained, trained], "target": [1 - target, target]}
        return prior_shift(both, **shares)[:, 1]
    trained, target = np.asarray(trained, dtype=float), np.asarray(target, dtype=float)
    for shares in (trained, target):
        valid = shares.shape == y_prob.shape[1:] and (shares > 0).all()
        if not valid or not np.isclose(shares.sum(), 1):
            raise ValueError(
                f"shares {shares.tolist()}: expected {y_prob.shape[1]} above 0 that sum to 1"
            )
    adjusted = y_prob * (target / trained)
    return adjusted / adjusted.sum(axis=1, keepdims=True)


def reliability(y_true: np.ndarray, y_prob: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Compare predicted probabilities with observed shares, in bins of equal width.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    y_prob : array of float, shape (n,), range [0, 1]
        Probability of pneumonia.
    bins : int
        A bin includes its upper edge, the first one 0 too.

    Returns
    -------
    pandas.DataFrame
        One row for each bin that has images: ``low``, ``high`` (its edges), ``mean probability``,
        ``observed share`` (of pneumonia), ``share low``, ``share high`` (its 95 % interval, Wilson
        1927, doi:10.1080/01621459.1927.10502953; images are taken as independent), ``n``.

    Raises
    ------
    ValueError
        If a probability is out of range.
    """
    y_true, y_prob = np.asarray(y_true), metrics.check_probability(y_prob)
    position = metrics.bin_index(y_prob, bins=bins)
    n = np.bincount(position, minlength=bins)
    filled, edges = n > 0, np.linspace(0, 1, bins + 1)
    positive = np.bincount(position, y_true, bins)[filled].astype(int)
    intervals = [
        stats.binomtest(k, of).proportion_ci(method="wilson")
        for k, of in zip(positive, n[filled], strict=True)
    ]
    return pd.DataFrame(
        {
            "low": edges[:-1][filled],
            "high": edges[1:][filled],
            "mean probability": np.bincount(position, y_prob, bins)[filled] / n[filled],
            "observed share": positive / n[filled],
            "share low": [interval.low for interval in intervals],
            "share high": [interval.high for interval in intervals],
            "n": n[filled],
        }
    )


def calibration_error(y_true: np.ndarray, y_prob: np.ndarray, *, bins: int = 10) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3).

    For the probability of pneumonia, over the bins of ``reliability``, whose parameters and errors
    it has.
    """
    ones = np.ones((1, len(y_true)))
    return float(metrics.calibration_error(y_true, y_prob, ones, bins=bins)[0])

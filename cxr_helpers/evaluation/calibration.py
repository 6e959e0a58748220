"""Calibration: probabilities that mean what they say, and the cut that turns them into classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize, special

from cxr_helpers.evaluation import metrics


def threshold(
    y_true: np.ndarray, score: np.ndarray, *, aim: str = "accuracy", at_least: float = 0.95
) -> float:
    """Choose the cut from which on a score means pneumonia, ``score >= cut``, on validation images.

    Candidates lie midway between neighbouring distinct scores, and outside all of them.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    score : array of float, shape (n,)
        Higher means pneumonia, any scale.
    aim : str
        ``accuracy``: the cut with the highest accuracy. Of several as good, the one in the widest
        gap between scores; of gaps as wide, the lowest. ``sensitivity``: the highest cut that
        still finds ``at_least`` of the images with pneumonia.
    at_least : float
        Wanted sensitivity, above 0 and up to 1; unused for ``accuracy``.

    Returns
    -------
    float
        On the scale of ``score``. A cut that calls all images alike lies outside their scores by
        their range, or by 1 if that is more.

    Raises
    ------
    ValueError
        If a class is missing, a score is not finite, or an option is unknown or out of range.
    """
    y_true, score = np.asarray(y_true), np.asarray(score, dtype=float)
    if y_true.shape != score.shape or set(np.unique(y_true)) != {0, 1}:
        raise ValueError(
            f"{len(score)} scores and classes {np.unique(y_true).tolist()}: expected a 0 or 1 for "
            "each score, and images of both"
        )
    if not np.isfinite(score).all():
        raise ValueError(f"score {score[~np.isfinite(score)][0]} gives no cut: expected finite")
    if aim not in ("accuracy", "sensitivity"):
        raise ValueError(f"aim {aim!r} is unknown: expected accuracy or sensitivity")
    if not 0 < at_least <= 1:
        raise ValueError(f"sensitivity {at_least} is out of range: expected above 0, up to 1")
    level, position = np.unique(score, return_inverse=True)
    middle = (level[:-1] + level[1:]) / 2
    beyond = max(1.0, level[-1] - level[0])
    cuts = np.r_[level[0] - beyond, np.maximum(middle, np.nextafter(level[:-1], np.inf))]
    cuts = np.r_[cuts, level[-1] + beyond]
    ill, well = (np.bincount(position, y_true == k, len(level)) for k in (1, 0))
    missed, cleared = (np.r_[0, np.cumsum(count)] for count in (ill, well))  # below each cut
    if aim == "sensitivity":
        return float(cuts[(ill.sum() - missed) / ill.sum() >= at_least][-1])
    right = ill.sum() - missed + cleared
    width = np.r_[0, np.diff(level), 0]
    return float(cuts[np.lexsort((-cuts, width, right))[-1]])


def thresholds(
    y_true: np.ndarray, score: np.ndarray, *, at_least: float = 0.95
) -> dict[str, float]:
    """Return the cuts that a report compares, by name: 0.5 and, with both classes, the chosen.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        As for ``threshold``.
    score : array of float, shape (n,)
        Probabilities. A cut that calls all images positive is 0, one that calls none is the number
        after 1.
    at_least : float
        Sensitivity of the last one.
    """
    found = {"0.5": 0.5}
    if len(np.unique(y_true)) == 2:
        found["most accurate"] = threshold(y_true, score)
        name = f"sensitivity {at_least:g}"
        found[name] = threshold(y_true, score, aim="sensitivity", at_least=at_least)
    return {name: float(np.clip(cut, 0, np.nextafter(1, 2))) for name, cut in found.items()}


def temperature(logits: np.ndarray, y_true: np.ndarray) -> float:
    """Fit the one number by which logits are to be divided (Guo et al. 2017, section 4.2).

    It minimises the log loss on validation images. It moves probabilities towards or away from
    evenness and changes no order of classes.

    Parameters
    ----------
    logits : array of float, shape (n, k)
        Before the softmax. For a network with one logit z: columns 0 and z.
    y_true : array of int, shape (n,)
        Columns of ``logits``.

    Returns
    -------
    float, range [0.01, 100]
        Above 1 where the network is too sure. Near an end of the range the images settle nothing:
        near 0.01 the network is right about each of them.

    Raises
    ------
    ValueError
        If there are fewer than two columns, or a y_true is not one of them.
    """
    logits, y_true = np.asarray(logits, dtype=float), np.asarray(y_true)
    if logits.ndim != 2 or logits.shape[1] < 2 or y_true.shape != logits.shape[:1]:
        raise ValueError(
            f"logits of shape {logits.shape} for {len(y_true)} images: expected a row an image and at "
            "least two columns"
        )
    if not np.isin(y_true, range(logits.shape[1])).all():
        raise ValueError(
            f"classes {np.unique(y_true).tolist()}: expected 0 to {logits.shape[1] - 1}"
        )

    def loss(log_t: float) -> float:
        said = special.log_softmax(logits / np.exp(log_t), axis=1)
        return -said[np.arange(len(y_true)), y_true].mean()

    bounds = (np.log(0.01), np.log(100))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def prior_shift(probabilities: np.ndarray, *, trained: np.ndarray, wanted: np.ndarray):
    """Reweigh probabilities from the class shares of training to those of other images.

    Saerens et al. 2002, equation 4, with both shares known. It supposes that the images of a class
    look the same in both places.

    Parameters
    ----------
    probabilities : array of float, shape (n, k), or (n,) for the probability of pneumonia
        Rows sum to 1.
    trained, wanted : array of float, shape (k,), or float for the share of pneumonia
        Shares of the classes; each above 0, together 1.

    Returns
    -------
    ndarray of float64, the shape of ``probabilities``

    Raises
    ------
    ValueError
        If there are not as many shares as classes, or they are out of range.
    """
    given = metrics.check_probability(probabilities)
    if given.ndim == 1:
        both = np.column_stack([1 - given, given])
        shares = {"trained": [1 - trained, trained], "wanted": [1 - wanted, wanted]}
        return prior_shift(both, **shares)[:, 1]
    trained, wanted = np.asarray(trained, dtype=float), np.asarray(wanted, dtype=float)
    for shares in (trained, wanted):
        fits = shares.shape == given.shape[1:] and (shares > 0).all()
        if not fits or not np.isclose(shares.sum(), 1):
            raise ValueError(
                f"shares {shares.tolist()}: expected {given.shape[1]} above 0 that sum to 1"
            )
    moved = given * (wanted / trained)
    return moved / moved.sum(axis=1, keepdims=True)


def reliability(y_true: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Compare probabilities with what was so, in bins of equal width.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    probability : array of float, shape (n,), range [0, 1]
        Of pneumonia.
    bins : int
        A bin holds its upper edge, the first one 0 too.

    Returns
    -------
    pandas.DataFrame
        A row a bin that has images: ``low``, ``high`` (its edges), ``mean y_pred``,
        ``observed share`` (of pneumonia), ``n``.

    Raises
    ------
    ValueError
        If a probability is out of range.
    """
    y_true, probability = np.asarray(y_true), metrics.check_probability(probability)
    place = metrics.bin_index(probability, bins=bins)
    n = np.bincount(place, minlength=bins)
    some, edges = n > 0, np.linspace(0, 1, bins + 1)
    return pd.DataFrame(
        {
            "low": edges[:-1][some],
            "high": edges[1:][some],
            "mean y_pred": np.bincount(place, probability, bins)[some] / n[some],
            "observed share": np.bincount(place, y_true, bins)[some] / n[some],
            "n": n[some],
        }
    )


def calibration_error(y_true: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> float:
    """Return the mean gap between probability and observed share over the images.

    Guo et al. 2017, equation 3, for the probability of pneumonia and the bins of ``reliability``,
    which has the parameters and errors.
    """
    ones = np.ones((1, len(y_true)))
    return float(metrics.calibration_error(y_true, probability, ones, bins=bins)[0])

"""Scores of a row of the results, one line a metric; undefined ones are missing, not zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr_helpers import intervals, weighted

COLUMNS = ["row", "split", "metric", "value", "low", "high", "n"]
METRICS = (
    "accuracy",
    "balanced accuracy",
    "sensitivity",
    "specificity",
    "AUROC",
    "average precision",
    "Brier",
    "calibration error",
    "worst group accuracy",
    "contradicted AUROC",
)


def binary(
    row: str,
    split: str,
    truth: np.ndarray,
    *,
    predicted: np.ndarray,
    score: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score normal-or-pneumonia predictions.

    Parameters
    ----------
    row, split : str
        What was scored, and on which films.
    truth : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    predicted : array of int, shape (n,)
        The classes said.
    score : array of float, shape (n,), optional
        Higher means pneumonia, any scale. Without it, and without ``probability``, AUROC and
        average precision have no meaning and are left out.
    probability : array of float, shape (n,), range [0, 1], optional
        Of pneumonia. Adds the Brier score and the calibration error, and stands in for
        ``score`` where that is missing.
    groups : array of str or int, shape (n,), optional
        Each film's patient. Adds the intervals: whole patients are drawn, within each class.
    seed : int
        Of the draws. Rows with the same films and seed are scored on the same draws.

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, low, high, n``. ``value`` is NaN where only one
        class occurs and the metric needs two; ``low`` and ``high`` are the 95 % bootstrap
        interval, NaN without groups. That of the calibration error lies high (see ``weighted``).

    Raises
    ------
    ValueError
        If the arrays are not of the same films, a score is not finite, or a probability is out
        of range.
    """
    score = probability if score is None else score
    asked = {
        "accuracy": (weighted.accuracy, predicted),
        "balanced_accuracy": (weighted.balanced_accuracy, predicted),
        "sensitivity": (weighted.sensitivity, predicted),
        "specificity": (weighted.specificity, predicted),
        "auroc": (weighted.auroc, score),
        "average_precision": (weighted.average_precision, score),
        "brier": (weighted.brier, probability),
        "calibration_error": (weighted.calibration_error, probability),
    }
    return _scored(row, split, truth, asked, groups=groups, seed=seed)


def categorical(
    row: str,
    split: str,
    truth: np.ndarray,
    *,
    predicted: np.ndarray,
    probabilities: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score three-class predictions.

    Parameters
    ----------
    row, split : str
        What was scored, and on which films.
    truth, predicted : array of int, shape (n,)
        Positions in ``folder.CLASSES``.
    probabilities : array of float, shape (n, 3), optional
        Rows sum to 1. Without them AUROC is left out.
    groups, seed : optional
        As in ``binary``.

    Returns
    -------
    pandas.DataFrame
        Columns as in ``binary``. AUROC is the mean of the classes' one against the rest.
    """
    asked = {
        "accuracy": (weighted.accuracy, predicted),
        "balanced_accuracy": (weighted.balanced_accuracy, predicted),
        "auroc": (weighted.macro_auroc, probabilities),
    }
    return _scored(row, split, truth, asked, groups=groups, seed=seed)


def unavailable(row: str, split: str, n: int) -> pd.DataFrame:
    """Return the line of a row that could not be scored: its accuracy is missing."""
    return pd.DataFrame([(row, split, "accuracy", np.nan, np.nan, np.nan, n)], columns=COLUMNS)


def wide(scores: pd.DataFrame, metrics: Sequence[str] = METRICS[:5]) -> pd.DataFrame:
    """Return scores for a table: a line a row and split, a column a metric, as text.

    A figure with its interval reads ``0.912 [0.88, 0.94]``, with its own number of films if that
    is not the row's ``0.912 [0.88, 0.94] (n = 45)``; a missing one is a dash.
    """
    n = scores.groupby(["row", "split"])["n"].transform("max")
    lines = scores.assign(own=scores["n"].where(scores["n"] < n))
    shown = scores.assign(
        n=n, text=[figure(*line) for line in lines[["value", "low", "high", "own"]].values]
    )
    table = shown.pivot(index=["row", "split", "n"], columns="metric", values="text")
    table = table.rename(columns={m.replace(" ", "_").lower(): m for m in METRICS})
    order = shown[["row", "split", "n"]].drop_duplicates()
    table = table.reindex(pd.MultiIndex.from_frame(order))
    table = table[[m for m in metrics if m in table]].fillna("–").reset_index()
    return table.rename_axis(columns=None).assign(row=table["row"].str.replace("_", " "))


def figure(value: float, low: float = np.nan, high: float = np.nan, n: float = np.nan) -> str:
    """Return a figure, its interval and its number of films as text that breaks only between.

    The ends of the interval are rounded outwards, so that it holds the figure as printed too.
    """
    if np.isnan(value):
        return "–"
    interval = ""
    if not np.isnan(low):
        low, high = np.floor(round(100 * low, 6)) / 100, np.ceil(round(100 * high, 6)) / 100
        interval = f" [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}]"
    films = "" if np.isnan(n) else f" (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n:.0f})"
    return f"{value:.3f}{interval}{films}"


def _scored(
    row: str,
    split: str,
    truth: np.ndarray,
    asked: Mapping[str, tuple[intervals.Metric, np.ndarray | None]],
    *,
    groups: np.ndarray | None,
    seed: int,
) -> pd.DataFrame:
    """Return a line for each metric that has something to score."""
    truth = np.asarray(truth)
    weights = None if groups is None else intervals.resamples(groups, truth, seed=seed)
    lines = [
        (row, split, name, *intervals.estimate(metric, truth, said, weights=weights), len(truth))
        for name, (metric, said) in asked.items()
        if said is not None
    ]
    return pd.DataFrame(lines, columns=COLUMNS)

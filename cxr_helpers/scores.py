"""Scores of a row of the results, one line a metric; undefined ones are missing, not zero."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn import metrics

COLUMNS = ["row", "split", "metric", "value", "n"]
METRICS = (
    "accuracy",
    "balanced accuracy",
    "sensitivity",
    "specificity",
    "AUROC",
    "average precision",
)


def binary(
    row: str,
    split: str,
    truth: np.ndarray,
    *,
    predicted: np.ndarray,
    score: np.ndarray | None = None,
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
        Higher means pneumonia, any scale. Without it AUROC and average precision have no
        meaning and are left out.

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, n``; value is NaN where only one class occurs
        and the metric needs two.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    two = len(np.unique(truth)) == 2
    values = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted) if two else np.nan,
        "sensitivity": _share(predicted[truth == 1] == 1),
        "specificity": _share(predicted[truth == 0] == 0),
    }
    if score is not None:
        values["auroc"] = metrics.roc_auc_score(truth, score) if two else np.nan
        values["average_precision"] = (
            metrics.average_precision_score(truth, score) if two else np.nan
        )
    return _lines(row, split, values, len(truth))


def categorical(
    row: str,
    split: str,
    truth: np.ndarray,
    *,
    predicted: np.ndarray,
    probabilities: np.ndarray | None = None,
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

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, n``. AUROC is the mean of the classes' one
        against the rest.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    values = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": np.nanmean(
            [_share(predicted[truth == k] == k) for k in np.unique(truth)]
        ),
    }
    if probabilities is not None:
        values["auroc"] = (
            metrics.roc_auc_score(truth, probabilities, multi_class="ovr", labels=[0, 1, 2])
            if len(np.unique(truth)) == 3
            else np.nan
        )
    return _lines(row, split, values, len(truth))


def auroc_interval(
    truth: np.ndarray, score: np.ndarray, *, seed: int, draws: int = 1000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of an AUROC (percentiles, drawn within each class).

    Parameters
    ----------
    truth : array of int, shape (n,)
        1 and 0.
    score : array of float, shape (n,)
    seed, draws : int
    """
    draw = np.random.default_rng(seed)
    ill, well = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    found = []
    for _ in range(draws):
        rows = np.concatenate([draw.choice(ill, len(ill)), draw.choice(well, len(well))])
        found.append(metrics.roc_auc_score(truth[rows], score[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def unavailable(row: str, split: str, n: int) -> pd.DataFrame:
    """Return the line of a row that could not be scored: its accuracy is missing."""
    return _lines(row, split, {"accuracy": np.nan}, n)


def wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores with a line a row and split, and a column a metric, for a table."""
    table = scores.pivot(index=["row", "split", "n"], columns="metric", values="value")
    table = table.rename(columns={m.replace(" ", "_").lower(): m for m in METRICS})
    table = table[[m for m in METRICS if m in table]].reset_index().rename_axis(columns=None)
    return table.assign(row=table["row"].str.replace("_", " "))


def _share(hits: np.ndarray) -> float:
    return float(np.mean(hits)) if len(hits) else np.nan


def _lines(row: str, split: str, values: dict, n: int) -> pd.DataFrame:
    return pd.DataFrame(
        [(row, split, metric, float(value), n) for metric, value in values.items()], columns=COLUMNS
    )

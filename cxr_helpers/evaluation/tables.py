"""Scores as tables for readers: values with their intervals, Table 1 and what follows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

HEADINGS = (
    "accuracy",
    "balanced accuracy",
    "sensitivity",
    "specificity",
    "AUROC",
    "average precision",
    "Brier",
    "calibration error",
    "worst group accuracy",
    "conflicting AUROC",
)
MAIN = {
    "Accuracy": "accuracy",
    "Balanced accuracy": "balanced_accuracy",
    "AUROC": "auroc",
    "Worst group": "worst_group_accuracy",
}
FURTHER = {
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Average precision": "average_precision",
    "Brier": "brier",
    "Calibration error": "calibration_error",
}
OPTIONAL = ("Worst group",)  # left out where no row has it


class Row(Protocol):
    """A row of Table 1, such as ``pipeline.graph.Row``."""

    id: str
    label: str
    classes: int
    published: float | None


def as_text(scores: pd.DataFrame, metrics: Sequence[str] = HEADINGS[:5]) -> pd.DataFrame:
    """Return scores for a table: one line for each row and split, one column for each metric.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns as ``scorecard.COLUMNS``.
    metrics : sequence of str
        Some of ``HEADINGS``; those that no row has are left out.

    Returns
    -------
    pandas.DataFrame
        Text, as ``with_interval`` writes it; a missing score is a dash. A score of fewer images
        than its row shows their number: ``0.912 [0.88, 0.94] (n = 45)``.
    """
    n = scores.groupby(["row", "split"])["n"].transform("max")
    lines = scores.assign(own=scores["n"].where(scores["n"] < n))
    shown = scores.assign(
        n=n, text=[with_interval(*line) for line in lines[["value", "low", "high", "own"]].values]
    )
    table = shown.pivot(index=["row", "split", "n"], columns="metric", values="text")
    table = table.rename(columns={m.replace(" ", "_").lower(): m for m in HEADINGS})
    order = shown[["row", "split", "n"]].drop_duplicates()
    table = table.reindex(pd.MultiIndex.from_frame(order))
    table = table[[m for m in metrics if m in table]].fillna("–").reset_index()
    return table.rename_axis(columns=None).assign(row=table["row"].str.replace("_", " "))


def with_interval(
    value: float, low: float = np.nan, high: float = np.nan, n: float = np.nan
) -> str:
    """Return a value, its interval and its number of images as text, such as ``0.912 [0.88, 0.94]``.

    The bounds of the interval are rounded outwards, so that it contains the rounded value too.
    Lines break only between the parts.
    """
    if np.isnan(value):
        return "–"
    interval = ""
    if not np.isnan(low):
        low, high = np.floor(round(100 * low, 6)) / 100, np.ceil(round(100 * high, 6)) / 100
        interval = f" [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}]"
    images = "" if np.isnan(n) else f" (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n:.0f})"
    return f"{value:.3f}{interval}{images}"


def table_one(
    scores: pd.DataFrame,
    rows: Iterable[Row],
    columns: Mapping[str, str] = MAIN,
    *,
    split: str = "test",
) -> pd.DataFrame:
    """Return Table 1: one line for each row that has a score, in the order of ``rows``.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns as ``pipeline.results.collect`` returns them.
    rows : iterable of Row
    columns : mapping of heading to metric
        ``MAIN``, or ``FURTHER`` for the table after it.
    split : str

    Returns
    -------
    pandas.DataFrame
        ``Row``, ``Classes``, ``Published``, one text column for each metric (see
        ``with_interval``; a dash where it is not defined), ``n`` and, where several seeds were
        run, ``Accuracy over seeds``.
    """
    own = scores[scores["split"] == split].set_index(["row", "metric"])
    own["own"] = own["n"].where(own["n"] < own.groupby("row")["n"].transform("max"))
    lines = []
    for row in rows:
        if row.id not in own.index or not set(columns.values()) & set(own.loc[row.id].index):
            continue
        found = own.loc[row.id]
        line = {"Row": row.label, "Classes": row.classes}
        if columns is MAIN:
            line["Published"] = np.nan if row.published is None else row.published
        for heading, metric in columns.items():
            given = found.loc[metric] if metric in found.index else None
            line[heading] = (
                "–" if given is None else with_interval(*given[["value", "low", "high", "own"]])
            )
        line["n"] = int(found["n"].max())
        if columns is MAIN and "seeds" in found:
            spread = found.loc["accuracy"]
            line["Accuracy over seeds"] = (
                f"{spread.seeds_mean:.3f} ± {spread.seeds_sd:.3f} ({spread.seeds:.0f})"
                if spread.seeds > 1
                else "–"
            )
        lines.append(line)
    table = pd.DataFrame(lines)
    return table.drop(columns=[h for h in OPTIONAL if h in table and (table[h] == "–").all()])


def validation_gaps(scores: pd.DataFrame) -> dict[str, float]:
    """Return the mean absolute difference between each validation split and test.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns as ``pipeline.results.collect`` returns them.

    Returns
    -------
    dict of split to float
        Mean over accuracy, balanced accuracy and AUROC of the rows scored on both.
    """
    compared = scores[scores["metric"].isin(["accuracy", "balanced_accuracy", "auroc"])]
    values = compared.pivot(index=["row", "metric"], columns="split", values="value")
    return {
        split: float((values[split] - values["test"]).abs().mean())
        for split in values
        if split != "test"
    }

"""Score tables for readers: values with their intervals, Table 1 and the table after it."""

from __future__ import annotations

from collections import Counter
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
    "AUROC": "auroc",
    "Worst group": "worst_group_accuracy",
}
FURTHER = {
    "Balanced accuracy": "balanced_accuracy",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Average precision": "average_precision",
    "Brier": "brier",
    "Calibration error": "calibration_error",
}
OPTIONAL = ("Worst group",)  # omitted where no row has it


class Row(Protocol):
    """A row of Table 1, such as ``pipeline.graph.Row``."""

    id: str
    label: str
    classes: int
    published: float | None


def as_text(
    scores: pd.DataFrame, metrics: Sequence[str] = HEADINGS[:5], *, rows: Iterable[Row] = ()
) -> pd.DataFrame:
    """Return scores as text: one line for each row and split, one column for each metric.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns as ``scorecard.COLUMNS``.
    metrics : sequence of str
        Some of ``HEADINGS``; metrics that no row has are omitted.
    rows : iterable of Row
        Whose labels stand for their ids; where two have the same label, with the number of classes.

    Returns
    -------
    pandas.DataFrame
        Text as ``with_interval`` writes it; a missing score is a dash. A score on fewer images
        than its row has shows their number: ``0.912 [0.88, 0.94] (n = 45)``.
    """
    n = scores.groupby(["row", "split"])["n"].transform("max")
    parts = scores[["value", "low", "high"]].assign(n=scores["n"].where(scores["n"] < n))
    lines = scores.assign(n=n, text=[with_interval(*line) for line in parts.to_numpy()])
    table = lines.pivot(index=["row", "split", "n"], columns="metric", values="text")
    table = table.rename(columns={m.replace(" ", "_").lower(): m for m in HEADINGS})
    order = lines[["row", "split", "n"]].drop_duplicates()
    table = table.reindex(pd.MultiIndex.from_frame(order))
    table = table[[m for m in metrics if m in table]].fillna("–").reset_index()
    labels = _labels(table, rows)
    names = [labels.get(id, id.replace("_", " ")) for id in table["row"]]
    return table.rename_axis(columns=None).assign(row=names)


def _labels(table: pd.DataFrame, rows: Iterable[Row]) -> dict[str, str]:
    """Return the label of each row of a table that has one."""
    shown = [row for row in rows if (table["row"] == row.id).any()]
    alike = Counter(row.label for row in shown)
    return {
        row.id: f"{row.label} ({row.classes} classes)" if alike[row.label] > 1 else row.label
        for row in shown
    }


def with_interval(
    value: float, low: float = np.nan, high: float = np.nan, n: float = np.nan
) -> str:
    """Return a value, its interval and its number of images as text: ``0.912 [0.88, 0.94]``.

    The bounds are rounded outwards, so that the interval contains the rounded value. Lines break
    only between the parts.
    """
    if np.isnan(value):
        return "–"
    interval = ""
    if not np.isnan(low):
        low, high = np.floor(round(100 * low, 6)) / 100, np.ceil(round(100 * high, 6)) / 100
        interval = f" [{low:z.2f},\N{NO-BREAK SPACE}{high:z.2f}]"  # z: no minus before 0
    images = "" if np.isnan(n) else f" (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n:.0f})"
    return f"{value:z.3f}{interval}{images}"


def intervals(frame: pd.DataFrame) -> list[str]:
    """Return ``with_interval`` of the columns ``value``, ``low`` and ``high``, row by row."""
    return [with_interval(*line) for line in frame[["value", "low", "high"]].to_numpy()]


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
        ``Row``, ``Classes``, ``Published``, one text column per metric (see
        ``with_interval``; a dash where it is undefined), ``n`` and, where several seeds were
        run, ``Accuracy over seeds``. The index holds the ids of the rows.
    """
    of_split = scores[scores["split"] == split].set_index(["row", "metric"])
    largest = of_split.groupby("row")["n"].transform("max")
    of_split["group_n"] = of_split["n"].where(of_split["n"] < largest)
    lines, ids = [], []
    for row in rows:
        if row.id not in of_split.index:
            continue
        of_row = of_split.loc[row.id]
        if not set(columns.values()) & set(of_row.index):
            continue
        line = {"Row": row.label, "Classes": row.classes}
        if columns is MAIN:
            line["Published"] = np.nan if row.published is None else row.published
        for heading, metric in columns.items():
            score = of_row.reindex([metric]).iloc[0]  # NaN where there is none
            line[heading] = with_interval(*score[["value", "low", "high", "group_n"]])
        line["n"] = int(of_row["n"].max())
        if columns is MAIN and "seeds" in of_row:
            spread = of_row.loc["accuracy"]
            line["Accuracy over seeds"] = (
                f"{spread.seeds_mean:.3f} ± {spread.seeds_sd:.3f} ({spread.seeds:.0f})"
                if spread.seeds > 1
                else "–"
            )
        lines.append(line)
        ids.append(row.id)
    table = pd.DataFrame(lines, index=ids)
    return table.drop(columns=[h for h in OPTIONAL if h in table and (table[h] == "–").all()])


def validation_gaps(scores: pd.DataFrame) -> dict[str, float]:
    """Return the mean absolute difference of scores between each validation split and test.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns as ``pipeline.results.collect`` returns them.

    Returns
    -------
    dict of split to float
        Mean over accuracy, balanced accuracy and AUROC of all rows scored on both.
    """
    compared = scores[scores["metric"].isin(["accuracy", "balanced_accuracy", "auroc"])]
    values = compared.pivot(index=["row", "metric"], columns="split", values="value")
    return {
        split: float((values[split] - values["test"]).abs().mean())
        for split in values
        if split != "test"
    }

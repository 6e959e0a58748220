"""The results of a run: Table 1, the published figures beside it, and the files with both.

Published accuracies: the course report that this project reproduces (Deep Learning course,
BIU 2024), Table 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers import atomic, stages

COLUMNS = ["row", "split", "metric", "value", "low", "high", "published", "n"]


@dataclass(frozen=True)
class Row:
    """A row of Table 1: its name in the files, its words, how many classes, the published accuracy."""

    id: str
    label: str
    classes: int
    published: float | None = None


ROWS = (
    Row("binary_cnn", "Binary CNN", 2, 0.85),
    Row("categorical_cnn", "Categorical CNN (transfer from binary)", 3, 0.76),
    Row("knn_binary", "kNN on the binary embedding", 2, 0.78),
    Row("knn_categorical", "kNN on the categorical embedding", 3, 0.70),
    Row("autoencoder", "Autoencoder, MSE threshold", 2, 0.33),
    Row("knn_autoencoder", "Autoencoder, kNN on the encoded image", 2, 0.66),
    Row("majority_binary", "Baseline: training films' majority class", 2),
    Row("majority_categorical", "Baseline: training films' majority class", 3),
    Row("size_binary", "Baseline: stored film size alone", 2),
    Row("size_categorical", "Baseline: stored film size alone", 3),
    Row("autoencoder_corrected", "Autoencoder, direction from held-out films", 2),
)


def collect(run_dir: Path) -> pd.DataFrame:
    """Return every stage's scores with the published figures beside them.

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, low, high, published, n``; one line per row and
        metric. ``low`` and ``high`` are the 95 % interval, NaN where a stage wrote none.
        ``published`` is set for the test accuracy of the six published rows.
    """
    found = []
    for stage in stages.STAGES:
        path = stages.stage_folder(run_dir, stage) / "scores.csv"
        if path.is_file():
            found.append(pd.read_csv(path))
    table = pd.concat(found, ignore_index=True)
    published = {row.id: row.published for row in ROWS if row.published is not None}
    comparable = (table["metric"] == "accuracy") & (table["split"] == "test")
    table["published"] = table["row"].map(published).where(comparable)
    return table.reindex(columns=COLUMNS)


def table_one(scores: pd.DataFrame) -> pd.DataFrame:
    """Return Table 1 from ``collect``'s lines: the test scores, a line a row.

    Columns ``Row``, ``Classes``, ``Published``, ``Accuracy``, ``Balanced accuracy``, ``AUROC``,
    ``n``; NaN where a score has no meaning.
    """
    test = scores[scores["split"] == "test"]
    values = test.pivot(index="row", columns="metric", values="value")
    n = test.groupby("row")["n"].first()
    lines = []
    for row in ROWS:
        if row.id not in values.index:
            continue
        get = values.loc[row.id].get
        lines.append(
            (
                row.label,
                row.classes,
                np.nan if row.published is None else row.published,
                get("accuracy", np.nan),
                get("balanced_accuracy", np.nan),
                get("auroc", np.nan),
                int(n[row.id]),
            )
        )
    columns = ["Row", "Classes", "Published", "Accuracy", "Balanced accuracy", "AUROC", "n"]
    return pd.DataFrame(lines, columns=columns)


def validation_gaps(scores: pd.DataFrame) -> dict[str, float]:
    """Return how far each validation split is from test: the mean absolute difference.

    Parameters
    ----------
    scores : pandas.DataFrame
        From ``collect``.

    Returns
    -------
    dict of split to float
        Over accuracy, balanced accuracy and AUROC of the rows scored on both.
    """
    compared = scores[scores["metric"].isin(["accuracy", "balanced_accuracy", "auroc"])]
    values = compared.pivot(index=["row", "metric"], columns="split", values="value")
    return {
        split: float((values[split] - values["test"]).abs().mean())
        for split in values
        if split != "test"
    }


def write(run_dir: Path) -> tuple[pd.DataFrame, dict]:
    """Write ``results.csv`` and ``results.json`` into the run's folder; return both contents."""
    scores = collect(run_dir)
    atomic.write_text(run_dir / "results.csv", scores.to_csv(index=False, lineterminator="\n"))
    content = {
        "dataset": json.loads(
            (stages.stage_folder(run_dir, "01_data") / "dataset.json").read_text(encoding="utf-8")
        ),
        "rows": [
            {
                "row": row,
                "split": split,
                "published": _plain(lines["published"].dropna()),
                "n": int(lines["n"].iloc[0]),
                "metrics": {
                    m: None if pd.isna(v) else float(v)
                    for m, v in zip(lines["metric"], lines["value"], strict=True)
                },
                "intervals": {
                    line.metric: [line.low, line.high]
                    for line in lines.dropna(subset=["low", "high"]).itertuples()
                },
            }
            for (row, split), lines in scores.groupby(["row", "split"], sort=False)
        ],
        "facts": {
            stage: stages.declared(run_dir, stage)["facts"]
            for stage in stages.STAGES
            if stages.declared(run_dir, stage)
        },
    }
    atomic.write_json(run_dir / "results.json", content)
    return scores, content


def _plain(values: pd.Series) -> float | None:
    return float(values.iloc[0]) if len(values) else None

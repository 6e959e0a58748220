"""The results of a run: Table 1, the published figures beside it, and the files with both.

Published accuracies: the course report that this project reproduces (Deep Learning course,
BIU 2024), Table 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers import atomic, intervals, stages, weighted
from cxr_helpers.scores import figure

COLUMNS = ["row", "split", "metric", "value", "low", "high", "published", "n"]


@dataclass(frozen=True)
class Row:
    """A row of Table 1: its name in the files, its words, how many classes, the published accuracy.

    ``retrained`` says whether another seed of ``--seeds`` trains it again; else it has no spread.
    """

    id: str
    label: str
    classes: int
    published: float | None = None
    retrained: bool = True


SEEDS = "seeds"  # folder of a run that holds the same stages, run with other seeds
ROWS_FROM = ("02_binary", "03_categorical", "04_autoencoder", "05_knn")  # depend on a seed
SPREAD = ["seeds", "seeds_mean", "seeds_sd"]

ROWS = (
    Row("binary_cnn", "Binary CNN", 2, 0.85),
    Row("categorical_cnn", "Categorical CNN (transfer from binary)", 3, 0.76),
    Row("knn_binary", "kNN on the binary embedding", 2, 0.78),
    Row("knn_categorical", "kNN on the categorical embedding", 3, 0.70),
    Row("autoencoder", "Autoencoder, MSE threshold", 2, 0.33),
    Row("knn_autoencoder", "Autoencoder, kNN on the encoded image", 2, 0.66),
    Row("ours_binary", "Ours: residual network", 2),
    Row("ours_categorical", "Ours: residual network", 3),
    Row("knn_ours", "kNN on our network's embedding", 2),
    Row("majority_binary", "Baseline: training films' majority class", 2, retrained=False),
    Row("majority_categorical", "Baseline: training films' majority class", 3, retrained=False),
    Row("size_binary", "Baseline: stored film size alone", 2, retrained=False),
    Row("size_categorical", "Baseline: stored film size alone", 3, retrained=False),
    Row("frame_binary", "Baseline: frame of the film alone", 2, retrained=False),
    Row("frame_categorical", "Baseline: frame of the film alone", 3, retrained=False),
    Row("autoencoder_corrected", "Autoencoder, measured direction", 2),
    Row("anomaly_detail", "Distance from normal films, detail", 2, retrained=False),
    Row("anomaly_edges", "Distance from normal films, edges", 2, retrained=False),
    Row("anomaly_both", "Distance from normal films, both", 2, retrained=False),
)


def collect(run_dir: Path, *, seeds: Iterable[int] = ()) -> pd.DataFrame:
    """Return every stage's scores with the published figures beside them.

    Parameters
    ----------
    run_dir : Path
    seeds : iterable of int
        Other seeds that were run now, below ``SEEDS``; what lies there of others is not read.

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, low, high, published, n``; one line per row and
        metric. ``low`` and ``high`` are the 95 % interval, NaN where a stage wrote none.
        ``published`` is set for the test accuracy of the six published rows. Where other seeds
        were run too, ``seeds`` (how many trainings, this one included; 1 for rows that were not
        trained again), ``seeds_mean`` and ``seeds_sd``.
    """
    table = pd.concat(_lines_of(run_dir, stages.STAGES), ignore_index=True)
    seeds = list(seeds)
    if seeds:
        keys, fixed = ["row", "split", "metric"], [row.id for row in ROWS if not row.retrained]
        again = [lines for s in seeds for lines in _lines_of(run_dir / SEEDS / str(s), ROWS_FROM)]
        spread = pd.concat([table, *(lines[~lines["row"].isin(fixed)] for lines in again)])
        spread = spread.groupby(keys)["value"].agg(["count", "mean", "std"])
        spread = spread.rename(columns={"count": "seeds", "mean": "seeds_mean", "std": "seeds_sd"})
        table = table.merge(spread.reset_index(), on=keys, how="left", validate="one_to_one")
    published = {row.id: row.published for row in ROWS if row.published is not None}
    comparable = (table["metric"] == "accuracy") & (table["split"] == "test")
    table["published"] = table["row"].map(published).where(comparable)
    return table.reindex(columns=[*COLUMNS, *SPREAD] if seeds else COLUMNS)


def _lines_of(run_dir: Path, names: Iterable[str]) -> list[pd.DataFrame]:
    """Return the scores of some stages of a run."""
    paths = [stages.stage_folder(run_dir, stage) / "scores.csv" for stage in names]
    return [pd.read_csv(path) for path in paths if path.is_file()]


SHOWN = {
    "Accuracy": "accuracy",
    "Balanced accuracy": "balanced_accuracy",
    "AUROC": "auroc",
    "Worst group": "worst_group_accuracy",
}
OF_GROUPS = ("Worst group",)  # shown only where some row has it
MORE = {
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Average precision": "average_precision",
    "Brier": "brier",
    "Calibration error": "calibration_error",
}


def table_one(
    scores: pd.DataFrame, columns: Mapping[str, str] = SHOWN, *, split: str = "test"
) -> pd.DataFrame:
    """Return Table 1 from ``collect``'s lines: a line a row, in the order of ``ROWS``.

    Parameters
    ----------
    scores : pandas.DataFrame
        From ``collect``.
    columns : mapping of heading to metric
        ``SHOWN``, or ``MORE`` for the table after it.
    split : str

    Returns
    -------
    pandas.DataFrame
        ``Row``, ``Classes``, ``Published``, one text column a metric (the figure with its 95 %
        interval, and its own number of films where those are not all of the row's; a dash where it
        has no meaning), ``n`` and, where several seeds were run, ``Accuracy over seeds``. Rows
        without any of the metrics are left out, and so is ``Worst group`` where no row has it.
    """
    own = scores[scores["split"] == split].set_index(["row", "metric"])
    own["own"] = own["n"].where(own["n"] < own.groupby("row")["n"].transform("max"))
    lines = []
    for row in ROWS:
        if row.id not in own.index or not set(columns.values()) & set(own.loc[row.id].index):
            continue
        metrics = own.loc[row.id]
        line = {"Row": row.label, "Classes": row.classes}
        if columns is SHOWN:
            line["Published"] = np.nan if row.published is None else row.published
        for heading, metric in columns.items():
            found = metrics.loc[metric] if metric in metrics.index else None
            line[heading] = (
                "–" if found is None else figure(*found[["value", "low", "high", "own"]])
            )
        line["n"] = int(metrics["n"].max())
        if columns is SHOWN and "seeds" in metrics:
            spread = metrics.loc["accuracy"]
            line["Accuracy over seeds"] = (
                f"{spread.seeds_mean:.3f} ± {spread.seeds_sd:.3f} ({spread.seeds:.0f})"
                if spread.seeds > 1
                else "–"
            )
        lines.append(line)
    table = pd.DataFrame(lines)
    return table.drop(columns=[h for h in OF_GROUPS if h in table and (table[h] == "–").all()])


def compare(run_dir: Path, first: str, second: str, *, seed: int = 0) -> dict[str, float]:
    """Compare the test accuracy of two rows film by film.

    Parameters
    ----------
    run_dir : Path
    first, second : str
        Ids of rows that were scored on the same films.
    seed : int
        Of the bootstrap's draws.

    Returns
    -------
    dict
        ``gain`` (first minus second), ``low`` and ``high`` (its paired 95 % bootstrap interval,
        whole patient groups drawn), ``p`` (McNemar's exact test), ``n``.
    """
    found = [
        pd.read_csv(path)
        for path in sorted((run_dir / "stages").glob("*/predictions.csv"))
        if path.is_file()
    ]
    said = pd.concat(found, ignore_index=True).query("split == 'test'")
    one, other = (said[said["row"] == row].set_index("film") for row in (first, second))
    both = one.join(other.add_suffix("_other"), how="inner")
    index = pd.read_csv(run_dir / "stages" / "01_data" / "index.csv", keep_default_na=False)
    truth = both["truth"].to_numpy(dtype=int)
    answers = [both[name].to_numpy(dtype=int) for name in ("predicted", "predicted_other")]
    weights = intervals.resamples(index["group"].iloc[both.index], truth, seed=seed)
    gain, low, high = intervals.difference(weighted.accuracy, truth, *answers, weights=weights)
    p = intervals.mcnemar(answers[0] == truth, answers[1] == truth)
    return {"gain": gain, "low": low, "high": high, "p": p, "n": len(both)}


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


def write(run_dir: Path, *, seeds: Iterable[int] = ()) -> tuple[pd.DataFrame, dict]:
    """Write ``results.csv`` and ``results.json`` into the run's folder; return both contents."""
    scores = collect(run_dir, seeds=seeds)
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
                "n": int(lines["n"].max()),
                "group_n": {
                    line.metric: int(line.n)
                    for line in lines[lines["n"] < lines["n"].max()].itertuples()
                },
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

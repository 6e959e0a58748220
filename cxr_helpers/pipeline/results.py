"""The results of a run: every score with the published accuracy beside it, as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cxr_helpers.evaluation import bootstrap
from cxr_helpers.models.networks import registered
from cxr_helpers.pipeline.graph import Row
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import files

COLUMNS = ["row", "split", "metric", "value", "low", "high", "published", "n"]
SPREAD = ["seeds", "seeds_mean", "seeds_sd"]


def rows(run: Run) -> list[Row]:
    """Return the rows of Table 1 in its order: those of the notebooks and of added networks."""
    return run.graph.rows_with(Row(*row) for network in registered() for row in network.rows)


def is_synthetic(run: Run) -> bool:
    """Return whether the images of a run are phantoms."""
    facts = files.read_json(run.stage("01_data") / "dataset.json") or {}
    return bool(facts.get("synthetic"))


def collect(run: Run, *, seeds: Iterable[int] = ()) -> pd.DataFrame:
    """Return the scores of every stage with the published accuracies beside them.

    Parameters
    ----------
    run : Run
    seeds : iterable of int
        Other seeds of this run; stored results of seeds that are not listed are ignored.

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, low, high, published, n``; one line for each row,
        split and metric. ``low`` and ``high`` are the 95 % interval, NaN where there is none.
        ``published`` is set for the test accuracy of the published rows. With other seeds also
        ``seeds`` (number of trainings including this one; 1 for rows that were not trained
        again), ``seeds_mean`` and ``seeds_sd``.
    """
    table = pd.concat(_scores(run, run.graph), ignore_index=True)
    seeds, declared = list(seeds), rows(run)
    if seeds:
        keys, fixed = ["row", "split", "metric"], [row.id for row in declared if not row.retrained]
        again = [lines for s in seeds for lines in _scores(run.seed(s), run.graph.retrained)]
        spread = pd.concat([table, *(lines[~lines["row"].isin(fixed)] for lines in again)])
        spread = spread.groupby(keys)["value"].agg(["count", "mean", "std"])
        spread = spread.rename(columns={"count": "seeds", "mean": "seeds_mean", "std": "seeds_sd"})
        table = table.merge(spread.reset_index(), on=keys, how="left", validate="one_to_one")
    published = {row.id: row.published for row in declared if row.published is not None}
    comparable = (table["metric"] == "accuracy") & (table["split"] == "test")
    table["published"] = table["row"].map(published).where(comparable)
    return table.reindex(columns=[*COLUMNS, *SPREAD] if seeds else COLUMNS)


def _scores(run: Run, names: Iterable[str]) -> list[pd.DataFrame]:
    """Return the tables of scores of some stages of a run."""
    return [pd.read_csv(path) for name in names if (path := run.artifact(name, "scores.csv"))]


def compare(run: Run, first: str, second: str, *, seed: int = 0) -> dict[str, float]:
    """Compare the test accuracy of two rows image by image.

    Parameters
    ----------
    run : Run
    first, second : str
        Ids of rows that were scored on the same images.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        ``gain`` (first minus second), ``low`` and ``high`` (its paired 95 % bootstrap interval,
        whole patient groups resampled), ``p`` (McNemar's exact test), ``n``.
    """
    paths = [run.artifact(name, "predictions.csv") for name in run.graph]
    tables = [pd.read_csv(path) for path in paths if path]
    predictions = pd.concat(tables, ignore_index=True).query("split == 'test'")
    one, other = (
        predictions[predictions["row"] == row].set_index("image") for row in (first, second)
    )
    both = one.join(other.add_suffix("_other"), how="inner")
    index = pd.read_csv(run.stage("01_data") / "index.csv", keep_default_na=False)
    y_true = both["y_true"].to_numpy(dtype=int)
    y_pred = [both[name].to_numpy(dtype=int) for name in ("y_pred", "y_pred_other")]
    groups = index["group"].iloc[both.index]
    gain, low, high, p = bootstrap.paired(y_true, *y_pred, groups=groups, seed=seed)
    return {"gain": gain, "low": low, "high": high, "p": p, "n": len(both)}


def write(run: Run, *, seeds: Iterable[int] = ()) -> tuple[pd.DataFrame, dict]:
    """Write ``results.csv`` and ``results.json`` into the run's folder; return both contents."""
    scores = collect(run, seeds=seeds)
    files.write_text(run.folder / "results.csv", scores.to_csv(index=False, lineterminator="\n"))
    declared = {stage: run.declared(stage) for stage in run.graph}
    content = {
        "dataset": json.loads(Path(run.stage("01_data") / "dataset.json").read_text("utf-8")),
        "rows": [
            _row(row, split, lines)
            for (row, split), lines in scores.groupby(["row", "split"], sort=False)
        ],
        "facts": {stage: content["facts"] for stage, content in declared.items() if content},
    }
    files.write_json(run.folder / "results.json", content)
    return scores, content


def _row(row: str, split: str, lines: pd.DataFrame) -> dict:
    """Return the scores of one row on one split as plain JSON."""
    published, n = lines["published"].dropna(), int(lines["n"].max())
    return {
        "row": row,
        "split": split,
        "published": float(published.iloc[0]) if len(published) else None,
        "n": n,
        "group_n": {line.metric: int(line.n) for line in lines[lines["n"] < n].itertuples()},
        "metrics": {
            line.metric: None if pd.isna(line.value) else float(line.value)
            for line in lines.itertuples()
        },
        "intervals": {
            line.metric: [line.low, line.high]
            for line in lines.dropna(subset=["low", "high"]).itertuples()
        },
    }

"""What the report says around the notebooks: title page, abstract, discussion, appendix.

Every number in the prose is looked up in the results; a name that is not there is an error.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pandas as pd

from cxr_helpers import (
    dataset,
    digests,
    frame_groups,
    manifests,
    publish,
    published,
    results,
    stages,
)
from report.blocks import Prose, Table
from report.document import Front
from report.errors import ReportError

HERE = Path(__file__).parent
HIDDEN = manifests.UNTRACKED  # they are paths of the machine


def compose(
    run_dir: Path,
    *,
    scores: pd.DataFrame,
    values: Mapping[str, Mapping[str, object]],
    options: Mapping[str, object],
) -> dict:
    """Return the arguments of ``report.render`` for a finished run.

    Parameters
    ----------
    run_dir : Path
        The run's folder, all stages finished.
    scores : pandas.DataFrame
        From ``results.collect``.
    values : mapping of stage to parameters
        As they were injected.
    options : mapping
        ``title``, ``author`` and ``course`` of the title page.

    Returns
    -------
    dict
        ``front``, ``opening``, ``closing``, ``appendix``.
    """
    folder_of_data = stages.stage_folder(run_dir, "01_data")
    data = json.loads((folder_of_data / "dataset.json").read_text(encoding="utf-8"))
    index = pd.read_csv(folder_of_data / "index.csv", keep_default_na=False)
    lookup = _lookup(run_dir, scores=scores, data=data, index=index)
    counts = publish.table_content(dataset.counts(index))
    front = Front(
        title=options["title"],
        author=options["author"],
        course=options["course"],
        date=_date(),
        dataset=_dataset_line(data, len(index)),
        counts=Table("tab-front-counts", counts["columns"], counts["rows"], "Films by split"),
        synthetic=data["synthetic"],
    )
    return {
        "front": front,
        "opening": [
            Prose(_prose("abstract.md", lookup)),
            Prose("# Results"),
            *_tables(scores, data),
        ],
        "closing": [Prose(_prose("discussion.md", lookup)), Prose(_prose("references.md", {}))],
        "appendix": _appendix(run_dir, values=values, data=data),
    }


def _date() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        return dt.datetime.fromtimestamp(int(epoch), dt.UTC).date().isoformat()
    return dt.date.today().isoformat()


def _dataset_line(data: Mapping, films: int) -> str:
    if data["scored_only"]:
        return f"{data['name']}: {films:,} films with those the models learnt from"
    if data["synthetic"]:
        return f"{films:,} synthetic phantoms, drawn by this project from a seed"
    return f"Chest X-ray images (pneumonia), folder {data['name']}: {films:,} films"


def _lookup(run_dir: Path, *, scores: pd.DataFrame, data: Mapping, index: pd.DataFrame) -> dict:
    """Return all names that the prose may use."""
    lines = {}
    gaps = results.validation_gaps(scores)
    for row, own in scores[scores["split"] == "test"].groupby("row"):
        named = dict(zip(own["metric"], own["value"], strict=True))
        said = {line.metric: _percent(line.value, line.low, line.high) for line in own.itertuples()}
        films = dict(zip(own["metric"], own["n"], strict=True))
        lines[row] = SimpleNamespace(
            **named,
            n=int(own["n"].max()),
            said=SimpleNamespace(**said),
            films=SimpleNamespace(**films),
        )
    compared = [
        SimpleNamespace(
            label=row.label,
            accuracy=lines[row.id].accuracy,
            published=row.published,
            classes=row.classes,
        )
        for row in results.ROWS
        if row.published is not None and row.id in lines
    ]
    majority = {
        classes: lines[row].accuracy
        for classes, row in ((2, "majority_binary"), (3, "majority_categorical"))
        if row in lines
    }
    pairs = {
        "ours": ("ours_binary", "binary_cnn"),
        "ours_three": ("ours_categorical", "categorical_cnn"),
        "knn": ("knn_binary", "binary_cnn"),
    }
    test = index.loc[index["split"] == "test", "class_name"].value_counts()
    declared = {stage: stages.declared(run_dir, stage)["facts"] for stage in stages.STAGES}
    return {
        "synthetic": data["synthetic"],
        "scored_only": data["scored_only"],
        "dataset": data["name"],
        "films": f"{len(index):,}",
        "test": lines,
        "published": {row.id: row.published for row in results.ROWS if row.published is not None},
        "compared": compared,
        "close": [row for row in compared if abs(row.accuracy - row.published) <= 0.05],
        "farthest": max(compared, key=lambda row: abs(row.accuracy - row.published)),
        "below": [row.label for row in compared if row.accuracy <= majority[row.classes]],
        "compare": {
            name: results.compare(run_dir, *rows)
            for name, rows in pairs.items()
            if lines.keys() >= {*rows}
        },
        "why_two": data.get("why_two", ""),
        "unnumbered": data.get("unnumbered", 0),
        "seeds": int(scores["seeds"].max()) if "seeds" in scores else 1,
        "published_test_split": all(
            test.get(name, 0) == count
            for name, count in published.counts("test", kinds="pneumonia" not in test).items()
        ),
        "pneumonia_lower": declared["04_autoencoder"]["direction"] == "below",
        "by_frame": _by_frame(scores),
        "labels": {row.id: row.label for row in results.ROWS},
        "facts": declared,
        "gaps": gaps,
        "better_validation": min(gaps, key=gaps.get) if len(gaps) > 1 else None,
    }


def _prose(name: str, lookup: Mapping) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, autoescape=False
    )
    environment.filters |= {
        "percent": lambda share: "no figure" if math.isnan(share) else f"{share:.1%}",
        "signed": lambda share: f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}"),
        "p": lambda p: f"{p:.2g}" if p >= 0.001 else "less than 0.001",
        "three": lambda number: f"{number:.3f}",
        "points": lambda share: f"{100 * share:.1f}",
        "whole": lambda number: f"{number:g}",
    }
    try:
        return environment.get_template(name).render(lookup)
    except (jinja2.UndefinedError, jinja2.TemplateSyntaxError) as error:
        raise ReportError(f"report/{name}, line {_line(error, name)}: {error.message}") from error


def _line(error: jinja2.TemplateError, name: str) -> int:
    """Return the line of a text at which Jinja stopped."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    stack = traceback.extract_tb(error.__traceback__)
    return [frame.lineno for frame in stack if Path(frame.filename).name == name][-1]


def _percent(value: float, low: float, high: float) -> str:
    """Return a share and its interval in words of the prose."""
    if math.isnan(low):
        return f"{value:.1%}"
    return f"{value:.1%} (95% interval {100 * low:.1f} to {100 * high:.1f})"


def _tables(scores: pd.DataFrame, data: Mapping) -> list[Table]:
    """Return Table 1 and the table of the other scores."""
    synthetic = data["synthetic"]
    caption = (
        "Scores on the test films beside the published accuracies of the course report, with 95% "
        "bootstrap intervals in brackets (whole patient groups drawn within each class). Balanced "
        "accuracy is the mean of the classes' recalls; AUROC is the area under the ROC curve, for "
        "three classes the mean of one against the rest; n is the number of test films. A dash "
        "marks what was not published or has no meaning. " + _by_frame(scores)
    )
    table = results.table_one(scores)
    if "Accuracy over seeds" in table:
        caption += (
            " Over seeds: mean ± standard deviation of the accuracy over trainings (their number); a "
            "dash where nothing was trained again."
        )
    size = scores[(scores["row"] == "size_binary") & (scores["metric"] == "accuracy")]
    if size["value"].isna().any():
        caption += " Film size alone is not available: all films it could learn from have one size."
    if data.get("why_two"):
        caption += f" There are no rows for three classes: {data['why_two']}."
    if count := data.get("unnumbered"):
        caption += (
            f" The names of {count:,} images carry no patient number: each is drawn by itself."
        )
    more = results.table_one(scores, results.MORE)
    tables = [_table(table, "tab-results", publish.labelled(caption, synthetic=synthetic))]
    if len(more):
        caption = (
            "More scores on the test films, with the same intervals. Brier score and calibration "
            "error need a probability; the interval of the calibration error lies high, because "
            "resampling itself adds to the error."
        )
        caption = publish.labelled(caption, synthetic=synthetic)
        tables.append(_table(more, "tab-more-results", caption))
    return tables


def _by_frame(scores: pd.DataFrame) -> str:
    """Return what Table 1 says of scores by what the frame says."""
    test = scores[scores["split"] == "test"].set_index(["row", "metric"])[["value", "low", "high"]]
    frame = test.loc["frame_binary"] if "frame_binary" in test.index else test.iloc[:0]
    found = {"test": tuple(frame.loc["auroc"])} if "auroc" in frame.index else {}
    metrics = test.index.get_level_values("metric")
    return frame_groups.note(found, [m for m in ("worst_group_accuracy",) if m in metrics])


def _appendix(run_dir: Path, *, values: Mapping, data: Mapping) -> list:
    """Return parameters, versions and the record of every stage."""
    parameters = pd.DataFrame(
        [
            (stage, name, ", ".join(map(str, v)) if isinstance(v, list) else str(v))
            for stage, own in values.items()
            for name, v in own.items()
            if name not in HIDDEN
        ],
        columns=["stage", "parameter", "value"],
    )
    manifest = {stage: manifests.read(stage, run_dir) for stage in stages.STAGES}
    last = manifest["01_data"]
    versions = pd.DataFrame(last["recipe"]["versions"].items(), columns=["library", "version"])
    record = pd.DataFrame(
        [
            (
                stage,
                manifest[stage]["seconds"],
                (stages.declared(run_dir, stage)["peak_memory_bytes"] or math.nan) / 2**20,
                digests.of(manifest[stage]["recipe"])[:16],
            )
            for stage in stages.STAGES
        ],
        columns=["stage", "seconds", "peak memory (MiB)", "recipe digest"],
    )
    machine = last["machine"]
    return [
        Prose(
            "# Appendix\n\n"
            "Every table and figure above was made by the notebooks with the parameters and "
            "versions below. The recipe digest stands for a stage's code, parameters, inputs and "
            f"versions. Data fingerprint (SHA-256): `{data['fingerprint']}`. "
            f"Machine: {machine['system']}, {machine['cores']} cores."
        ),
        *(
            _table(frame, id, publish.labelled(caption, synthetic=data["synthetic"]))
            for frame, id, caption in (
                (record, "tab-record", "Each stage: seconds, highest memory, recipe."),
                (versions, "tab-versions", "Versions of Python and the libraries."),
                (parameters, "tab-parameters", "Parameters of every stage, seeds included."),
            )
        ),
    ]


def _table(frame: pd.DataFrame, id: str, caption: str) -> Table:
    whole = ("memory", "Classes", "n")
    formats = {
        name: ".2f" if name == "Published" else ".0f" if any(w in name for w in whole) else ".1f"
        for name in frame.select_dtypes("number")
    }
    content = publish.table_content(frame, formats=formats)
    return Table(id, content["columns"], content["rows"], caption)

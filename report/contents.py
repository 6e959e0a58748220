"""The parts of the report that no notebook holds: title page, abstract, discussion, appendix.

Every number in their prose is looked up in the results; a name that does not exist is an error.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pandas as pd

from cxr_helpers.data import kermany
from cxr_helpers.evaluation import shortcut_groups, tables
from cxr_helpers.figures import captions, publishing
from cxr_helpers.figures.forest import accuracies
from cxr_helpers.pipeline import currency, parameters, repeatability, results
from cxr_helpers.pipeline.graph import Row
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import digests
from report.blocks import Figure, Prose, References, Table
from report.document import PARTLY_SYNTHETIC, SYNTHETIC_WARNING, Front
from report.errors import ReportError

HERE = Path(__file__).parent
HIDDEN = currency.UNTRACKED  # parameters that hold paths of the machine
BESIDE_BORDER = {  # rows that the discussion compares with the network that sees only the border
    f"{row}_{kind}": f"border_{kind}"
    for row in ("ours", "knn")
    for kind in ("binary", "categorical")
} | {
    "binary_cnn": "border_binary",
    "categorical_cnn": "border_categorical",
    "autoencoder_corrected": "border_binary",
    "knn_autoencoder": "border_binary",
    "anomaly_both": "border_binary",
}
NAMED = (currency.MASKS, currency.WEIGHTS)  # the same, of which the last part is shown


def compose(
    run: Run,
    *,
    scores: pd.DataFrame,
    values: Mapping[str, Mapping[str, object]],
    options: Mapping[str, object],
) -> dict:
    """Return the arguments of ``report.output.render`` for a finished run.

    Parameters
    ----------
    run : Run
        A run whose stages are all finished.
    scores : pandas.DataFrame
        From ``results.collect``.
    values : mapping of stage to parameters
        Parameter values as injected into the notebooks.
    options : mapping
        ``title``, ``author`` and ``course`` of the title page.

    Returns
    -------
    dict
        Keyword arguments ``front``, ``abstract``, ``opening``, ``closing``, ``appendix`` and
        ``notes``.
    """
    data_folder = run.stage("01_data")
    data = json.loads((data_folder / "dataset.json").read_text(encoding="utf-8"))
    index = pd.read_csv(data_folder / "index.csv", keep_default_na=False)
    lookup = _lookup(run, scores=scores, data=data, index=index)
    front = Front(
        title=options["title"],
        author=options["author"],
        course=options["course"],
        date=_date(),
        dataset=_dataset_line(data, len(index)),
        synthetic=data["synthetic"],
        warning=PARTLY_SYNTHETIC if data["scored_only"] else SYNTHETIC_WARNING,
    )
    rows, groups = results.rows(run), run.graph.groups
    notes = _notes(HERE / "notes", lookup, chapters=list(run.graph))
    return {
        "front": front,
        "abstract": [
            Prose(_prose("abstract.md", lookup)),
            forest(scores, rows, groups, synthetic=data["synthetic"]),
        ],
        "opening": [
            *notes.pop("opening", ()),
            Prose(_prose("results.md", lookup)),
            *_tables(scores, data, rows, groups),
        ],
        "closing": [
            Prose(_prose("discussion.md", lookup)),
            *_map_similarity(lookup["map_similarity"], synthetic=data["synthetic"]),
            *notes.pop("closing", ()),
            References(_prose("references.md", {})),
        ],
        "appendix": _appendix(run, values=values, data=data),
        "notes": notes,
    }


def _notes(folder: Path, lookup: Mapping, *, chapters: Sequence[str]) -> dict[str, list[Prose]]:
    """Return the author's own sections, by their place: ``opening``, a chapter, or ``closing``.

    A file's number is its place: ``00-….md`` before the chapters, ``02-….md`` after the second,
    a number above the last chapter's at the end.

    Raises
    ------
    ReportError
        If a name does not begin with a number, a file does not begin with a heading, or it uses a
        name that does not exist.
    """
    notes: dict[str, list[Prose]] = {}
    for path in sorted(folder.glob("*.md")):
        number = path.name[:2]
        if not number.isdecimal():
            raise ReportError(
                f"report/notes/{path.name}: begin its name with the number of the chapter that it "
                "follows, such as 02-my-words.md (00: before the chapters, 99: at the end)"
            )
        after = [chapter for chapter in chapters if chapter[:2] == number]
        place = after[0] if after else "opening" if int(number) == 0 else "closing"
        text = _prose(f"notes/{path.name}", lookup)
        if not text.lstrip().startswith("#"):
            raise ReportError(
                f"report/notes/{path.name}: begin it with a heading, such as ## Remark"
            )
        notes.setdefault(place, []).append(Prose(text))
    return notes


def forest(
    scores: pd.DataFrame, rows: Sequence[Row], groups: Mapping[str, str], *, synthetic: bool
) -> Figure:
    """Return the figure of the title page: the accuracy of each row, with its interval.

    Parameters
    ----------
    scores : pandas.DataFrame
        From ``results.collect``.
    rows : sequence of Row
        Those without a score, and baselines, are left out.
    groups : mapping of row id to group
        ``graph.groups``.
    synthetic : bool
        Whether the images are phantoms, which the caption then states.
    """
    test = scores[(scores["split"] == "test") & (scores["metric"] == "accuracy")]
    accuracy = test.set_index("row")[["value", "low", "high"]]
    lines = [
        (row.label, row.classes, *accuracy.loc[row.id], row.published)
        for row in rows
        if row.id in accuracy.index and groups.get(row.id) != "baseline"
    ]
    columns = ["label", "classes", "value", "low", "high", "published"]
    shown = pd.DataFrame(lines, columns=columns).dropna(subset="value")
    baselines = pd.DataFrame(
        [
            (label, classes, accuracy["value"].get(f"{name}_{kind}"))
            for name, label in (("majority", "majority class"), ("border", "border alone"))
            for kind, classes in (("binary", 2), ("categorical", 3))
        ],
        columns=["label", "classes", "value"],
    ).dropna()
    chart = accuracies(shown.astype({"published": float}), baselines.astype({"value": float}))
    svg, png = publishing.pictures(chart, id="fig-results")
    caption = (
        "Accuracy of each row on the test images with its 95% bootstrap interval, beside the published "
        "one of the course report. Lines: always predicting the majority class of the training "
        "images, and a network that sees only the border."
    )
    return Figure(
        "fig-results",
        svg,
        png,
        publishing.labelled(caption, synthetic=synthetic),
        "Points with intervals, one for each row, on a scale of accuracy; Table 1 has the numbers.",
    )


def _date() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        return dt.datetime.fromtimestamp(int(epoch), dt.UTC).date().isoformat()
    return dt.date.today().isoformat()


def _dataset_line(data: Mapping, n_images: int) -> str:
    if data["scored_only"]:
        return f"{data['name']}: {n_images:,} images, including those used for training"
    if data["synthetic"]:
        return f"{n_images:,} synthetic phantoms, drawn by this project from a seed"
    return f"Chest X-ray images (pneumonia), folder {data['name']}: {n_images:,} images"


def _lookup(run: Run, *, scores: pd.DataFrame, data: Mapping, index: pd.DataFrame) -> dict:
    """Return all names that the prose may use.

    ``test.<row>.<metric>`` is a value on the test images, ``test.<row>.text.<metric>`` the value
    with its interval as text, ``test.<row>.n_of.<metric>`` the number of images it is over.
    """
    test = {}
    published = {row.id: row.published for row in run.graph.rows if row.published is not None}
    gaps = tables.validation_gaps(scores[scores["row"].isin(published)])
    for row, lines in scores[scores["split"] == "test"].groupby("row"):
        values = dict(zip(lines["metric"], lines["value"], strict=True))
        text = {
            line.metric: _percent(line.value, line.low, line.high) for line in lines.itertuples()
        }
        n_of = dict(zip(lines["metric"], lines["n"], strict=True))
        test[row] = SimpleNamespace(
            **values,
            n=int(lines["n"].max()),
            text=SimpleNamespace(**text),
            n_of=SimpleNamespace(**n_of),
        )
    compared = [
        SimpleNamespace(
            label=row.label,
            accuracy=test[row.id].accuracy,
            published=row.published,
            classes=row.classes,
        )
        for row in run.graph.rows
        if row.id in published and row.id in test
    ]
    majority = {
        classes: test[row].accuracy
        for classes, row in ((2, "majority_binary"), (3, "majority_categorical"))
        if row in test
    }
    pairs = {
        "ours_binary": ("ours_binary", "binary_cnn"),
        "ours_categorical": ("ours_categorical", "categorical_cnn"),
        "ours_adapted": ("ours_adapted", "ours_binary"),
        "knn_binary": ("knn_binary", "binary_cnn"),
    }
    test_counts = index.loc[index["split"] == "test", "class_name"].value_counts()
    declared = {stage: run.declared(stage)["facts"] for stage in run.graph}
    return {
        "synthetic": data["synthetic"],
        "scored_only": data["scored_only"],
        "dataset": data["name"],
        "n_images": f"{len(index):,}",
        "n_test": f"{(index['split'] == 'test').sum():,}",
        "n_test_groups": f"{index.loc[index['split'] == 'test', 'group'].nunique():,}",
        "test": test,
        "published": published,
        "compared": compared,
        "within_five_points": [
            row for row in compared if abs(row.accuracy - row.published) <= 0.05
        ],
        "largest_difference": max(compared, key=lambda row: abs(row.accuracy - row.published)),
        "minus_border": [
            SimpleNamespace(
                label=row.label, classes=row.classes, **results.compare(run, row.id, border)
            )
            for row in run.graph.rows
            if row.id in BESIDE_BORDER
            and (border := BESIDE_BORDER[row.id]) in test
            and row.id in test
        ],
        "not_above_majority": [
            row.label for row in compared if row.accuracy <= majority[row.classes]
        ],
        "comparison": {
            name: results.compare(run, *rows)
            for name, rows in pairs.items()
            if test.keys() >= {*rows}
        },
        "two_class_reason": data.get("two_class_reason", ""),
        "without_patient": data.get("without_patient", 0),
        "seeds": int(scores["seeds"].max()) if "seeds" in scores else 1,
        "map_similarity": repeatability.read(run) if "seeds" in scores else pd.DataFrame(),
        "published_test_split": all(
            test_counts.get(name, 0) == count
            for name, count in kermany.counts("test", kinds="pneumonia" not in test_counts).items()
        ),
        "divided_anew": data.get("divided_anew", False),
        "pneumonia_lower": declared["04_autoencoder"]["direction"] == "below",
        "shortcut_note": _shortcut_note(scores),
        "labels": {row.id: row.label for row in run.graph.rows},
        "facts": declared,
        "validation_gaps": gaps,
        "closest_validation": min(gaps, key=gaps.get) if len(gaps) > 1 else None,
    }


def _map_similarity(table: pd.DataFrame, *, synthetic: bool) -> list[Table]:
    """Return the table of the maps of several trainings, if there are any."""
    if not len(table):
        return []
    shown = table[["network", "method", "n"]].assign(
        trainings=tables.intervals(table.rename(columns={"similarity": "value"})),
        images=table["other"].map(tables.with_interval),
        gap=table["gap"].map(tables.with_interval),
    )
    names = {"trainings": "between training runs", "images": "between images", "gap": "difference"}
    caption = (
        "Similarity (absolute Spearman correlation) of the maps of the same image between training "
        "runs with different seeds, mean over pairs of training runs and test images with pneumonia, "
        "with 95% intervals from resampled patients, and of the maps of different images of one "
        "training run; the difference is paired by image."
    )
    caption = publishing.labelled(caption, synthetic=synthetic)
    return [_table(shown.rename(columns=names), "tab-map-similarity", caption)]


def _prose(name: str, lookup: Mapping) -> str:
    environment = captions.environment(loader=jinja2.FileSystemLoader(HERE))
    try:
        return environment.get_template(name).render(lookup)
    except UnicodeDecodeError as error:
        raise ReportError(f"report/{name} is not UTF-8: save it as UTF-8") from error
    except (jinja2.TemplateError, ValueError, TypeError, ArithmeticError) as error:
        raise ReportError(f"report/{name}, line {_line(error, name)}: {error}") from error


def _line(error: Exception, name: str) -> int:
    """Return the line of a template at which Jinja, or a filter, stopped."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    stack = traceback.extract_tb(error.__traceback__)
    return [frame.lineno for frame in stack if Path(frame.filename).name == Path(name).name][-1]


def _percent(value: float, low: float, high: float) -> str:
    """Return a share and its 95 % interval as text for the prose."""
    if math.isnan(low):
        return f"{value:.1%}"
    return f"{value:.1%} (95% interval {100 * low:.1f} to {100 * high:.1f})"


# Sub-headings of Table 1 and of the table after it.
SECTIONS = {
    "published": "Rows of the course report",
    "ours": "Our networks",
    "baseline": "Baselines",
    "anomaly": "Anomaly detection, fitted on normal images",
}


def _sections(shown: pd.DataFrame, groups: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    """Return the sub-headings of a table of rows, each with the number of the row below it."""
    of_row = [groups.get(id, "ours") for id in shown.index]
    return tuple(
        (number, SECTIONS[group])
        for number, group in enumerate(of_row)
        if number == 0 or group != of_row[number - 1]
    )


def _tables(
    scores: pd.DataFrame, data: Mapping, rows: Sequence[Row], groups: Mapping[str, str]
) -> list[Table]:
    """Return Table 1 and the table of further scores."""
    synthetic = data["synthetic"]
    caption = (
        "Scores on the test images beside the published accuracies of the course report, with 95% "
        "bootstrap intervals in brackets (whole patient groups resampled within each class). "
        "AUROC is the area under the ROC curve, for three classes the mean of the one-vs-rest "
        "areas; n is the number of test images. A dash marks a value that was not published or is not defined. "
        + _shortcut_note(scores)
    )
    table = tables.table_one(scores, rows)
    if "Accuracy over seeds" in table:
        caption += (
            " Over seeds: mean ± standard deviation of the accuracy over training runs (number of "
            "runs); a dash where nothing was retrained."
        )
    size = scores[(scores["row"] == "size_binary") & (scores["metric"] == "accuracy")]
    if size["value"].isna().any():
        caption += " Image size alone is not available as a baseline: all training images have the same size."
    if data.get("two_class_reason"):
        caption += f" There are no rows for three classes: {data['two_class_reason']}."
    if count := data.get("without_patient"):
        caption += f" The file names of {count:,} images carry no patient number: each is resampled on its own."
    further = tables.table_one(scores, rows, tables.FURTHER)
    caption = publishing.labelled(caption, synthetic=synthetic)
    published = [_table(table, "tab-results", caption, sections=_sections(table, groups))]
    if len(further):
        caption = (
            "Further scores on the test images, with the same intervals. Balanced accuracy is the mean "
            "of the per-class recalls. Brier score and calibration "
            "error are defined for probabilities only; the interval of the calibration error is "
            "biased upwards, because resampling itself adds to the error."
        )
        caption = publishing.labelled(caption, synthetic=synthetic)
        sections = _sections(further, groups)
        published.append(_table(further, "tab-more-results", caption, sections=sections))
    return published


def _shortcut_note(scores: pd.DataFrame) -> str:
    """Return the sentences of Table 1's caption about worst-group accuracy, or why it is missing."""
    test = scores[scores["split"] == "test"].set_index(["row", "metric"])[["value", "low", "high"]]
    border = test.loc["border_binary"] if "border_binary" in test.index else test.iloc[:0]
    aurocs = {"test": tuple(border.loc["auroc"])} if "auroc" in border.index else {}
    metrics = test.index.get_level_values("metric")
    return shortcut_groups.note(aurocs, [m for m in ("worst_group_accuracy",) if m in metrics])


def _appendix(run: Run, *, values: Mapping, data: Mapping) -> list:
    """Return the record of every stage, versions and parameters, those that were changed first."""
    manifest = {stage: run.manifest(stage) for stage in run.graph}
    changed, complete = [], []
    for stage, stage_values in values.items():
        defaults = parameters.read(run.graph[stage].notebook)
        shown = {
            name: Path(str(value)).name if name in NAMED else value
            for name, value in stage_values.items()
            if name not in HIDDEN
        }
        differing = ", ".join(
            f"{name} {_value(value)} (default {_value(defaults[name].default)})"
            for name, value in shown.items()
            if name in defaults and value != defaults[name].default
        )
        changed += [(stage, differing)] if differing else []
        memory = (run.declared(stage)["peak_memory_bytes"] or math.nan) / 2**20
        digest = digests.sha256_of_json(manifest[stage]["recipe"])[:12]
        text = ", ".join(f"{n} {_value(v)}" for n, v in shown.items())
        complete.append((stage, manifest[stage]["seconds"], memory, digest, text))
    changed = pd.DataFrame(changed, columns=["stage", "parameters"])
    names = ["stage", "seconds", "memory (MiB)", "recipe digest", "parameters"]
    complete = pd.DataFrame(complete, columns=names)
    first = manifest["01_data"]
    versions = ", ".join(
        f"{name} {version}" for name, version in first["recipe"]["versions"].items()
    )
    machine = first["machine"]
    return [
        Prose(
            "# Appendix\n\n"
            "The notebooks produced every table and figure above with the parameters and versions "
            "below. The recipe digest identifies a stage's code, parameters, inputs and "
            f"versions. Data fingerprint (SHA-256): `{data['fingerprint']}`. "
            f"Machine: {machine['system']}, {machine['cores']} cores, {machine['device']}. Versions: {versions}."
        ),
        *(
            _table(table, id, publishing.labelled(caption, synthetic=data["synthetic"]))
            for table, id, caption in (
                (changed, "tab-changed", "Parameters that differ from the notebooks' defaults."),
                (
                    complete,
                    "tab-parameters",
                    "Run time, peak memory, recipe and all parameters of every stage, including seeds. A training "
                    "run or another result that was stored already was read, which takes a moment.",
                ),
            )
            if len(table)
        ),
    ]


def _value(value: object) -> str:
    """Return a parameter's value as text."""
    if isinstance(value, list):
        return "/".join(map(str, value))
    return str(value) if value != "" else "none"


def _table(
    table: pd.DataFrame, id: str, caption: str, *, sections: tuple[tuple[int, str], ...] = ()
) -> Table:
    integers = ("memory", "Classes", "n")
    formats = {
        name: ".2f" if name == "Published" else ".0f" if any(i in name for i in integers) else ".1f"
        for name in table.select_dtypes("number")
    }
    content = publishing.table_content(table, formats=formats)
    rows = content["rows"]
    if sections:  # intervals on a second line
        rows = [[cell.replace(" [", "\n[") for cell in row] for row in rows]
    return Table(id, content["columns"], rows, caption, sections)

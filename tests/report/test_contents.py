"""What the report says around the notebooks, for scores that a test makes up."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data.dataset import Dataset
from cxr_helpers.evaluation.scorecard import Scorecard
from cxr_helpers.pipeline import graph, results, stages
from cxr_helpers.pipeline.runs import Run
from report import contents

FACTS = {
    "direction": "above",
    "drawn_more_often": 0,
    "held_auroc": 0.5,
    "held_interval": [0.4, 0.6],
    "ours_without_mirror_image": {"two accuracy": 0.5},
    "percentile": 5,
    "pneumonia_lower_error": 0.5,
}
WHY = "their names do not say it"
DATA = {"name": "x", "synthetic": True, "scored_only": False}


def lines():
    """Return test scores of all rows; the frame's AUROC may be one half."""
    found = [
        (row.id, "test", metric, 0.8, 0.7, 0.9, 200)
        for row in graph.default().rows
        for metric in ("accuracy", "balanced_accuracy", "auroc")
    ]
    table = pd.DataFrame(found, columns=["row", "split", "metric", "value", "low", "high", "n"])
    is_frame = (table["row"] == "border_binary") & (table["metric"] == "auroc")
    table.loc[is_frame, ["value", "low", "high"]] = 0.479, 0.42, 0.54
    return table


def with_groups(table):
    """Return scores with a worst group of twelve images for two rows."""
    more = [
        (row, "test", "worst_group_accuracy", 0.25, 0.1, 0.45, 12)
        for row in ("binary_cnn", "ours_binary")
    ]
    return pd.concat([table, pd.DataFrame(more, columns=table.columns)], ignore_index=True)


@pytest.fixture
def said(monkeypatch):
    """Return a function from scores to the abstract and the discussion."""
    gain = {"gain": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 1}
    monkeypatch.setattr(results, "compare", lambda *_: gain)

    def say(scores, **facts):
        known = defaultdict(str, FACTS | facts)
        monkeypatch.setattr(stages, "declared", lambda *_: {"facts": known})
        index = pd.DataFrame({"split": ["test"], "class_name": ["normal"]})
        lookup = contents._lookup(Path(), scores=scores, data=DATA, index=index)
        return [
            " ".join(contents._prose(name, lookup).split())
            for name in ("abstract.md", "discussion.md")
        ]

    return say


def table_one(scores):
    return contents._tables(scores, DATA)[0]


def test_where_the_frame_knows_nothing_the_report_says_so_and_has_no_row_for_it(said):
    abstract, discussion = said(lines())
    reason = "does not tell normal from pneumonia here (AUROC: test 0.479 [0.42, 0.54])"
    assert reason in discussion and "drawn more often" not in abstract
    assert "no upper bound on what style gives" in discussion
    table = table_one(lines())
    assert reason in table.caption and "Worst group" not in table.caption
    assert "Worst group" not in [column["label"] for column in table.columns]


def test_a_worst_group_is_told_with_its_images_and_interval(said):
    abstract, discussion = said(with_groups(lines()), drawn_more_often=3)
    assert "25.0% (95% interval 10.0 to 45.0) with the published" in discussion
    assert "(n = 12)" in discussion and "drawn more often" in abstract
    table = table_one(with_groups(lines()))
    place = [column["label"] for column in table.columns].index("Worst group")
    shown = [row[place].replace("\N{NO-BREAK SPACE}", " ") for row in table.rows]
    assert shown[0] == "0.250 [0.10, 0.45] (n = 12)" and shown[1] == "–"
    assert "Worst group" in table.caption and "nothing for a label" not in table.caption
    (n,) = {row[[c["label"] for c in table.columns].index("n")] for row in table.rows}
    assert n == "200"


@pytest.mark.parametrize(
    ("contiguous", "words"),
    [
        (0.7004, "neither predicts test better."),
        (0.75, "the contiguous blocks predict test better."),
    ],
)
def test_a_validation_split_is_only_called_better_where_the_printed_gaps_differ(
    said, contiguous, words
):
    tested = lines()
    others = [
        tested.assign(split="validation", value=0.7),
        tested.assign(split="contiguous", value=contiguous),
    ]
    _, discussion = said(pd.concat([tested.assign(value=0.8), *others], ignore_index=True))
    assert f"On this run {words}" in discussion


def index_of(classes):
    names = ["normal", *(["bacterial", "viral"] if classes == 3 else ["pneumonia"] * 2)]
    index = pd.DataFrame({"split": "test", "class_name": names * 12, "border_normal": 0.5})
    return index.assign(group=[f"{name} {i}" for i, name in enumerate(index["class_name"])])


@pytest.fixture(params=[3, 2])
def run(request, tmp_path, monkeypatch):
    """Return the number of classes, a run's folder with scores of all rows, its data and index."""
    classes = request.param
    data = {
        "synthetic": False,
        "scored_only": False,
        "name": "images",
        "two_class_reason": "",
        "without_patient": 0,
    }
    if classes == 2:
        data |= {"classes": ["normal", "pneumonia"], "two_class_reason": WHY, "without_patient": 36}
    index = index_of(classes)
    images = Dataset(np.zeros((36, 4, 4), np.uint8), index, data)
    card, said = Scorecard(images), np.arange(36) % classes
    with images.evaluation():
        for row in graph.default().rows:
            if row.classes == 2:
                card.binary(row.id, y_pred=said > 0, y_prob=(said > 0).astype(float))
            else:
                card.categorical(row.id, y_pred=said)
    folder = Run(tmp_path).stage("01_data")
    folder.mkdir(parents=True)
    for name, table in {
        "scores": card.table,
        "predictions": card.predictions,
        "index": index,
    }.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    monkeypatch.setattr(stages, "declared", lambda *_: {"facts": defaultdict(str, FACTS)})
    return classes, tmp_path, data, index


def test_prose_and_tables_have_three_classes_or_say_why_not(run):
    classes, run_dir, data, index = run
    scores = results.collect(Run(run_dir))
    lookup = contents._lookup(run_dir, scores=scores, data=data, index=index)
    abstract, discussion = (contents._prose(f"{n}.md", lookup) for n in ("abstract", "discussion"))
    tables = contents._tables(scores, data)
    assert (WHY in abstract) == (WHY in tables[0].caption) == (classes == 2)
    assert ("three classes;" in abstract) == ("for three classes" in discussion) == (classes == 3)
    assert ("no patient number" in abstract) == ("no patient number" in tables[0].caption)
    assert ("no patient number" in abstract) == (classes == 2)
    assert ("no patient number" in discussion) == (classes == 2)
    assert f"of the {6 if classes == 3 else 4} rows" in " ".join(discussion.split())
    assert len(tables[0].rows) == sum(row.classes <= classes for row in graph.default().rows)


def test_a_copy_without_kinds_has_as_many_test_images_as_the_published(run):
    classes, run_dir, data, _ = run
    names = {3: ["bacterial"] * 242 + ["viral"] * 148, 2: ["pneumonia"] * 390}[classes]
    scores = results.collect(Run(run_dir))
    for missing, words in enumerate(("as many, class by class", "are *not* the published")):
        index = pd.DataFrame({"split": "test", "class_name": ["normal"] * 234 + names[missing:]})
        lookup = contents._lookup(run_dir, scores=scores, data=data, index=index)
        assert words in " ".join(contents._prose("discussion.md", lookup).split())

"""Abstract, discussion and results tables of the report, on made-up scores."""

import re
from collections import defaultdict
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from machine import ROOT

from cxr_helpers.data.dataset import Dataset
from cxr_helpers.evaluation import shortcut_groups
from cxr_helpers.evaluation.scorecard import Scorecard
from cxr_helpers.pipeline import graph, repeatability, results
from cxr_helpers.pipeline.runs import Run
from report import blocks, contents
from report.errors import ReportError

ROWS = graph.default().rows
GROUPS = graph.default().groups
FACTS = {
    "direction": "above",
    "oversampled_train_images": 0,
    "held_out_auroc": 0.5,
    "held_out_interval": [0.4, 0.6],
    "ours_averaged_less": {"the whole image alone": {"binary_accuracy": 0.5}},
    "percentile": 5,
    "published_as_two": {"accuracy": 0.75, "gain": 0.05, "low": -0.01, "high": 0.11},
    "share_pneumonia_lower_error": 0.5,
}
BORDER_AUROC = (0.479, 0.42, 0.54)
REASON = "their names do not say it"
DATA = {"name": "x", "synthetic": True, "scored_only": False}


def made_up_scores():
    """Return test scores of all rows; the interval of the border's AUROC contains one half."""
    lines = [
        (row.id, "test", metric, 0.8, 0.7, 0.9, 200)
        for row in ROWS
        for metric in ("accuracy", "balanced_accuracy", "auroc")
    ]
    table = pd.DataFrame(lines, columns=["row", "split", "metric", "value", "low", "high", "n"])
    border_auroc = (table["row"] == "border_binary") & (table["metric"] == "auroc")
    table.loc[border_auroc, ["value", "low", "high"]] = BORDER_AUROC
    return table


def with_worst_group(scores):
    """Return the scores with a worst group of twelve images for two rows."""
    lines = [
        (row, "test", "worst_group_accuracy", 0.25, 0.1, 0.45, 12)
        for row in ("binary_cnn", "ours_binary")
    ]
    return pd.concat([scores, pd.DataFrame(lines, columns=scores.columns)], ignore_index=True)


def opening(lookup):
    """Return the text of the abstract and of what stands before Table 1."""
    names = ("abstract.md", "results.md")
    return " ".join(" ".join(contents._prose(name, lookup).split()) for name in names)


@pytest.fixture
def prose_of(monkeypatch):
    """Return a function from scores to the text of abstract and discussion."""
    no_difference = {"gain": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 1}
    monkeypatch.setattr(results, "compare", lambda *_: no_difference)

    def prose(scores, **facts):
        all_facts = defaultdict(str, FACTS | facts)
        monkeypatch.setattr(Run, "declared", lambda *_: {"facts": all_facts, "outputs": {}})
        index = pd.DataFrame({"split": ["test"], "class_name": ["normal"], "group": ["normal 1"]})
        lookup = contents._lookup(Run(Path()), scores=scores, data=DATA, index=index)
        return opening(lookup), " ".join(contents._prose("discussion.md", lookup).split())

    return prose


def table_one(scores):
    return contents._tables(scores, DATA, ROWS, GROUPS)[0]


def test_uninformative_border_is_explained_and_has_no_worst_group(prose_of):
    abstract, discussion = prose_of(made_up_scores())
    explanation = shortcut_groups.note({"test": BORDER_AUROC}, [])
    assert "(AUROC: test 0.479 [0.42,\N{NO-BREAK SPACE}0.54])" in explanation
    assert " ".join(explanation.split()) in discussion and "sampled more often" not in abstract
    assert "not an upper bound on what style reveals" in discussion
    table = table_one(made_up_scores())
    assert explanation in table.caption and "Worst group" not in table.caption
    assert "Worst group" not in [column["label"] for column in table.columns]


def test_rows_are_compared_with_the_border_on_the_same_images(scored_run):
    _, run, data, index = scored_run
    lookup = contents._lookup(run, scores=results.collect(run), data=data, index=index)
    ours = next(
        row for row in lookup["minus_border"] if (row.label[:4], row.classes) == ("Ours", 2)
    )
    expected = results.compare(run, "ours_binary", "border_binary")
    assert (ours.gain, ours.low, ours.high) == tuple(expected[k] for k in ("gain", "low", "high"))
    discussion = " ".join(contents._prose("discussion.md", lookup).split())
    words = re.search(
        r"minus that of such a network is (.*?)\. (?:The accuracy from|The interval)", discussion
    )[1]
    assert words.count(" points (") == len(lookup["minus_border"]) >= 2
    assert f"for *{ours.label}* (two classes)" in words


def test_surroundings_are_discussed_where_lungs_are_known(prose_of):
    known = {"binary": [0.9, 0.7, 0.2, 0.1, 0.3], "ours": [0.85, 0.55, 0.3, 0.2, 0.4]}
    unchanged = {"surrounded_unchanged": {"binary": 0.97, "ours": 0.98}, "surrounded_majority": 0.6}
    facts = {"surroundings": known, "surrounded": 99} | unchanged
    abstract, discussion = prose_of(made_up_scores(), **facts)
    assert "On 99 images, the accuracy of the residual network, on whole images, is" in abstract
    assert (
        "on whole images, is 98.0%; with only their lungs kept, it is 85.0% with surroundings from"
        in abstract
    )
    assert "from an image of the same class and 55.0%" in abstract
    assert "85.0% (our network; on the unchanged images 98.0%); the majority class" in discussion
    assert "+20.0 points (+10.0 to +30.0; the binary network), +30.0 points" in discussion
    assert "only their lungs kept" not in "".join(prose_of(made_up_scores()))


def test_ranking_without_the_lungs_is_discussed_where_their_outlines_are_known(prose_of):
    _, discussion = prose_of(made_up_scores(), without_lungs={"binary": [0.93, 0.88, 0.97]})
    assert "the AUROC is 0.930 (0.880 to 0.970; the binary network). A network whose" in discussion
    assert "inside of the lungs" not in prose_of(made_up_scores())[1]


def test_worst_group_accuracy_has_interval_and_number_of_images(prose_of):
    scores = with_worst_group(made_up_scores())
    abstract, discussion = prose_of(scores, oversampled_train_images=3)
    assert "25.0% (95% interval 10.0 to 45.0) with the published" in discussion
    assert "(n = 12; " in discussion and "sampled more often" in abstract
    table = table_one(scores)
    labels = [column["label"] for column in table.columns]
    worst_group = [
        row[labels.index("Worst group")].replace("\N{NO-BREAK SPACE}", " ") for row in table.rows
    ]
    assert worst_group[0] == "0.250\n[0.10, 0.45] (n = 12)" and worst_group[1] == "–"
    assert "Worst group" in table.caption
    assert shortcut_groups.note({"test": BORDER_AUROC}, []) not in table.caption
    assert {row[labels.index("n")] for row in table.rows} == {"200"}


@pytest.mark.parametrize(
    ("contiguous", "conclusion"),
    [
        (0.7004, "neither split is closer to test."),
        (0.75, "the contiguous blocks are closer to test."),
    ],
)
def test_validation_split_is_called_closer_only_if_the_printed_gaps_differ(
    prose_of, contiguous, conclusion
):
    test = made_up_scores().assign(value=0.8)
    validation = [
        test.assign(split="validation", value=0.7),
        test.assign(split="contiguous", value=contiguous),
    ]
    _, discussion = prose_of(pd.concat([test, *validation], ignore_index=True))
    assert f"In this run {conclusion}" in discussion


def index_of(classes):
    """Return 36 test images of two or three classes."""
    names = ["normal", *(["bacterial", "viral"] if classes == 3 else ["pneumonia"] * 2)]
    index = pd.DataFrame({"split": "test", "class_name": names * 12, "border_normal": 0.5})
    return index.assign(group=[f"{name} {i}" for i, name in enumerate(index["class_name"])])


@pytest.fixture(params=[3, 2])
def scored_run(request, tmp_path, monkeypatch):
    """Return the number of classes, a run with scores of all rows, its data and index."""
    classes = request.param
    data = {
        "synthetic": False,
        "scored_only": False,
        "name": "images",
        "two_class_reason": "",
        "without_patient": 0,
    }
    if classes == 2:
        data |= {
            "classes": ["normal", "pneumonia"],
            "two_class_reason": REASON,
            "without_patient": 36,
        }
    index = index_of(classes)
    images = Dataset(np.zeros((36, 4, 4), np.uint8), index, data)
    card, y_pred = Scorecard(images), np.arange(36) % classes
    with images.evaluation():
        for row in ROWS:
            if row.classes == 2:
                card.binary(row.id, y_pred=y_pred > 0, y_prob=(y_pred > 0).astype(float))
            else:
                card.categorical(row.id, y_pred=y_pred)
    run = Run(tmp_path)
    folder = run.stage("01_data")
    folder.mkdir(parents=True)
    for name, table in {
        "scores": card.table,
        "predictions": card.predictions,
        "index": index,
    }.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    facts, own = defaultdict(str, FACTS), {"scores.csv": "", "predictions.csv": ""}
    monkeypatch.setattr(
        Run,
        "declared",
        lambda _, stage: {"facts": facts, "outputs": own if stage == "01_data" else {}},
    )
    return classes, run, data, index


def test_prose_and_tables_report_three_classes_or_the_reason_for_two(scored_run):
    classes, run, data, index = scored_run
    scores = results.collect(run)
    lookup = contents._lookup(run, scores=scores, data=data, index=index)
    abstract = opening(lookup)
    discussion = " ".join(contents._prose("discussion.md", lookup).split())
    tables = contents._tables(scores, data, ROWS, GROUPS)
    assert (REASON in abstract) == (REASON in tables[0].caption) == (classes == 2)
    assert (
        ("for three classes" in abstract) == ("for three classes" in discussion) == (classes == 3)
    )
    for text in (abstract, discussion, tables[0].caption):
        assert ("no patient number" in text) == (classes == 2)
    assert f"of the {6 if classes == 3 else 4} rows" in discussion
    assert len(tables[0].rows) == sum(row.classes <= classes for row in ROWS)


def test_published_test_split_is_recognised_by_its_counts_with_and_without_subtypes(scored_run):
    classes, run, data, _ = scored_run
    names = {3: ["bacterial"] * 242 + ["viral"] * 148, 2: ["pneumonia"] * 390}[classes]
    scores = results.collect(run)
    for n_missing, conclusion in enumerate(
        ("match those of the published", "are *not* the published")
    ):
        names_of_test = ["normal"] * 234 + names[n_missing:]
        index = pd.DataFrame({"split": "test", "class_name": names_of_test, "group": "1"})
        lookup = contents._lookup(run, scores=scores, data=data, index=index)
        assert conclusion in " ".join(contents._prose("discussion.md", lookup).split())


@pytest.mark.parametrize("divided_anew", [True, False])
def test_published_training_images_in_other_splits_are_discussed(scored_run, divided_anew):
    _, run, data, index = scored_run
    data = data | {"divided_anew": divided_anew, "synthetic": False}
    lookup = contents._lookup(run, scores=results.collect(run), data=data, index=index)
    discussion = contents._prose("discussion.md", lookup)
    assert ("share the style of the training images" in discussion) == divided_anew


def test_discussion_links_published_counts_only_where_chapter_1_has_them(scored_run):
    """Chapter 1 leaves the table out where an earlier run's models are only scored."""
    _, run, data, index = scored_run
    scores = results.collect(run)
    lookup = contents._lookup(run, scores=scores, data=data, index=index)
    for scored_only in (False, True):
        lookup |= {"synthetic": False, "published_test_split": False, "scored_only": scored_only}
        discussion = contents._prose("discussion.md", lookup)
        assert ("#tab-published-counts" in discussion) is not scored_only


@pytest.mark.parametrize(("synthetic", "scored_only"), [(1, 0), (1, 1), (0, 1)])
def test_images_are_called_phantoms_only_where_they_are(scored_run, synthetic, scored_only):
    """An earlier run on phantoms may score the images of patients."""
    _, run, data, index = scored_run
    lookup = contents._lookup(run, scores=results.collect(run), data=data, index=index)
    lookup |= {"synthetic": synthetic, "scored_only": scored_only, "published_test_split": False}
    abstract, discussion = (
        " ".join(contents._prose(name, lookup).split()) for name in ("abstract.md", "discussion.md")
    )
    assert ("The images are phantoms." in discussion) == (synthetic and not scored_only)
    assert ("or both are phantoms." in discussion) == (synthetic and scored_only)
    assert ("drawn from a seed" in abstract) == (synthetic and not scored_only)
    partly = "so no result says how well networks trained on images of patients perform on images of patients"
    assert (partly in abstract) == (synthetic and scored_only)


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.02, 0.04, "excludes 0 with the binary network: the letter matters to the score."),
        (0.001, 0.04, "excludes 0 with the binary network: the letter matters to the score."),
        (0.0009, 0.04, "No interval of the difference, as it is printed, excludes 0"),
        (0.0002, 0.0004, "No interval of the difference, as it is printed, excludes 0"),
        (
            -0.04,
            -0.02,
            "excludes 0 with the binary network: the letter matters to the score.",
        ),
    ],
)
def test_letter_matters_only_where_its_printed_interval_excludes_0(scored_run, low, high, sentence):
    _, run, data, index = scored_run
    lookup = contents._lookup(run, scores=results.collect(run), data=data, index=index)
    line = {"n": 40, "value": (low + high) / 2, "low": low, "high": high, "erased": 0.1}
    line |= {"elsewhere": 0.0, "flipped": 0.0, "flipped_elsewhere": 0.0}
    facts = lookup["facts"]
    lookup["facts"] = facts | {
        "07_explainability": facts["07_explainability"] | {"letter": {"binary": line}}
    }
    assert sentence in " ".join(contents._prose("discussion.md", lookup).split())


def test_maps_of_other_trainings_are_discussed_where_there_are_several(scored_run):
    _, run, data, index = scored_run
    scores = results.collect(run)
    lookup = contents._lookup(run, scores=scores, data=data, index=index)
    assert "other training runs" not in contents._prose("discussion.md", lookup)
    assert contents._map_similarity(lookup["map_similarity"], synthetic=True) == []
    lines = [
        ("ours", "Grad-CAM", 24, 0.7, 0.6, 0.8, 0.5, 0.2),
        ("ours", "HiResCAM", 24, 0.5, 0.51, 0.6, 0.5, 0.0),
    ]
    table = pd.DataFrame(lines, columns=repeatability.COLUMNS)
    discussion = contents._prose("discussion.md", lookup | {"map_similarity": table})
    assert "Of the 2 combinations" in discussion and "\n1 have maps" in discussion
    (shown,) = contents._map_similarity(table, synthetic=True)
    assert shown.rows[0][:3] == ["ours", "Grad-CAM", "24"] and "SYNTHETIC" in shown.caption
    assert shown.rows[0][3].startswith("0.700 [0.60") and shown.rows[0][4] == "0.500"
    assert shown.rows[0][5] == "0.200"


def test_table_one_has_sub_headings_for_its_groups(prose_of):
    table = table_one(made_up_scores())
    headings = dict(table.sections)
    assert list(headings.values()) == list(contents.SECTIONS.values()) and min(headings) == 0
    first_of_ours = next(number for number, text in headings.items() if text == "Our networks")
    assert table.rows[first_of_ours][0] == "Ours: residual network"
    cells = [cell for row in table.rows for cell in row]
    assert "0.800\n[0.70,\N{NO-BREAK SPACE}0.90]" in cells


def test_title_page_shows_every_row_but_the_baselines():
    figure = contents.forest(made_up_scores(), ROWS, GROUPS, synthetic=True)
    assert figure.caption.startswith("SYNTHETIC PHANTOMS. Accuracy of each row")
    assert figure.svg.startswith("<?xml") and figure.png.startswith(b"\x89PNG")


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Return the folder of the author's sections, which may use one name."""
    (tmp_path / "notes").mkdir()
    monkeypatch.setattr(contents, "HERE", tmp_path)
    return tmp_path / "notes"


def test_own_sections_stand_where_their_number_says(notes):
    for name in ("00-before.md", "02-remark.md", "02-second.md", "99-end.md"):
        (notes / name).write_text(f"## {name}\n\n{{{{ share | percent }}}}")
    placed = contents._notes(notes, {"share": 0.5}, chapters=["01_data", "02_binary"])
    assert {place: len(blocks) for place, blocks in placed.items()} == {
        "opening": 1,
        "02_binary": 2,
        "closing": 1,
    }
    assert placed["closing"][0].markdown == "## 99-end.md\n\n50.0%"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("remark.md", "# x", r"notes/remark\.md: begin its name with the number of the chapter"),
        ("02-x.md", "no heading", r"notes/02-x\.md: begin it with a heading"),
        ("02-x.md", "# x\n\n{{ no_such }}", r"notes/02-x\.md, line 3: 'no_such' is undefined"),
    ],
)
def test_faulty_section_is_named(notes, name, text, message):
    (notes / name).write_text(text)
    with pytest.raises(ReportError, match=message):
        contents._notes(notes, {}, chapters=["01_data", "02_binary"])


@pytest.mark.parametrize("text", ["{{ n | thousands }}", "{{ n.x.y }}", "{{ 1 / 0 }}", "{% if %}"])
def test_mistake_in_a_note_is_named_with_its_line(tmp_path, monkeypatch, text):
    (tmp_path / "note.md").write_text(f"## Remark\n\n{text}\n")
    monkeypatch.setattr(contents, "HERE", tmp_path)
    with pytest.raises(ReportError, match=r"report/note\.md, line 3: "):
        contents._prose("note.md", {"n": "1,500"})


def prose_of_the_report():
    """Return the sources of all sentences: Markdown cells, captions and prose."""
    notebooks = sorted((ROOT / "notebooks").glob("0*.ipynb"))
    cells = [cell for path in notebooks for cell in nbformat.read(path, as_version=4).cells]
    files = [*(ROOT / "notebooks" / "captions").glob("*.toml"), *(ROOT / "report").glob("*.md")]
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    texts += [path.read_text() for path in files if path.name != "references.md"]
    return " ".join("\n".join(texts).split())


def test_every_reference_is_cited_and_every_citation_has_its_reference():
    prose = prose_of_the_report()
    works = (ROOT / "report" / "references.md").read_text()
    listed = {work.groups() for work in map(blocks.WORK.match, works.splitlines()) if work}
    assert len(listed) > 25
    for author, year in listed:
        assert re.search(rf"{author}[\w ,&.-]{{0,30}}? \(?{year}", prose), f"{author} {year}"
        assert blocks.is_cited(author, year, prose), f"{author} {year}"
    one, several = r"([A-Z][\w-]+)", r"(?: et al\.| and [A-Z]\w+| & [A-Z]\w+)"
    assert set(re.findall(rf"{one}{several},? \(?(\d{{4}})", prose)) <= listed

"""The declarations of the stages: what is read from them, and what is refused."""

import json
from pathlib import Path

import pytest

from cxr_helpers.pipeline import graph
from cxr_helpers.pipeline.graph import Graph, Row, StageSpec

ROW = {"id": "knn", "label": "kNN", "classes": 2}


def declare(folder, **stages):
    """Write a notebook for each stage with its declaration; return the folder."""
    for name, declared in stages.items():
        metadata = {} if declared is None else {"cxr": declared}
        (folder / f"{name}.ipynb").write_text(json.dumps({"metadata": metadata, "cells": []}))
    return folder


def load(folder, declared):
    """Return the graph of a first stage and a second one with this declaration."""
    return graph.load(declare(folder, **{"01_data": None, "02_next": declared}))


# --- the stages ---


def test_stages_are_in_the_order_of_their_numbers(tmp_path):
    found = graph.load(declare(tmp_path, **{"10_c": {}, "02_b": {}, "01_a": None}))
    assert list(found) == ["01_a", "02_b", "10_c"] and len(found) == 3
    assert found.notebooks["02_b"] == tmp_path / "02_b.ipynb"


def test_copies_and_other_notebooks_are_not_stages(tmp_path):
    for name in ("01_a-Copy1", "01_a.failed", "notes", "1_b"):
        (tmp_path / f"{name}.ipynb").write_text("not a notebook")
    assert list(graph.load(declare(tmp_path, **{"01_a": {}}))) == ["01_a"]


def test_upstream_is_transitive():
    stages = graph.default()
    assert stages.upstream(["06_tsne"]) == set(stages) - {"06_tsne", "07_explainability"}
    assert stages.upstream(["01_data"]) == set()


def test_default_graph_is_that_of_the_project():
    first, *others = graph.default()
    assert first == "01_data" and graph.default()[first].reads == ()
    assert all(graph.default()[name].reads for name in others)


@pytest.mark.parametrize(
    ("reads", "hint"),
    [("03_last", ""), ("02_next", ""), ("01_dat", "; did you mean '01_data'?"), ("0", "")],
)
def test_stage_that_reads_no_earlier_stage_is_refused(tmp_path, reads, hint):
    declare(tmp_path, **{"03_last": {}})
    with pytest.raises(ValueError) as error:
        load(tmp_path, {"reads": [reads]})
    message = f"02_next.ipynb reads {reads!r}, which is not an earlier stage{hint}"
    assert str(error.value) == message


def test_folder_without_stages_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no notebook with a name like 01_data\.ipynb"):
        graph.load(tmp_path)


# --- the rows of Table 1 ---


def test_rows_are_ordered_by_group_and_place(tmp_path):
    places = {"b": ("ours", 2), "c": ("baseline", 1), "a": ("ours", 1), "d": ("published", 9)}
    rows = [{**ROW, "id": id, "group": g, "place": p} for id, (g, p) in places.items()]
    assert [row.id for row in load(tmp_path, {"rows": rows}).rows] == ["d", "a", "b", "c"]


def test_row_without_a_place_is_last_of_our_rows(tmp_path):
    last, first = {**ROW, "id": "last"}, {**ROW, "id": "first", "group": "ours", "place": 1}
    baseline = {**ROW, "id": "baseline", "group": "baseline"}
    rows = load(tmp_path, {"rows": [last, first, baseline]}).rows
    assert [row.id for row in rows] == ["first", "last", "baseline"]
    assert rows[1] == Row("last", "kNN", 2, published=None, retrained=True)


def test_published_rows_are_those_of_the_course_report():
    published = {row.id: row.published for row in graph.default().rows if row.published}
    assert published == {
        "binary_cnn": 0.85,
        "categorical_cnn": 0.76,
        "knn_binary": 0.78,
        "knn_categorical": 0.70,
        "autoencoder": 0.33,
        "knn_autoencoder": 0.66,
    }


def test_row_that_two_notebooks_declare_is_refused(tmp_path):
    declare(tmp_path, **{"03_last": {"rows": [ROW]}})
    with pytest.raises(
        ValueError, match=r"03_last\.ipynb declares the row 'knn' .* 02_next\.ipynb"
    ):
        load(tmp_path, {"rows": [ROW]})


def test_stages_that_are_retrained_have_trained_rows_or_are_read_by_such():
    """03 reads 02, which trains no row; 01 is shared; 04 has a row that is not trained again."""
    specs = [
        StageSpec("01_data", Path("01_data.ipynb"), rows=(("ours", 1, Row("a", "", 2)),)),
        StageSpec("02_encoder", Path("02_encoder.ipynb"), reads=("01_data",)),
        StageSpec(
            "03_knn",
            Path("03_knn.ipynb"),
            reads=("02_encoder",),
            rows=(("ours", 1, Row("b", "", 2)),),
        ),
        StageSpec(
            "04_size", Path("04_size.ipynb"), rows=(("ours", 1, Row("c", "", 2, retrained=False)),)
        ),
    ]
    assert Graph(specs).retrained == ["02_encoder", "03_knn"]
    trained = ["02_binary", "03_categorical", "04_autoencoder", "05_knn"]
    assert graph.default().retrained == trained


# --- presets ---


def test_presets_are_collected_from_all_stages(tmp_path):
    declare(tmp_path, **{"03_last": {"presets": {"quick": {"k": 1}, "slow": {}}}})
    presets = load(tmp_path, {"presets": {"quick": {"epochs": 3}}}).presets
    assert list(presets) == ["standard", "quick", "slow"] and presets["standard"] == {}
    assert presets["quick"] == {"02_next": {"epochs": 3}, "03_last": {"k": 1}}


# --- declarations that are not valid ---


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([], "[] is not a mapping"),
        ({"read": ["01_data"]}, "unknown key 'read'; did you mean 'reads'?"),
        ({"reads": "01_data"}, "'reads' is not a list"),
        ({"reads": [1]}, "'reads' is not a list of names of stages"),
        ({"presets": ["quick"]}, "'presets' is not a dict"),
        ({"presets": {"quick": 3}}, "a preset is not a mapping of parameters to values"),
        ({"rows": ["knn"]}, "'knn' is not a mapping"),
        ({"rows": [{"id": "x", "classes": 2}]}, "a row has no 'label'"),
        ({"rows": [{**ROW, "lable": "x"}]}, "unknown key 'lable'; did you mean 'label'?"),
        ({"rows": [{**ROW, "group": "our"}]}, "group 'our' is not one of published, ours"),
        ({"rows": [{**ROW, "classes": "2"}]}, "classes of row 'knn' is '2', not 2 or 3"),
        ({"rows": [{**ROW, "label": None}]}, "label of row 'knn' is None, not a text"),
        ({"rows": [{**ROW, "label": 2}]}, "label of row 'knn' is 2, not a text"),
        (
            {"rows": [{**ROW, "published": "0.85"}]},
            "published of row 'knn' is '0.85', not a number",
        ),
        ({"rows": [{**ROW, "place": "first"}]}, "place of row 'knn' is 'first', not a number"),
        (
            {"rows": [{**ROW, "optional": "yes"}]},
            "optional of row 'knn' is 'yes', not true or false",
        ),
    ],
)
def test_invalid_declaration_names_the_notebook_and_the_key(tmp_path, declared, message):
    with pytest.raises(ValueError) as error:
        load(tmp_path, declared)
    start = "02_next.ipynb: its declaration (metadata, 'cxr') is not valid: "
    assert str(error.value).startswith(start) and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", '{"cells": [', "{}", '{"metadata": []}'])
def test_incomplete_notebook_is_named(tmp_path, content):
    (tmp_path / "01_data.ipynb").write_text(content)
    with pytest.raises(ValueError, match=r"01_data\.ipynb is not a complete notebook"):
        graph.load(tmp_path)

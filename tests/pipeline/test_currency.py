import json

import numpy as np
import pytest

from cxr_helpers.figures import appearance
from cxr_helpers.pipeline import currency, runs
from cxr_helpers.pipeline.graph import Graph, StageSpec
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system import accelerators, digests, files

SOURCE = "from cxr_helpers.explain import occlusion\nfrom cxr_helpers.pipeline.stages import Stage"


@pytest.fixture
def run(tmp_path):
    """Return a run with a finished first stage and a second one that reads it."""
    first, second = tmp_path / "01_data.ipynb", tmp_path / "02_binary.ipynb"
    write_cells(first, {"cell_type": "code", "source": SOURCE})
    write_cells(second, {"cell_type": "code", "source": SOURCE})
    stages = StageSpec("01_data", first), StageSpec("02_binary", second, reads=("01_data",))
    run = Run(tmp_path, Graph(stages))
    stage = Stage("01_data", run_dir=tmp_path)
    stage.save("x.npy", np.save, np.arange(3))
    stage.finish()
    (tmp_path / "notebooks").mkdir()
    run.executed("01_data").write_text("{}")
    write_manifest(run)
    return run


def write_cells(path, *cells):
    path.write_text(json.dumps({"cells": cells}))


def write_manifest(run):
    run.write_manifest("01_data", recipe(run), seconds=1.0)


def recipe(run, *, stage="01_data", parameters=None, fingerprint="f"):
    parameters = parameters or {"epochs": 3, "run_dir": str(run.folder)}
    return currency.recipe(run, stage, parameters=parameters, data_fingerprint=fingerprint)


def why(run, **changes):
    return currency.why_stale(run, "01_data", recipe(run, **changes))


def test_unchanged_stage_is_up_to_date(run):
    assert why(run) is None


def test_stage_without_a_declaration_never_finished(run):
    (run.stage("01_data") / runs.DECLARED).unlink()
    assert why(run) == "never finished"


def test_changed_parameter_is_named_with_both_values(run):
    assert why(run, parameters={"epochs": 4}) == "parameter changed: epochs 3 → 4"


def test_place_of_the_run_does_not_count(run):
    assert why(run, parameters={"epochs": 3, "run_dir": "elsewhere"}) is None


def test_content_of_given_weights_counts_and_not_their_place(run, tmp_path):
    first, moved = tmp_path / "w.h5", tmp_path / "other.h5"
    for path in (first, moved):
        path.write_bytes(b"weights")
    given = {"epochs": 3, currency.WEIGHTS: str(first)}
    run.write_manifest("01_data", recipe(run, parameters=given), seconds=1.0)
    assert why(run, parameters=given | {currency.WEIGHTS: str(moved)}) is None
    first.write_bytes(b"other weights")
    assert why(run, parameters=given) == "input changed: pretrained_weights"


def test_content_of_lung_masks_counts_and_not_their_place(run, tmp_path):
    first, moved = tmp_path / "masks", tmp_path / "other"
    for folder in (first, moved):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.PNG").write_bytes(b"mask")
    (moved / "notes.txt").write_text("no mask")
    given = {"epochs": 3, currency.MASKS: str(first)}
    run.write_manifest("01_data", recipe(run, parameters=given), seconds=1.0)
    assert why(run, parameters=given | {currency.MASKS: str(moved)}) is None
    (first / "b.png").write_bytes(b"another mask")
    assert why(run, parameters=given) == "input changed: lung_masks"
    for named in ("", "v7"):  # no folder
        assert "lung_masks" in why(run, parameters=given | {currency.MASKS: named})


def test_changed_images_are_named(run):
    assert why(run, fingerprint="g") == "input changed: data 'f' → 'g'"


def test_changed_code_of_the_notebook_is_named(run):
    write_cells(run.graph["01_data"].notebook, {"cell_type": "code", "source": f"{SOURCE}\n1"})
    assert why(run) == "code of the notebook changed"


def test_outputs_of_the_notebook_do_not_count(run):
    cell = {"cell_type": "code", "source": SOURCE, "outputs": [1], "execution_count": 3}
    write_cells(run.graph["01_data"].notebook, cell)
    assert why(run) is None


def test_changed_and_deleted_artifacts_are_named(run):
    path = run.stage("01_data") / "x.npy"
    path.write_bytes(b"other")
    assert why(run) == "artifact changed or missing: x.npy"
    path.unlink()
    assert why(run) == "artifact changed or missing: x.npy"


def test_notebook_opened_by_hand_leaves_the_run_up_to_date(run, by_hand):
    stage = Stage("01_data", run_dir=run.folder)
    stage.save("x.npy", np.save, np.arange(99))
    stage.finish()
    assert why(run) is None


def test_changed_style_of_the_figures_is_named(run, tmp_path, monkeypatch):
    plotting = {"cell_type": "code", "source": "import cxr_helpers.figures.charts"}
    write_cells(run.graph["01_data"].notebook, plotting)
    write_manifest(run)
    assert why(run) is None
    assert currency.STYLE == appearance.STYLE  # the file that matplotlib reads
    style = tmp_path / "report.mplstyle"
    style.write_text(currency.STYLE.read_text() + "lines.linewidth: 9\n")
    monkeypatch.setattr(currency, "STYLE", style)
    assert why(run) == "helper changed: report.mplstyle"


def test_missing_executed_notebook_is_named(run):
    run.executed("01_data").unlink()
    assert why(run) == "executed notebook changed or missing"


def test_changed_version_of_a_library_is_named(run, monkeypatch):
    versions = run.manifest("01_data")["recipe"]["versions"] | {"keras": "0"}
    monkeypatch.setattr(currency.environment, "versions", lambda: versions)
    assert why(run).startswith("version changed: keras ")


def test_determinism_counts_only_where_it_is_switched_off(run, monkeypatch):
    assert "deterministic" not in recipe(run)["parameters"]
    monkeypatch.setenv(accelerators.NONDETERMINISTIC, "1")
    assert why(run) == "parameter changed: deterministic"
    write_manifest(run)
    assert why(run) is None
    assert run.manifest("01_data")["machine"]["deterministic"] is False


def test_changed_helper_is_named(run, monkeypatch):
    digest = digests.sha256_of_file
    changed = lambda p: "changed" if p.name == "occlusion.py" else digest(p)  # noqa: E731
    monkeypatch.setattr(digests, "sha256_of_file", changed)
    assert why(run) == "helper changed: explain.occlusion"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ({"cell_type": "markdown", "source": "Other words, with a comma."}, None),
        ({"cell_type": "markdown", "source": "A comma", "metadata": {"tags": ["x"]}}, None),
        ({"cell_type": "code", "source": "1"}, "code of the notebook changed"),
    ],
)
def test_changed_markdown_is_distinguished_from_changed_code(run, cell, reason):
    """Planted: a second cell after the code that ran."""
    write_cells(run.graph["01_data"].notebook, {"cell_type": "code", "source": SOURCE}, cell)
    assert why(run) == reason
    assert currency.markdown_changed(run, "01_data", recipe(run)) is True
    write_manifest(run)
    assert currency.markdown_changed(run, "01_data", recipe(run)) is False


def test_recipe_of_a_later_stage_depends_on_earlier_artifacts(run):
    before = recipe(run, stage="02_binary")["inputs"]
    again = Stage("01_data", run_dir=run.folder)
    again.save("x.npy", np.save, np.arange(3))
    again.finish()
    assert recipe(run, stage="02_binary")["inputs"] == before
    again.save("x.npy", np.save, np.arange(4))
    again.finish()
    assert recipe(run, stage="02_binary")["inputs"] != before


def test_input_that_changes_after_the_recipe_is_named(run):
    taken = recipe(run, stage="02_binary")
    assert currency.changed_input(run, "02_binary", taken) is None
    (run.stage("01_data") / "x.npy").write_bytes(b"other")
    assert currency.changed_input(run, "02_binary", taken) == "01_data/x.npy"
    run.forget("01_data")
    assert currency.changed_input(run, "02_binary", taken) == "01_data"


def test_forgotten_stage_never_finished(run):
    run.forget("01_data")
    assert why(run) == "never finished" and run.declared("01_data") is None


@pytest.mark.parametrize("change", ["format", "recipe"])
def test_stage_of_another_version_is_stale(run, change):
    """Planted: a declaration without a format, and a recipe with another entry."""
    path = run.stage("01_data") / (runs.DECLARED if change == "format" else runs.MANIFEST)
    content = files.read_json(path)
    if change == "format":
        del content["format"]
    else:
        content["recipe"]["machine"] = "x"
    files.write_json(path, content)
    assert why(run) == "made by another version of this project"


def test_stage_that_lacked_something_is_tried_again(run):
    Stage("01_data", run_dir=run.folder).finish(facts={"unavailable": "no network"})
    write_manifest(run)
    assert why(run) == "tried again: no network"
    Stage("01_data", run_dir=run.folder).finish(facts={"unavailable": ""})
    write_manifest(run)
    assert why(run) is None


def test_file_of_an_earlier_execution_is_no_artifact(run):
    assert run.artifact("01_data", "x.npy") == run.stage("01_data") / "x.npy"
    (run.stage("01_data") / "old.npy").touch()
    assert run.artifact("01_data", "old.npy") is None
    assert run.artifact("02_binary", "x.npy") is None

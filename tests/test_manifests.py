import json

import numpy as np
import pytest

from cxr_helpers import manifests, stages
from cxr_helpers.stages import Stage

SOURCE = "from cxr_helpers import occlusion\nfrom cxr_helpers.stages import Stage"


@pytest.fixture
def run(tmp_path):
    """Return a run with a finished first stage, its notebook and its parameters."""
    notebook = tmp_path / "01_data.ipynb"
    notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": SOURCE}]}))
    stage = Stage("01_data", run_dir=tmp_path)
    stage.save("x.npy", np.save, np.arange(3))
    stage.finish()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_data.ipynb").write_text("{}")
    manifests.write("01_data", recipe(tmp_path), tmp_path, seconds=1.0)
    return tmp_path


def recipe(run_dir, *, stage="01_data", parameters=None, fingerprint="f"):
    return manifests.recipe(
        stage,
        notebook=run_dir / "01_data.ipynb",
        parameters=parameters or {"epochs": 3, "run_dir": str(run_dir)},
        run_dir=run_dir,
        data_fingerprint=fingerprint,
    )


def why(run_dir, **changes):
    return manifests.why_stale("01_data", recipe(run_dir, **changes), run_dir)


def test_nothing_changed(run):
    assert why(run) is None


def test_never_finished(tmp_path, run):
    stages.stage_folder(run, "01_data").joinpath(stages.DECLARED).unlink()
    assert why(run) == "never finished"


def test_changed_parameter_is_named_with_both_values(run):
    assert why(run, parameters={"epochs": 4}) == "parameter changed: epochs 3 → 4"


def test_where_the_run_lies_does_not_count(run):
    assert why(run, parameters={"epochs": 3, "run_dir": "elsewhere"}) is None


def test_changed_data(run):
    assert why(run, fingerprint="g") == "input changed: data 'f' → 'g'"


def test_changed_notebook(run):
    (run / "01_data.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": SOURCE + "\n1"}]})
    )
    assert why(run) == "notebook changed"


def test_touching_or_running_the_notebook_counts_for_nothing(run):
    cells = [{"cell_type": "code", "source": SOURCE, "outputs": [1], "execution_count": 3}]
    (run / "01_data.ipynb").write_text(json.dumps({"cells": cells}))
    assert why(run) is None


def test_changed_and_deleted_artifacts(run):
    path = stages.stage_folder(run, "01_data") / "x.npy"
    path.write_bytes(b"other")
    assert why(run) == "artifact changed or missing: x.npy"
    path.unlink()
    assert why(run) == "artifact changed or missing: x.npy"


def test_a_notebook_run_by_hand_is_not_taken_for_the_conductors(run):
    by_hand = Stage("01_data", run_dir=run)
    by_hand.save("x.npy", np.save, np.arange(99))
    by_hand.finish()
    assert why(run) == "run by hand since"


def test_the_style_of_the_figures_counts():
    helpers = manifests.imported_helpers(["from cxr_helpers import plots"])
    assert "plots" in helpers


def test_missing_executed_copy(run):
    (run / "notebooks" / "01_data.ipynb").unlink()
    assert why(run) == "executed notebook changed or missing"


def test_changed_version(run, monkeypatch):
    monkeypatch.setattr(
        manifests.provenance, "versions", lambda: manifests_versions | {"keras": "0"}
    )
    manifests_versions = json.loads(
        (stages.stage_folder(run, "01_data") / "manifest.json").read_text()
    )["recipe"]["versions"]
    assert why(run).startswith("version changed: keras ")


def test_helpers_count_directly_and_through_others(run):
    assert manifests.imported_helpers([SOURCE]) == ["atomic", "occlusion", "stages"]
    through = manifests.imported_helpers(["from cxr_helpers import dataset"])
    assert {"dataset", "folder", "splits", "stages"} <= set(through)
    assert "gradcam" not in through


def test_changed_helper_is_named(run, monkeypatch):
    digest = stages.file_digest
    monkeypatch.setattr(
        stages, "file_digest", lambda p: "changed" if p.name == "occlusion.py" else digest(p)
    )
    assert why(run) == "helper changed: occlusion"


def test_a_later_stage_depends_on_what_the_earlier_wrote(run):
    before = recipe(run, stage="02_binary")["inputs"]
    again = Stage("01_data", run_dir=run)
    again.save("x.npy", np.save, np.arange(3))
    again.finish()
    assert recipe(run, stage="02_binary")["inputs"] == before
    again.save("x.npy", np.save, np.arange(4))
    again.finish()
    assert recipe(run, stage="02_binary")["inputs"] != before


def test_a_stage_that_is_about_to_run_again_is_forgotten(run):
    manifests.forget("01_data", run)
    assert why(run) == "never finished" and stages.declared(run, "01_data") is None

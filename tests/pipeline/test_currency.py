import json

import numpy as np
import pytest

from cxr_helpers.figures import charts
from cxr_helpers.pipeline import currency, stages
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system import digests

SOURCE = "from cxr_helpers import occlusion\nfrom cxr_helpers.pipeline.stages import Stage"


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
    Run(run_dir).write_manifest("01_data", recipe(tmp_path), tmp_path, seconds=1.0)
    return tmp_path


def recipe(run_dir, *, stage="01_data", parameters=None, fingerprint="f"):
    return currency.recipe(
        stage,
        notebook=run_dir / "01_data.ipynb",
        parameters=parameters or {"epochs": 3, "run_dir": str(run_dir)},
        run_dir=run_dir,
        data_fingerprint=fingerprint,
    )


def why(run_dir, **changes):
    return currency.why_stale("01_data", recipe(run_dir, **changes), run_dir)


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
    assert why(run) == "code of the notebook changed"


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


def test_what_a_notebook_opened_by_hand_does_leaves_the_run_current(run, by_hand):
    stage = Stage("01_data", run_dir=run)
    stage.save("x.npy", np.save, np.arange(99))
    stage.finish()
    assert why(run) is None


def test_the_style_of_the_figures_counts(run, monkeypatch):
    plotting = json.dumps(
        {"cells": [{"cell_type": "code", "source": "import cxr_helpers.figures.charts"}]}
    )
    (run / "01_data.ipynb").write_text(plotting)
    Run(run_dir).write_manifest("01_data", recipe(run), run, seconds=1.0)
    assert why(run) is None
    assert currency.STYLE == charts.STYLE  # which matplotlib is given
    style = run / "report.mplstyle"
    style.write_text(currency.STYLE.read_text() + "lines.linewidth: 9\n")
    monkeypatch.setattr(currency, "STYLE", style)
    assert why(run) == "helper changed: report.mplstyle"


def test_missing_executed_copy(run):
    (run / "notebooks" / "01_data.ipynb").unlink()
    assert why(run) == "executed notebook changed or missing"


def test_changed_version(run, monkeypatch):
    monkeypatch.setattr(
        currency.provenance, "versions", lambda: manifests_versions | {"keras": "0"}
    )
    manifests_versions = json.loads(
        (stages.stage_folder(run, "01_data") / "manifest.json").read_text()
    )["recipe"]["versions"]
    assert why(run).startswith("version changed: keras ")


def test_changed_helper_is_named(run, monkeypatch):
    digest = digests.sha256_of_file
    changed = lambda p: "changed" if p.name == "occlusion.py" else digest(p)  # noqa: E731
    monkeypatch.setattr(digests, "of_file", changed)
    assert why(run) == "helper changed: occlusion"


@pytest.mark.parametrize(
    ("cell", "reason", "behind"),
    [
        ({"cell_type": "markdown", "source": "Other words, with a comma."}, None, True),
        ({"cell_type": "markdown", "source": "A comma", "metadata": {"tags": ["x"]}}, None, True),
        ({"cell_type": "code", "source": "1"}, "code of the notebook changed", True),
    ],
)
def test_changed_markdown_needs_no_kernel(run, cell, reason, behind):
    """Planted: another cell beside the code that ran."""
    cells = [{"cell_type": "code", "source": SOURCE}, cell]
    (run / "01_data.ipynb").write_text(json.dumps({"cells": cells}))
    assert why(run) == reason
    assert currency.markdown_changed("01_data", recipe(run), run) is behind
    Run(run_dir).write_manifest("01_data", recipe(run), run, seconds=1.0)
    assert currency.markdown_changed("01_data", recipe(run), run) is False


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
    currency.forget("01_data", run)
    assert why(run) == "never finished" and stages.declared(run, "01_data") is None

import os
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.pipeline import runs, stages
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import MissingArtifact, Stage
from cxr_helpers.system import files
from cxr_helpers.system.errors import DataError


def finished(run_dir, name="01_data", **facts):
    stage = Stage(name, run_dir=run_dir)
    stage.save("numbers.npy", np.save, np.arange(3))
    stage.finish(facts=facts)
    return stage


def test_later_stage_reads_the_artifacts_of_an_earlier_one(tmp_path):
    finished(tmp_path, images=3)
    later = Stage("02_binary", run_dir=tmp_path)
    assert np.load(later.input("01_data", "numbers.npy")).tolist() == [0, 1, 2]
    assert Run(tmp_path).declared("01_data")["facts"] == {"images": 3}


def test_missing_stage_names_the_notebook_to_run(tmp_path):
    with pytest.raises(MissingArtifact, match=r"run notebooks/01_data\.ipynb first"):
        Stage("02_binary", run_dir=tmp_path)


def test_missing_artifact_is_named(tmp_path):
    finished(tmp_path)
    with pytest.raises(MissingArtifact, match=r"01_data/other\.npy"):
        Stage("02_binary", run_dir=tmp_path).input("01_data", "other.npy")


@pytest.mark.parametrize("switched_off", ["", "1"])
def test_opening_a_stage_makes_operations_deterministic(tmp_path, monkeypatch, switched_off):
    """In every chapter, also where networks are only applied."""
    enabled = []
    experimental = SimpleNamespace(enable_op_determinism=lambda: enabled.append(True))
    tensorflow = SimpleNamespace(config=SimpleNamespace(experimental=experimental))
    monkeypatch.setattr(stages.accelerators, "_imported", lambda: tensorflow)
    monkeypatch.setenv(stages.accelerators.NONDETERMINISTIC, switched_off)
    Stage("01_data", run_dir=tmp_path)
    assert enabled == ([] if switched_off else [True])


def test_undeclared_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not declare"):
        Stage("01_data", run_dir=tmp_path).input("02_binary", "x")


def test_unknown_stage_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'02_binarry' is not one of"):
        Stage("02_binarry", run_dir=tmp_path)


def test_stage_of_another_notebook_is_refused(tmp_path, monkeypatch):
    """A copied notebook in which Stage(...) was not changed would overwrite the other stage."""
    monkeypatch.setenv(stages.RUNNING, "07_explainability")
    with pytest.raises(ValueError, match=r"07_explainability\.ipynb opens Stage\('01_data'\)"):
        Stage("01_data", run_dir=tmp_path)


def test_failed_write_leaves_only_the_old_file(tmp_path):
    stage = finished(tmp_path)

    def breaks(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        stage.save("numbers.npy", breaks)
    assert sorted(p.name for p in stage.folder.iterdir()) == [
        *("declared.json", "kept.txt", "numbers.npy")
    ]
    assert np.load(stage.folder / "numbers.npy").tolist() == [0, 1, 2]


def test_stage_that_starts_again_is_unfinished_until_it_finishes(tmp_path):
    finished(tmp_path)
    again = Stage("01_data", run_dir=tmp_path)
    assert Run(tmp_path).declared("01_data") is None
    again.finish()
    assert Run(tmp_path).declared("01_data")["stage"] == "01_data"


def test_scores_are_written_as_csv(tmp_path):
    stage = Stage("01_data", run_dir=tmp_path)
    stage.finish(scores=pd.DataFrame({"row": ["a"], "value": [0.5]}))
    assert (stage.folder / "scores.csv").read_text() == "row,value\na,0.5\n"
    assert "scores.csv" in Run(tmp_path).declared("01_data")["outputs"]


def test_facts_must_be_json(tmp_path):
    stage = Stage("01_data", run_dir=tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        stage.finish(facts={"x": float("nan")})
    assert Run(tmp_path).declared("01_data") is None


def test_progress_lines_are_marked(tmp_path, capsys):
    Stage("01_data", run_dir=tmp_path).log("epoch 1/2")
    assert capsys.readouterr().out == f"{stages.PROGRESS}epoch 1/2\n"


@pytest.mark.parametrize("force", [False, True])
def test_cached_result_is_computed_again_only_with_force(tmp_path, monkeypatch, force):
    numbers = iter(range(9))

    def count(x):
        return next(numbers)

    options = {"force": force}  # another key for each parameter: the tests share a store
    first = Stage("01_data", run_dir=tmp_path).cached(count, options)
    if force:
        monkeypatch.setenv(stages.RECOMPUTE, "1")
    again = Stage("01_data", run_dir=tmp_path).cached(count, options)
    assert (first, again) == (0, int(force))


def test_artifact_of_an_earlier_run_is_copied_unchanged(tmp_path):
    earlier = Stage("01_data", run_dir=tmp_path / "old")
    earlier.save("x.bin", lambda path: path.write_bytes(b"\x00\x01"))
    earlier.finish()
    stage = Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")
    path = stage.copy_earlier("x.bin")
    assert path == stage.folder / "x.bin" and path.read_bytes() == b"\x00\x01"
    stage.finish()
    outputs = [Run(tmp_path / name).declared("01_data")["outputs"] for name in ("old", "new")]
    assert outputs[0] == outputs[1]


def test_artifact_that_an_earlier_run_does_not_have_is_named(tmp_path):
    """As that of a network that was added since."""
    Stage("01_data", run_dir=tmp_path / "old").finish()
    stage = Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")
    with pytest.raises(DataError, match=r"old has no new\.weights\.h5: make that run again"):
        stage.copy_earlier("new.weights.h5")


def test_left_over_artifacts_of_an_earlier_run_are_not_named(tmp_path):
    """Planted: a file of a configuration with more networks."""
    first = Stage("01_data", run_dir=tmp_path / "first")
    for name in ("border0.weights.h5", "border1.weights.h5", "index.csv"):
        first.save(name, lambda path: path.write_text("x"))
    first.finish()
    (first.folder / "border2.weights.h5").write_text("left over")
    again = Stage("01_data", run_dir=tmp_path / "again", weights_from=tmp_path / "first")
    assert again.earlier_names("border*.h5") == ["border0.weights.h5", "border1.weights.h5"]


@pytest.mark.parametrize("damage", ["x.bin", runs.DECLARED])
def test_damaged_earlier_run_is_refused(tmp_path, damage):
    earlier = Stage("01_data", run_dir=tmp_path / "old")
    earlier.save("x.bin", lambda path: path.write_bytes(b"\x00\x01"))
    earlier.finish()
    (earlier.folder / damage).write_text("edited")
    with pytest.raises(MissingArtifact, match="has no complete 01_data: run it again first"):
        Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")


def test_notebook_opened_by_hand_writes_to_scratch(tmp_path, monkeypatch, capsys):
    finished(tmp_path)
    run = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.delenv(stages.RUNNER)
    stage = finished(tmp_path)
    stage.save("numbers.npy", np.save, np.arange(99))
    stage.finish()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 and printed[0].startswith("Opened by hand: writes to ")
    assert {path: path.read_bytes() for path in run} == run
    assert stage.folder == tmp_path / runs.SCRATCH / "stages" / "01_data"


def test_notebook_opened_by_hand_reads_what_an_earlier_one_wrote_to_scratch(
    tmp_path, monkeypatch, capsys
):
    finished(tmp_path)
    monkeypatch.delenv(stages.RUNNER)
    by_hand = Stage("01_data", run_dir=tmp_path)
    by_hand.save("numbers.npy", np.save, np.arange(99))
    assert len(np.load(Stage("02_binary", run_dir=tmp_path).input("01_data", "numbers.npy"))) == 3
    by_hand.finish()
    capsys.readouterr()
    later = Stage("02_binary", run_dir=tmp_path)
    assert len(np.load(later.input("01_data", "numbers.npy"))) == 99
    assert "reads 01_data from there." in capsys.readouterr().out
    monkeypatch.setenv(stages.RUNNER, str(tmp_path / "store"))  # the runner never reads scratch
    later = Stage("02_binary", run_dir=tmp_path)
    assert len(np.load(later.input("01_data", "numbers.npy"))) == 3


def test_scratch_that_was_made_from_other_inputs_is_not_read(tmp_path, monkeypatch):
    """02 was run by hand on the 01_data of the run, which then changes."""
    first = finished(tmp_path)
    finished(tmp_path, "02_binary")
    monkeypatch.delenv(stages.RUNNER)
    by_hand = Stage("02_binary", run_dir=tmp_path)
    by_hand.save("numbers.npy", np.save, np.arange(99))
    by_hand.finish()

    def read():
        later = Stage("03_categorical", run_dir=tmp_path)
        return len(np.load(later.input("02_binary", "numbers.npy")))

    assert read() == 99
    first.save("numbers.npy", np.save, np.arange(4))
    first.finish()
    with pytest.raises(MissingArtifact, match="02_binary was made from another version of 01_data"):
        read()  # so was the 02_binary of the run
    monkeypatch.setenv(stages.RUNNER, str(tmp_path / "store"))
    finished(tmp_path, "02_binary")
    monkeypatch.delenv(stages.RUNNER)
    assert read() == 3


def test_stages_made_from_different_data_are_not_read_together(tmp_path, monkeypatch, capsys):
    """Otherwise probabilities of the run's images would appear beside the images in scratch."""
    for name in ("01_data", "02_binary", "03_categorical"):
        finished(tmp_path, name)
    monkeypatch.delenv(stages.RUNNER)
    finished(tmp_path)  # run by hand, with the same result
    Stage("07_explainability", run_dir=tmp_path)
    other = Stage("01_data", run_dir=tmp_path)
    other.save("numbers.npy", np.save, np.arange(99))
    other.finish()
    for name in ("02_binary", "03_categorical"):
        reason = (
            rf"{name} was made from another version of 01_data: run notebooks/{name}\.ipynb first, or "
            rf"delete {re.escape(os.path.relpath(tmp_path / 'scratch'))}, which has what was written by hand"
        )
        with pytest.raises(MissingArtifact, match=reason):
            Stage("07_explainability", run_dir=tmp_path)
        finished(tmp_path, name)
    capsys.readouterr()
    Stage("07_explainability", run_dir=tmp_path)
    assert "reads 01_data, 02_binary, 03_categorical from there." in capsys.readouterr().out


def other_version(folder):
    """Finish 01_data as versions before the renaming did: without a format."""
    finished(folder)
    path = Run(folder).stage("01_data") / runs.DECLARED
    content = files.read_json(path)
    del content["format"]
    files.write_json(path, content)


def test_run_of_another_version_is_refused(tmp_path, by_hand):
    """A notebook opened by hand, and one with its weights, in one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(stages.RUNNER, str(tmp_path / "store"))
        other_version(tmp_path / "old")
    message = "01_data of the run old was made by another version of this project: "
    message += "run `run_all.py --run old` again with its options"
    with pytest.raises(MissingArtifact) as error:
        Stage("02_binary", run_dir=tmp_path / "old")
    assert str(error.value) == message
    with pytest.raises(MissingArtifact) as error:
        Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")
    assert str(error.value) == message


def test_scratch_of_another_version_is_not_read(tmp_path, by_hand, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(stages.RUNNER, str(tmp_path / "store"))
        finished(tmp_path)
        other_version(Run(tmp_path).scratch.folder)
    Stage("02_binary", run_dir=tmp_path)
    assert "from there" not in capsys.readouterr().out


def test_open_notebook_refuses_an_input_that_was_run_again(tmp_path, monkeypatch):
    first = finished(tmp_path)
    monkeypatch.delenv(stages.RUNNER)
    later = Stage("02_binary", run_dir=tmp_path)
    later.input("01_data", "numbers.npy")
    first.save("numbers.npy", np.save, np.arange(4))
    first.finish()
    with pytest.raises(MissingArtifact, match="01_data was run again after this notebook began"):
        later.input("01_data", "numbers.npy")


def test_stage_in_progress_names_the_process_that_runs_it(tmp_path, by_hand):
    (tmp_path / runs.OWNER).write_text(f"process {os.getpid()}")
    busy = r"01_data \(process \d+ is running it\): wait until it is finished$"
    with pytest.raises(MissingArtifact, match=busy):
        Stage("02_binary", run_dir=tmp_path)


def test_stage_records_the_cached_results_that_it_uses(tmp_path):
    stage = Stage("01_data", run_dir=tmp_path)
    assert stage.cached(np.full, 3, 1).tolist() == [1, 1, 1]
    path = stage.checkpoint("ab")
    record = stage.folder / runs.KEPT
    assert record.read_text().split() == stage.store.used  # before it finishes: it may be killed
    stage.finish()
    assert path.name == "ab.npz"
    assert set(record.read_text().split()) == set(stage.store.used)
    assert len(stage.store.used) == 2


class FakeModel:
    """Its weights are one number in a file."""

    weights = 0

    def save_weights(self, path):
        path.write_text(str(self.weights))

    def load_weights(self, path):
        self.weights = int(path.read_text())


def fake_fit(model, weights, *, log, checkpoint):
    model.weights = weights
    log("epoch 1/1")
    return pd.DataFrame({"epoch": [1], "loss": [0.1]})


@pytest.mark.parametrize("save_weights", [True, False])
def test_training_is_saved_and_loaded_where_the_models_are_those_of_another_run(
    tmp_path, save_weights
):
    first, model = Stage("01_data", run_dir=tmp_path / "old"), FakeModel()
    options = {"save_weights": save_weights}
    curves = first.train("tiny", fake_fit, model, 7, **options)
    first.finish()
    assert model.weights == 7 and (first.folder / "tiny.weights.h5").exists() == save_weights
    second = Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")
    again = FakeModel()
    pd.testing.assert_frame_equal(second.train("tiny", None, again, **options), curves)
    assert again.weights == (7 if save_weights else 0)
    second.finish()
    assert second.run.outputs_digest("01_data") == first.run.outputs_digest("01_data")

import json

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.pipeline import stages
from cxr_helpers.pipeline.stages import MissingArtifact, Stage
from cxr_helpers.system import files


def finished(run_dir, name="01_data", **facts):
    stage = Stage(name, run_dir=run_dir)
    stage.save("numbers.npy", np.save, np.arange(3))
    stage.finish(facts=facts)
    return stage


def test_later_stage_reads_what_an_earlier_one_wrote(tmp_path):
    finished(tmp_path, images=3)
    later = Stage("02_binary", run_dir=tmp_path)
    assert np.load(later.input("01_data", "numbers.npy")).tolist() == [0, 1, 2]
    assert stages.declared(tmp_path, "01_data")["facts"] == {"images": 3}


def test_missing_stage_says_which_notebook_to_run(tmp_path):
    with pytest.raises(MissingArtifact, match=r"run notebooks/01_data\.ipynb first"):
        Stage("02_binary", run_dir=tmp_path)


def test_by_hand_a_wrong_run_is_told_which_runs_there_are(tmp_path, monkeypatch):
    finished(tmp_path / "phantom-quick")
    monkeypatch.delenv(stages.RUNNER)
    said = r"phantom-standard has no finished 01_data: .*; runs that have it: phantom-quick \("
    with pytest.raises(MissingArtifact, match=said):
        Stage("02_binary", run_dir=tmp_path / "phantom-standard")


def test_missing_artifact_is_named(tmp_path):
    finished(tmp_path)
    with pytest.raises(MissingArtifact, match=r"01_data/other\.npy"):
        Stage("02_binary", run_dir=tmp_path).input("01_data", "other.npy")


def test_undeclared_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not declare"):
        Stage("01_data", run_dir=tmp_path).input("02_binary", "x")


def test_unknown_stage_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'02_binarry' is not one of"):
        Stage("02_binarry", run_dir=tmp_path)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
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


def test_a_stage_that_starts_again_is_unfinished_until_it_finishes(tmp_path):
    finished(tmp_path)
    again = Stage("01_data", run_dir=tmp_path)
    assert stages.declared(tmp_path, "01_data") is None
    again.finish()
    assert stages.declared(tmp_path, "01_data")["stage"] == "01_data"


def test_changed_and_missing_artifacts_are_found(tmp_path):
    stage = finished(tmp_path)
    assert stages.damaged_output(tmp_path, "01_data") is None
    path = stage.folder / "numbers.npy"
    path.write_bytes(path.read_bytes() + b"x")
    assert stages.damaged_output(tmp_path, "01_data") == "numbers.npy"
    path.unlink()
    assert stages.damaged_output(tmp_path, "01_data") == "numbers.npy"


def test_scores_land_as_csv(tmp_path):
    stage = Stage("01_data", run_dir=tmp_path)
    stage.finish(scores=pd.DataFrame({"row": ["a"], "value": [0.5]}))
    assert (stage.folder / "scores.csv").read_text() == "row,value\na,0.5\n"
    assert "scores.csv" in stages.declared(tmp_path, "01_data")["outputs"]


def test_facts_must_be_plain_numbers(tmp_path):
    stage = Stage("01_data", run_dir=tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        stage.finish(facts={"x": float("nan")})
    assert stages.declared(tmp_path, "01_data") is None


def test_progress_lines_are_marked(tmp_path, capsys):
    Stage("01_data", run_dir=tmp_path).say("epoch 1/2")
    assert capsys.readouterr().out == f"{stages.PROGRESS}epoch 1/2\n"


def test_half_written_declaration_counts_as_none(tmp_path):
    stage = finished(tmp_path)
    (stage.folder / stages.DECLARED).write_text('{"stage": ')
    assert stages.declared(tmp_path, "01_data") is None


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"ü": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_upstream_is_transitive():
    assert stages.upstream(["06_tsne"]) == set(stages.STAGES) - {"06_tsne", "07_explainability"}
    assert stages.upstream(["01_data"]) == set()


def test_a_shared_stage_is_whole_and_the_original_safe(tmp_path):
    stage = finished(tmp_path / "one")
    (tmp_path / "one" / "notebooks").mkdir()
    (tmp_path / "one" / "notebooks" / "01_data.ipynb").write_text("{}")
    stages.share("01_data", tmp_path / "one", tmp_path / "two")
    assert stages.declared(tmp_path / "two", "01_data") == stages.declared(
        tmp_path / "one", "01_data"
    )
    assert stages.damaged_output(tmp_path / "two", "01_data") is None
    assert (tmp_path / "two" / "notebooks" / "01_data.ipynb").read_text() == "{}"
    Stage("01_data", run_dir=tmp_path / "two").save("numbers.npy", np.save, np.zeros(9))
    assert stages.damaged_output(tmp_path / "one", "01_data") is None
    assert np.load(stage.folder / "numbers.npy").tolist() == [0, 1, 2]


def test_an_artifact_of_an_earlier_run_is_adopted_as_it_is(tmp_path):
    earlier = Stage("01_data", run_dir=tmp_path / "old")
    wrote = earlier.save("x.bin", lambda path: path.write_bytes(b"\x00\x01"))
    earlier.finish()
    stage = Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")
    path = stage.copy_earlier("x.bin")
    assert path == stage.folder / "x.bin" and path.read_bytes() == wrote.read_bytes()
    stage.finish()
    outputs = [stages.declared(tmp_path / run, "01_data")["outputs"] for run in ("old", "new")]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("damage", ["x.bin", stages.DECLARED])
def test_an_earlier_run_that_is_not_whole_lends_nothing(tmp_path, damage):
    earlier = Stage("01_data", run_dir=tmp_path / "old")
    earlier.save("x.bin", lambda path: path.write_bytes(b"\x00\x01"))
    earlier.finish()
    (earlier.folder / damage).write_text("edited")
    with pytest.raises(MissingArtifact, match="has no whole 01_data"):
        Stage("01_data", run_dir=tmp_path / "new", weights_from=tmp_path / "old")


def test_opened_by_hand_it_writes_beside_the_run(tmp_path, monkeypatch, capsys):
    finished(tmp_path)
    run = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.delenv(stages.RUNNER)
    stage = finished(tmp_path)
    stage.save("numbers.npy", np.save, np.arange(99))
    stage.finish()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith("Opened by hand: writes to ")
    assert {path: path.read_bytes() for path in run} == run
    assert stage.folder == tmp_path / stages.SCRATCH / "stages" / "01_data"


def test_opened_by_hand_a_later_notebook_prefers_what_an_earlier_one_made_there(
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
    assert "01_data from there too" in capsys.readouterr().out
    monkeypatch.setenv(stages.RUNNER, str(tmp_path / "store"))  # the runner never does
    later = Stage("02_binary", run_dir=tmp_path)
    assert len(np.load(later.input("01_data", "numbers.npy"))) == 3


def test_what_was_made_by_hand_from_something_else_is_not_read(tmp_path, monkeypatch):
    """02 was run by hand on the run's 01_data, which then is another."""
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
    with pytest.raises(MissingArtifact, match="02_binary was made from another 01_data"):
        read()  # so was the run's
    monkeypatch.setenv(stages.RUNNER, str(tmp_path / "store"))
    finished(tmp_path, "02_binary")
    monkeypatch.delenv(stages.RUNNER)
    assert read() == 3


def test_stages_that_were_made_from_different_data_are_not_read_together(
    tmp_path, monkeypatch, capsys
):
    """Else probabilities of the run's images would stand beside the images of the scratch."""
    for name in ("01_data", "02_binary", "03_categorical"):
        finished(tmp_path, name)
    monkeypatch.delenv(stages.RUNNER)
    finished(tmp_path)  # played, but with what the run has
    Stage("07_explainability", run_dir=tmp_path)
    other = Stage("01_data", run_dir=tmp_path)
    other.save("numbers.npy", np.save, np.arange(99))
    other.finish()
    for name in ("02_binary", "03_categorical"):
        reason = rf"{name} was made from another 01_data .* run notebooks/{name}\.ipynb first"
        with pytest.raises(MissingArtifact, match=reason):
            Stage("07_explainability", run_dir=tmp_path)
        finished(tmp_path, name)
    capsys.readouterr()
    Stage("07_explainability", run_dir=tmp_path)
    assert "01_data, 02_binary, 03_categorical from there too" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_can_be_opened(tmp_path, by_hand):
    """It did not note what a stage was made from."""
    folder = stages.stage_folder(tmp_path, "01_data")
    folder.mkdir(parents=True)
    files.write_json(folder / stages.DECLARED, {"stage": "01_data", "facts": {}, "outputs": {}})
    assert Stage("02_binary", run_dir=tmp_path).by_hand


def test_an_open_notebook_notices_that_its_input_was_run_again(tmp_path, monkeypatch):
    first = finished(tmp_path)
    monkeypatch.delenv(stages.RUNNER)
    later = Stage("02_binary", run_dir=tmp_path)
    later.input("01_data", "numbers.npy")
    first.save("numbers.npy", np.save, np.arange(4))
    first.finish()
    with pytest.raises(MissingArtifact, match="01_data was run again since this notebook began"):
        later.input("01_data", "numbers.npy")


def test_a_stage_that_is_being_made_names_who_makes_it(tmp_path, by_hand):
    (tmp_path / stages.OWNER).write_text("process 123")
    with pytest.raises(MissingArtifact, match=r"01_data \(process 123 is at it\)"):
        Stage("02_binary", run_dir=tmp_path)


def test_a_stage_records_which_kept_results_it_used(tmp_path):
    stage = Stage("01_data", run_dir=tmp_path)
    assert stage.cached(np.full, 3, 1).tolist() == [1, 1, 1]
    path = stage.checkpoint("ab")
    record = stage.folder / stages.KEPT
    assert record.read_text().split() == stage.store.used  # already, should it be killed now
    stage.finish()
    assert path.name == "ab.npz"
    assert set(record.read_text().split()) == set(stage.store.used)
    assert len(stage.store.used) == 2

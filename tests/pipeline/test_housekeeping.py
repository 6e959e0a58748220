import shutil

import numpy as np
import pytest

from cxr_helpers.pipeline import housekeeping, stages
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system import files


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return a folder with a run, one of its seeds and its scratch, each with a cached result."""
    store = tmp_path / stages.STORE
    monkeypatch.setenv(stages.RUNNER, str(store))
    for number, place in enumerate(("run", "run/seeds/1", "run/scratch")):
        stage = Stage("01_data", run_dir=tmp_path / place)
        stage.cached(np.full, 3, number)
        decoded = tmp_path / ".cache" / "decoded" / f"entry{number}"
        decoded.mkdir(parents=True)
        (decoded / "pixels.npy").write_bytes(bytes(100))
        stage.save("dataset.json", files.write_json, {"decoded": decoded.name})
        stage.finish()
    (store / f"{'0' * 64}.npz").write_bytes(bytes(1000))
    orphan = tmp_path / ".cache" / "decoded" / "orphan"
    orphan.mkdir()
    (orphan / "pixels.npy").write_bytes(bytes(10))
    return tmp_path


def test_results_that_no_run_refers_to_are_removed(build):
    assert list(housekeeping.clean(build).values()) == [1000, 10]
    assert len(list((build / stages.STORE).iterdir())) == 3
    assert len(list((build / ".cache" / "decoded").iterdir())) == 3
    assert list(housekeeping.clean(build).values()) == [0, 0]


def test_dry_run_removes_nothing(build):
    assert list(housekeeping.clean(build, dry_run=True).values()) == [1000, 10]
    assert list(housekeeping.clean(build).values()) == [1000, 10]


def test_results_of_a_deleted_run_are_removed(build):
    shutil.rmtree(build / "run" / "stages")
    freed = list(housekeeping.clean(build).values())
    assert freed[0] > 1000 and len(list((build / stages.STORE).iterdir())) == 2


def test_interrupted_training_stays(build):
    """Its stage requested it and was killed before it could declare anything."""
    stage = Stage("01_data", run_dir=build / "run")
    stage.checkpoint("1" * 64).write_bytes(bytes(100))
    housekeeping.clean(build)
    assert stage.checkpoint("1" * 64).is_file()
    stage.finish()
    assert sum(housekeeping.clean(build).values()) > 0  # what it no longer uses
    assert stage.checkpoint("1" * 64).is_file()


def test_file_that_another_process_is_writing_stays(build):
    (build / stages.STORE / f"{files.PARTIAL}1-x.npz").write_bytes(b"half")
    (build / stages.STORE / f"{files.PARTIAL}999999999-x.npz").write_bytes(b"left")
    housekeeping.clean(build)
    left = [p.name for p in (build / stages.STORE).glob(f"{files.PARTIAL}*")]
    assert left == [f"{files.PARTIAL}1-x.npz"]


def test_decoded_images_stay_where_runs_do_not_know_theirs(build, monkeypatch):
    """On Windows, where images are in memory."""
    monkeypatch.setattr(housekeeping.portable, "WINDOWS", True)
    assert build / ".cache" / "decoded" not in housekeeping.clean(build)
    assert (build / ".cache" / "decoded" / "orphan").is_dir()


def test_decoded_images_stay_while_a_run_is_in_progress(build):
    """Until it declares them, nothing says which ones it uses."""
    with Run(build / "run").locked():
        assert len(list(housekeeping.in_progress(build))) == 1
        assert list(housekeeping.clean(build)) == [build / stages.STORE]
    assert (build / ".cache" / "decoded" / "orphan").is_dir()
    assert list(housekeeping.clean(build).values()) == [0, 10]


def test_empty_folder_stays_empty(tmp_path):
    assert set(housekeeping.clean(tmp_path).values()) == {0}
    assert list(tmp_path.iterdir()) == []

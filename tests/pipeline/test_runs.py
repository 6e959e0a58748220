import os
import subprocess
import sys

import numpy as np
import pytest
from machine import ROOT

from cxr_helpers.pipeline import runs
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system.errors import Refused


def finish(folder, **facts):
    """Finish the first stage of a run with one artifact; return the run."""
    stage = Stage("01_data", run_dir=folder)
    stage.save("numbers.npy", np.save, np.arange(3))
    stage.finish(facts=facts)
    return Run(folder)


# --- what a stage declared ---


def test_changed_and_missing_artifacts_are_found(tmp_path):
    run = finish(tmp_path)
    assert run.damaged_output("01_data") is None
    path = run.stage("01_data") / "numbers.npy"
    path.write_bytes(path.read_bytes() + b"x")
    assert run.damaged_output("01_data") == "numbers.npy"
    path.unlink()
    assert run.damaged_output("01_data") == "numbers.npy"


def test_incomplete_declaration_is_none(tmp_path):
    run = finish(tmp_path)
    (run.stage("01_data") / runs.DECLARED).write_text('{"stage": ')
    assert run.declared("01_data") is None and run.outputs_digest("01_data") is None


@pytest.mark.parametrize("name", [None, runs.DECLARED, runs.MANIFEST, "numbers.npy"])
def test_stage_is_complete_with_manifest_declaration_and_artifacts(tmp_path, name):
    run = finish(tmp_path)
    assert not run.is_complete("01_data")  # without a manifest
    run.write_manifest("01_data", {}, seconds=0.0)
    if name:
        (run.stage("01_data") / name).write_text("edited")
    assert run.is_complete("01_data") is (name is None)


def test_parameters_of_a_run_are_those_that_are_known(tmp_path):
    run = finish(tmp_path)
    run.write_manifest("01_data", {"parameters": {"seed": 3, "old": 1}}, seconds=0.0)
    assert run.parameters({"01_data": ["seed", "new"]}) == {"01_data": {"seed": 3}}


def test_shared_stage_is_complete_and_the_original_unchanged(tmp_path):
    one, two = finish(tmp_path / "one"), Run(tmp_path / "two")
    one.executed("01_data").parent.mkdir()
    one.executed("01_data").write_text("{}")
    one.share("01_data", two)
    assert two.declared("01_data") == one.declared("01_data")
    assert two.damaged_output("01_data") is None
    assert two.executed("01_data").read_text() == "{}"
    Stage("01_data", run_dir=two.folder).save("numbers.npy", np.save, np.zeros(9))
    assert one.damaged_output("01_data") is None
    assert np.load(one.stage("01_data") / "numbers.npy").tolist() == [0, 1, 2]


def test_stage_is_shared_where_hard_links_are_not_possible(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError

    monkeypatch.setattr(os, "link", fail)
    one, two = finish(tmp_path / "one"), Run(tmp_path / "two")
    one.share("01_data", two)
    assert two.declared("01_data") and two.damaged_output("01_data") is None


def test_earlier_report_is_moved_to_previous(tmp_path):
    (tmp_path / "report.html").write_text("old")
    Run(tmp_path).retire_report()
    Run(tmp_path).retire_report()
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "previous" / "report.html").read_text() == "old"


# --- the lock ---

HOLDER = """
import sys, time; from pathlib import Path; from cxr_helpers.pipeline.runs import Run
with Run(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(1000)
"""


def test_lock_names_its_holder_and_ends_with_it(tmp_path):
    """[PRC-04]"""
    run = Run(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        assert run.owner == f"process {holder.pid}"
        with pytest.raises(Refused, match=f"in use by process {holder.pid}:") as error:
            with run.locked():
                pass
        assert error.value.code == 5
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / runs.OWNER).exists() and run.owner is None  # a kill leaves the file
    with run.locked():
        assert run.owner == f"process {os.getpid()}"
    assert not tmp_path.exists()  # no stage has begun


def test_folder_in_which_a_stage_has_begun_stays(tmp_path):
    with Run(tmp_path).locked():
        (tmp_path / "stages").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "stages"]


def test_lock_removes_leftovers_before_and_after(tmp_path):
    (tmp_path / "stages").mkdir()
    for name in (".partial-999999999-x", ".partial-999999999-y"):
        (tmp_path / name).write_text("")
        with Run(tmp_path).locked():
            assert not (tmp_path / name).exists()
            (tmp_path / ".partial-999999999-z").write_text("")
        assert not list(tmp_path.glob(".partial-*"))


def test_second_writer_of_stages_waits_or_is_refused(tmp_path):
    """[PRC-04] A task that still runs somewhere, while the run itself is not locked."""
    run = Run(tmp_path)
    with run.writing():
        assert run.owner is None
        with pytest.raises(Refused, match=f"in use by process {os.getpid()}: wait") as error:
            with run.writing(wait=0.2):
                pass
        run.await_writer(wait=0.2)
        with run.locked():
            pass
    assert error.value.code == 5
    with run.writing(wait=0.2):
        pass


def test_writer_of_a_folder_without_one_is_not_awaited(tmp_path):
    Run(tmp_path / "new").await_writer(wait=60)
    assert not (tmp_path / "new").exists()


# --- the images ---


@pytest.mark.parametrize(
    ("location", "fingerprint", "is_other"),
    [
        ("/a/images", "f", False),
        ("/a/images", "g", False),  # the same folder, in which images have changed
        ("/b/images", "f", False),  # a copy of them
        ("/b/images", "g", True),
    ],
)
def test_other_source_needs_another_place_and_fingerprint(
    tmp_path, location, fingerprint, is_other
):
    run = Run(tmp_path)
    assert run.other_source("/a/images", "f") is None
    run.record_source("/a/images", "f")
    found = run.other_source(location, fingerprint)
    assert found == ("/a/images" if is_other else None)


def test_run_records_its_source(finished):
    assert Run(finished.run_dir).source() == ("phantom", "phantom")

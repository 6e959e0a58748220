"""OUT-01, OUT-02, PRC-04: what a run needs is looked at before anything runs."""

import importlib.util
import os
import subprocess
import sys

import pytest
from machine import ROOT, small_disk

from cxr_helpers.pipeline import preflight
from cxr_helpers.system.errors import Refused

ENOUGH = {"n_images": 10, "image_size": 32, "pdf": True}


def test_a_folder_that_can_be_used_is_made_and_left_empty(tmp_path):
    assert preflight.check(tmp_path / "new" / "run", **ENOUGH) == []
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", 1_000_000) as disk, pytest.raises(Refused) as error:
        preflight.check(disk / "run", **ENOUGH)
    assert error.value.code == 6
    assert "MiB of disk are free and about 150 are needed" in str(error.value)


def test_a_full_disk_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", 65536) as disk:
        (disk / "run").mkdir()
        with pytest.raises(OSError, match="No space left"):
            (disk / "large").write_bytes(bytes(200_000))
        with pytest.raises(Refused) as error:
            preflight.check(disk / "run", **ENOUGH)
    assert error.value.code == 6


def test_the_images_count_for_the_disk_that_is_needed(tmp_path):
    with pytest.raises(Refused, match="smaller image_size"):
        preflight.check(tmp_path, n_images=10**9, image_size=512, pdf=True)


@pytest.mark.parametrize("package", ["typst", "keras", "pypandoc"])
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, package):
    """Without typst there is no PDF; without the others no report, so nothing may run."""
    monkeypatch.setitem(sys.modules, package, None)
    assert importlib.util.find_spec(package) is None
    if package == "typst":
        (line,) = preflight.check(tmp_path, **ENOUGH)
        assert "pip install typst" in line
        assert preflight.check(tmp_path, **ENOUGH | {"pdf": False}) == []
    else:
        with pytest.raises(Refused, match=f"not installed: {package}; `uv sync`") as error:
            preflight.check(tmp_path, **ENOUGH)
        assert error.value.code == 6


HOLDER = """
import sys, time; from pathlib import Path; from cxr_helpers import preflight
with preflight.sole_use(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(1000)
"""


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(Refused, match=f"in use by process {holder.pid}:") as error:
            with preflight.sole_use(tmp_path):
                pass
        assert error.value.code == 5
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / ".owner").exists()  # a kill leaves it; it is the lock that counts
    with preflight.sole_use(tmp_path):
        assert (tmp_path / ".owner").read_text() == f"process {os.getpid()}"
    assert not tmp_path.exists()  # no stage has begun


def test_a_folder_in_which_a_stage_has_begun_stays(tmp_path):
    with preflight.sole_use(tmp_path):
        (tmp_path / "stages").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "stages"]


def test_leftovers_are_swept_before_and_after(tmp_path):
    (tmp_path / "stages").mkdir()
    for name in (".partial-999999999-x", ".partial-999999999-y"):
        (tmp_path / name).write_text("")
        with preflight.sole_use(tmp_path):
            assert not (tmp_path / name).exists()
            (tmp_path / ".partial-999999999-z").write_text("")
        assert not list(tmp_path.glob(".partial-*"))

"""A full disk, a kill and an exception leave the old file unchanged (OUT-02, OUT-03)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from cxr_helpers.system import errors, files, processes

ROOT = Path(files.__file__).parents[2]


def run(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, **options)


def test_exception_leaves_only_the_old_file(tmp_path):
    path = files.write_text(tmp_path / "x.txt", "old")
    with pytest.raises(RuntimeError), files.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_is_written_atomically_and_refuses_nan(tmp_path):
    path = files.write_json(tmp_path / "x.json", {"ü": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": 1}
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"x": float("nan")})
    assert files.read_json(path) == {"ü": 1} and list(tmp_path.iterdir()) == [path]


def test_damaged_or_missing_json_reads_as_none(tmp_path):
    (tmp_path / "x.json").write_text('{"half": ')
    assert files.read_json(tmp_path / "x.json") is None
    for content in (b"\xff\xfe{}", b"[1]", b"", b"null"):
        (tmp_path / "x.json").write_bytes(content)
        assert files.read_json(tmp_path / "x.json") is None
    assert files.read_json(tmp_path / "none.json") is None


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on file sizes here")
def test_file_size_limit_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))
    code = (
        "import resource, sys; import numpy as np; from pathlib import Path\n"
        "from cxr_helpers.system import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "with files.replacing(Path(sys.argv[1])) as partial: np.save(partial, np.zeros(10_000))"
    )
    child = run(code, path, stderr=subprocess.PIPE)
    assert "OSError" in child.communicate(timeout=60)[1].decode() and child.returncode
    assert np.load(path).tolist() == [0, 1, 2] and list(tmp_path.iterdir()) == [path]


def with_numpy(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(100_000))


def with_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(100_000)


# NumPy drops the errno of the error, and so does HDF5 where it closes a file.
WRITERS = (lambda path: path.write_bytes(bytes(200_000)), with_numpy, with_hdf5)


def test_full_disk_leaves_the_old_file_and_is_classified(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        path = files.write_text(tmp_path / "x.txt", "old")
        for write in WRITERS:
            with pytest.raises(OSError) as error, files.replacing(path) as partial:
                write(partial)
            assert errors.classify(error.value).message.endswith(": free some disk")
            assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_kills_at_random_moments_leave_a_complete_file(tmp_path):
    """A process that rewrites a file over and over is killed; the file is always complete."""
    code = (
        "import sys; from pathlib import Path; from cxr_helpers.system import files\n"
        "path, n = Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    n += 1; files.write_bytes(path, bytes([n % 256]) * 2_000_000)"
    )
    path = tmp_path / "x.bin"
    draw, left = np.random.default_rng(0), 0
    for _ in range(6):
        path.unlink(missing_ok=True)
        child = run(code, path)
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.05))
        child.kill()
        child.wait()
        content = path.read_bytes()
        assert len(content) == 2_000_000 and len(set(content)) == 1
        left += len(files.remove_leftovers(tmp_path))
        assert list(tmp_path.iterdir()) == [path]
    assert left  # at least one kill came in the middle of a write


def test_leftovers_of_a_zombie_are_removed(tmp_path):
    """A killed kernel stays a zombie until its parent waits for it."""
    writer = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    left = tmp_path / f"{files.PARTIAL}{writer.pid}-x"
    left.write_text("half")
    assert files.remove_leftovers(tmp_path) == []
    writer.kill()
    while psutil.Process(writer.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert files.remove_leftovers(tmp_path) == [left]
    writer.communicate()


def test_leftovers_of_a_running_process_stay(tmp_path):
    mine = tmp_path / f"{files.PARTIAL}{os.getppid()}-x"
    dead = tmp_path / "deep" / f"{files.PARTIAL}999999999-y"
    for folder in (mine, dead):
        folder.mkdir(parents=True)
        (folder / "z").write_text("")
    assert files.remove_leftovers(tmp_path) == [dead]
    assert mine.is_dir() and not dead.exists()


def test_partial_file_names_its_process_and_machine(tmp_path):
    with files.replacing(tmp_path / "x.txt") as partial:
        assert partial.name == f".partial-{processes.own()}-x.txt"
        partial.write_text("")


@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_leftovers_of_another_machine_stay_for_a_day(tmp_path, hours, stays):
    """This process has the number of the other machine's."""
    left = tmp_path / f"{files.PARTIAL}{os.getpid()}@elsewhere-x"
    left.write_text("half")
    os.utime(left, (time.time() - hours * 3600,) * 2)
    assert files.remove_leftovers(tmp_path) == ([] if stays else [left])
    assert left.exists() is stays


def test_name_that_is_no_utf_8_can_be_written():
    assert files.as_utf8(os.fsdecode(b"images/b\xfc.png")) == "images/b?.png"
    assert files.as_utf8("b\u00fc.png") == "b\u00fc.png"

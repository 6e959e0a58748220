import hashlib
import os
import subprocess
import sys
import time

import pytest

from cxr_helpers.system import digests

OLD = time.time_ns() - 60 * 10**9


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch):
    monkeypatch.setattr(digests, "_cache", {})
    monkeypatch.setattr(digests, "_new", set())
    monkeypatch.setattr(digests, "SETTLED", -1.0)  # a status change cannot be dated back


def write(path, content, *, modified=OLD):
    path.write_bytes(content)
    os.utime(path, ns=(modified, modified))
    return path


def reads(monkeypatch):
    """Count the files whose content is read."""
    seen, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, n: seen.append(f.name) or digest(f, n))
    return seen


def test_digest_is_the_sha256_of_the_content(tmp_path):
    # printf 'abc' | sha256sum
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digests.sha256_of_file(write(tmp_path / "x", b"abc")) == expected


def test_unchanged_file_is_read_once(tmp_path, monkeypatch):
    path, seen = write(tmp_path / "x", b"abc"), reads(monkeypatch)
    assert digests.sha256_of_file(path) == digests.sha256_of_file(path) and len(seen) == 1


@pytest.mark.parametrize("modified", [OLD, OLD + 1], ids=["same time", "later"])
def test_rewritten_file_is_read_again(tmp_path, modified):
    """Also with the old size and modification time, as after ``cp --preserve``."""
    path = write(tmp_path / "x", b"abc")
    first = digests.sha256_of_file(path)
    time.sleep(0.05)  # the resolution of the time of status change
    write(path, b"abd", modified=modified)
    assert digests.sha256_of_file(path) == hashlib.sha256(b"abd").hexdigest() != first


def test_digest_of_a_file_written_just_now_is_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 60.0)
    path, seen = write(tmp_path / "x", b"abc"), reads(monkeypatch)
    assert digests.sha256_of_file(path) == digests.sha256_of_file(path) and len(seen) == 2


def test_cache_file_is_read_by_another_process(tmp_path, monkeypatch):
    path = write(tmp_path / "x", b"abc")
    with digests.cached(tmp_path / "cache"):
        first = digests.sha256_of_file(path)
    monkeypatch.setattr(digests, "_cache", {})
    seen = reads(monkeypatch)
    with digests.cached(tmp_path / "cache"):
        assert digests.sha256_of_file(path) == first and seen == []


def test_two_processes_keep_each_others_entries(tmp_path, monkeypatch):
    one, two = (write(tmp_path / name, b"abc") for name in "xy")
    code = (
        "import sys; from pathlib import Path; from cxr_helpers.system import digests; "
        "digests.SETTLED = -1.0\n"
        "with digests.cached(Path(sys.argv[1])): digests.sha256_of_file(Path(sys.argv[2]))"
    )
    with digests.cached(tmp_path / "cache"):
        digests.sha256_of_file(one)
        command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(two)]
        subprocess.run(command, check=True, cwd=digests.Path(digests.__file__).parents[2])
    monkeypatch.setattr(digests, "_cache", {})
    seen = reads(monkeypatch)
    with digests.cached(tmp_path / "cache"):
        digests.sha256_of_file(one), digests.sha256_of_file(two)
    assert seen == []


def test_write_false_writes_nothing(tmp_path):
    with digests.cached(tmp_path / "cache", write=False):
        digests.sha256_of_file(write(tmp_path / "x", b"abc"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"x": 3}', '{"x": [1, 2]}', "\x00"])
def test_damaged_cache_file_is_ignored(tmp_path, content):
    (tmp_path / digests.FILE).write_text(content)
    path = write(tmp_path / "x", b"abc")
    with digests.cached(tmp_path):
        assert digests.sha256_of_file(path) == hashlib.sha256(b"abc").hexdigest()


def test_digest_of_json_ignores_the_order_of_keys():
    assert (
        digests.sha256_of_json({"a": 1, "b": [2]})
        == digests.sha256_of_json({"b": [2], "a": 1})
        != digests.sha256_of_json({})
    )


def test_exception_leaves_no_cache_file(tmp_path):
    with pytest.raises(ValueError), digests.cached(tmp_path / "cache"):
        digests.sha256_of_file(write(tmp_path / "x", b"abc"))
        raise ValueError
    assert not (tmp_path / "cache").exists()


def test_cache_folder_that_cannot_be_made_raises_nothing(tmp_path):
    (tmp_path / "build").write_text("a file")
    with digests.cached(tmp_path / "build" / "cache"):
        digests.sha256_of_file(write(tmp_path / "x", b"abc"))
    assert (tmp_path / "build").read_text() == "a file"

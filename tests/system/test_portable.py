"""Files and names on Windows, as far as they can be imitated here (see ``windows``)."""

import gc
import ntpath
import os
import threading
import time

import numpy as np
import pytest

from cxr_helpers.system import errors, files, portable


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6))
    return path


# --- the double itself ---


def test_double_locks_what_is_open_or_mapped(windows, array):
    mapped = np.load(array, mmap_mode="r")
    (array.parent / "b").write_text("")
    with pytest.raises(PermissionError):
        os.replace(array.parent / "b", array)
    with pytest.raises(PermissionError):
        array.unlink()
    with pytest.raises(PermissionError):
        os.rename(array.parent, array.parent.with_name("other"))
    del mapped
    gc.collect()
    os.replace(array.parent / "b", array)
    with open(array, "rb"), pytest.raises(PermissionError):
        os.remove(array)


# --- arrays ---


def test_array_is_mapped_read_only(array):
    loaded = portable.load_array(array)
    assert isinstance(loaded, np.memmap) and not loaded.flags.writeable
    assert loaded.tolist() == [0, 1, 2, 3, 4, 5]


def test_array_on_windows_can_be_replaced_while_it_is_in_use(windows, array):
    loaded = portable.load_array(array)
    with files.replacing(array) as partial:
        np.save(partial, np.zeros(2))
    assert loaded.tolist() == [0, 1, 2, 3, 4, 5] and not loaded.flags.writeable
    assert portable.load_array(array).tolist() == [0, 0]


# --- files that are open ---


def test_file_that_a_scanner_has_open_for_a_moment_is_replaced(windows, array):
    scanner = open(array, "rb")
    threading.Timer(0.1, scanner.close).start()
    files.write_bytes(array, b"new")
    assert array.read_bytes() == b"new"


def test_file_that_stays_open_is_named_with_what_to_do(windows, array):
    with open(array, "rb"), pytest.raises(PermissionError) as raised:
        files.write_bytes(array, b"new")
    fault = errors.classify(raised.value)
    assert fault.code == errors.MACHINE and str(array) in fault.message
    assert "close the program that has it open (a notebook, a spreadsheet" in fault.message
    assert [path.name for path in array.parent.iterdir()] == ["a.npy"]


def test_denied_permission_elsewhere_is_not_waited_for(monkeypatch, array):
    def denied(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", denied)
    start = time.monotonic()
    with pytest.raises(PermissionError):
        files.write_bytes(array, b"new")
    assert time.monotonic() - start < 1


def test_temporary_folder_with_an_open_file_hides_no_error(windows, tmp_path):
    with pytest.raises(KeyError), files.temporary_folder(tmp_path) as work:
        (work / "x").write_text("")
        left = open(work / "x", encoding="utf-8")
        raise KeyError
    assert files.remove_leftovers(tmp_path) and list(tmp_path.iterdir()) != []
    left.close()
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- folders ---


@pytest.mark.parametrize("here", ["windows", "posix"])
def test_folder_of_a_faster_process_stays(request, tmp_path, here):
    if here == "windows":
        request.getfixturevalue("windows")
    for name in ("slow", "fast"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    portable.publish_folder(tmp_path / "slow", tmp_path / "fast")
    assert (tmp_path / "fast" / "x").read_text() == "fast"
    portable.publish_folder(tmp_path / "slow", tmp_path / "new")
    assert (tmp_path / "new" / "x").read_text() == "slow"


@pytest.mark.usefixtures("windows")
def test_folder_that_cannot_be_renamed_is_an_error(tmp_path):
    """It was suppressed: what came next missed the folder."""
    (tmp_path / "a").mkdir()
    with open(tmp_path / "a" / "x", "w", encoding="utf-8"), pytest.raises(PermissionError):
        portable.publish_folder(tmp_path / "a", tmp_path / "b")


# --- names ---

NAMES = {
    "person1_bacteria_1.jpeg": False,
    "IM-0001.jpeg": False,
    "console.png": False,
    "com10": False,
    "CON": True,
    "con.jpeg": True,
    "Aux .tar.gz": True,
    "nul.": True,
    "lpt1.png": True,
    "COM¹": True,
    "a:b": True,
    "what?.png": True,
    "new\nline.png": True,
    "dot.": True,
    "space ": True,
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_names_that_windows_cannot_store(name, expected):
    assert portable.is_reserved(name) == expected


@pytest.mark.skipif(not hasattr(ntpath, "isreserved"), reason="new in Python 3.13")
@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"a:b"}))  # which Python takes for a drive
def test_reserved_names_are_those_of_python(name):
    assert portable.is_reserved(name) == ntpath.isreserved(name)

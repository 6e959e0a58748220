import os

import numpy as np
import pytest
from machine import resident_of_files

from cxr_helpers.system import array_files

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 5, 4), dtype=np.uint8)


@pytest.mark.parametrize("array", [IMAGES, IMAGES > 99, IMAGES[:, ::-1], IMAGES[:, :0], IMAGES[:0]])
@pytest.mark.parametrize("at_once", [1, 50, 10**9])
def test_rows_are_written_byte_for_byte_as_numpy_does(tmp_path, monkeypatch, array, at_once):
    monkeypatch.setattr(array_files, "PART", at_once)
    rows = np.random.default_rng(1).permutation(len(array))[:7]
    array_files.save_rows(tmp_path / "a.npy", array, rows)
    np.save(tmp_path / "b.npy", array[rows])
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_rows_of_a_mapped_array_are_written(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    array_files.save_rows(tmp_path / "b.npy", mapped, np.array([8, 0, 8]))
    assert np.array_equal(np.load(tmp_path / "b.npy"), IMAGES[[8, 0, 8]])


def test_no_more_than_a_part_is_copied(monkeypatch):
    monkeypatch.setattr(array_files, "PART", 40)
    assert array_files.part(IMAGES) == 2  # of 20 bytes each
    assert array_files.part(IMAGES.astype(float)) == 1


@pytest.mark.parametrize("in_memory", [IMAGES.nbytes, IMAGES.nbytes - 1])
def test_gathered_blocks_are_one_array_and_leave_no_file(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(array_files, "IN_MEMORY", in_memory)
    blocks = (IMAGES[:4, ::-1], IMAGES[4:4], IMAGES[4:])
    found = array_files.gathered(blocks, IMAGES.shape, np.uint8, folder=tmp_path / "new")
    assert np.array_equal(found, np.concatenate(blocks)) and found.dtype == np.uint8
    assert isinstance(found, np.memmap) == (in_memory < IMAGES.nbytes)
    assert list(tmp_path.glob("*/*")) == []
    array_files.release(found)
    assert np.array_equal(found, np.concatenate(blocks))


@pytest.mark.parametrize("n", [0, 1, 9, 12])
def test_appended_rows_are_what_numpy_writes(tmp_path, n):
    with array_files.appending(tmp_path / "a.npy", (12, 5, 4), np.uint8) as append:
        for row in np.resize(IMAGES, (n, 5, 4)):
            append(row)
    np.save(tmp_path / "b.npy", np.resize(IMAGES, (n, 5, 4)))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_appended_rows_get_the_type_of_the_array(tmp_path):
    with array_files.appending(tmp_path / "a.npy", (2, 3), bool) as append:
        append(np.array([0, 1, 2]))
    assert np.load(tmp_path / "a.npy").tolist() == [[False, True, True]]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="POSIX only")
def test_full_disk_is_an_error_before_anything_is_written(tmp_path):
    with (
        pytest.raises(OSError, match=r"space|large"),
        array_files.appending(tmp_path / "a.npy", (2**30, 2**30), np.uint8),
    ):
        raise AssertionError("the disk holds 2**60 bytes")


def test_parts_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr(array_files, "PART", 40)
    seen = np.concatenate([np.arange(len(IMAGES))[part] for part in array_files.parts(IMAGES)])
    assert seen.tolist() == list(range(9))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_released_array_keeps_its_values(tmp_path, mode):
    np.save(tmp_path / "a.npy", IMAGES)
    array = np.load(tmp_path / "a.npy", mmap_mode=mode)
    expected = IMAGES.copy()
    if mode != "r":
        array[0] = expected[0] = 7
    array_files.release(array[2:])
    array_files.release(IMAGES)  # in memory: nothing to release
    assert np.array_equal(array, expected)


def test_released_array_takes_no_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((64, 2**20), np.uint8))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    before = resident_of_files()
    assert array.sum(dtype=int) == 2**26 and resident_of_files() - before > 2**25
    array_files.release(array)
    assert resident_of_files() - before < 2**24

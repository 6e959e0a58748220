"""Arrays in ``.npy`` files, written and read a part at a time: as many images as the disk holds.

Mapped files count as memory of a process as long as they are not needed elsewhere. What reads a whole
file once therefore calls ``release`` in between.
"""

from __future__ import annotations

import lzma
import mmap
import os
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

DAMAGED = (  # raised for a damaged .npz file, or one that lacks an array
    *(OSError, ValueError, KeyError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
PART = 2**24  # bytes that are copied at a time
IN_MEMORY = 2**30  # bytes of an array that is gathered in memory, not in a file


@contextmanager
def appending(
    path: Path, shape: tuple[int, ...], dtype: type
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write an array row by row; its disk space is allocated first.

    Parameters
    ----------
    path : Path
        Holds the rows that were appended, as ``numpy.save`` writes them, when the context ends.
    shape : tuple of int
        With the highest number of rows.
    dtype : type

    Yields
    ------
    callable
        Takes the next row, of shape ``shape[1:]``.

    Raises
    ------
    OSError
        If the disk is full.
    """
    n, size = 0, int(np.prod(shape)) * np.dtype(dtype).itemsize

    with open(path, "wb") as file:
        _write_header(file, shape, dtype)
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), file.tell(), size)

        def append(row: np.ndarray) -> None:
            nonlocal n
            file.write(np.ascontiguousarray(row, dtype).data)
            n += 1

        yield append
        file.truncate(file.tell())
        file.seek(0)
        _write_header(file, (n, *shape[1:]), dtype)  # as long as the first: NumPy leaves room


def save_rows(path: Path, array: np.ndarray, rows: np.ndarray) -> None:
    """Write rows of an array as ``numpy.save(path, array[rows])`` does, without a copy of them all.

    Parameters
    ----------
    path : Path
    array : ndarray, shape (n, ...)
        May be memory-mapped.
    rows : ndarray of int, shape (m,)
        Positions, in the order in which they are written.
    """
    rows, step = np.asarray(rows), part(array)
    with open(path, "wb") as file:
        _write_header(file, (len(rows), *array.shape[1:]), array.dtype)
        for start in range(0, len(rows), step):
            file.write(np.ascontiguousarray(array[rows[start : start + step]]).data)
            release(array)


def gathered(
    blocks: Iterable[np.ndarray], shape: tuple[int, ...], dtype: type, *, folder: Path
) -> np.ndarray:
    """Return blocks of rows as one array.

    Parameters
    ----------
    blocks : iterable of ndarray, shape (m, ...)
        The rows in their order.
    shape : tuple of int
    dtype : type
    folder : Path
        Of the temporary file that holds more than ``IN_MEMORY`` bytes, memory-mapped for reading. It
        ends with the array.

    Raises
    ------
    OSError
        If the disk is full.
    """
    if int(np.prod(shape)) * np.dtype(dtype).itemsize <= IN_MEMORY:
        return np.concatenate([np.empty((0, *shape[1:]), dtype), *blocks])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)
        file.flush()
        return np.memmap(file, dtype, "r", shape=shape)


def parts(array: np.ndarray) -> Iterator[slice]:
    """Yield the slices of an array's rows that take ``PART`` bytes; release each one after its use."""
    step = part(array)
    for start in range(0, len(array), step):
        yield slice(start, start + step)
        release(array)


def part(array: np.ndarray) -> int:
    """Return how many rows of an array take ``PART`` bytes, at least 1."""
    return max(1, PART * len(array) // max(1, array.nbytes))


def release(array: np.ndarray) -> None:
    """Give back the memory that a mapped file takes; it is read again where it is needed."""
    mapped = getattr(array, "_mmap", None)
    # only of a file mapped for reading: nothing written can get lost
    if mapped is not None and array.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: type) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)

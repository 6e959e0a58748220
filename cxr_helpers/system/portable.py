"""Files and names on Windows, where open files are locked and some names are reserved.

There, a file that a program has open cannot be replaced or removed, a folder with such a file cannot
be renamed, and a file counts as open as long as an array is mapped to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WINDOWS = os.name == "nt"
PATIENCE = 3.0  # seconds: virus scanners and indexers open new files for a moment
_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹²³"
}


def replace(source: Path, target: Path) -> None:
    """Rename a file, in place of another one if there is one.

    Raises
    ------
    OSError
        As ``os.replace``; on Windows ``PermissionError``, if one of them is still open after
        ``PATIENCE`` seconds.
    """
    _patiently(os.replace, source, target)


def publish_folder(source: Path, target: Path) -> None:
    """Give a complete folder its final name; if another process was faster, its folder stays.

    Raises
    ------
    OSError
        If there is no such folder afterwards.
    """
    try:
        _patiently(os.rename, source, target)
    except OSError:
        if not target.is_dir():
            raise


def _patiently(rename: Callable, source: Path, target: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            rename(source, target)
            return
        except PermissionError:
            if not WINDOWS or target.is_dir() or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def load_array(path: Path) -> np.ndarray:
    """Return the array of an ``.npy`` file: memory-mapped and read-only.

    On Windows it is read into memory, because the file could not be replaced while it is mapped:
    not even by the notebook that wrote it, run again in the same kernel.
    """
    array = np.load(path, mmap_mode=None if WINDOWS else "r", allow_pickle=False)
    array.flags.writeable = False
    return array


def is_reserved(name: str) -> bool:
    """Return whether Windows reserves a file name, whatever its suffix, or cannot store it.

    Microsoft, *Naming Files, Paths, and Namespaces*. ``ntpath.isreserved`` is new in Python 3.13.
    """
    stem = name.partition(".")[0].rstrip(" ").upper()
    strange = any(character in '<>:"/\\|?*' or character < " " for character in name)
    return strange or name.endswith((" ", ".")) or stem in _RESERVED

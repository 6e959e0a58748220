"""Files that are whole under their name or not there at all: written beside it, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cxr_helpers.system import errors

PARTIAL = ".partial-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of ``path`` at the end.

    A kill, a full disk or an exception leaves the old file as it was. Where a library keeps
    to itself what the system said (NumPy and HDF5 do, on a full disk), the system is asked.

    Parameters
    ----------
    path : Path
        The final name. Its folder must exist.

    Yields
    ------
    Path
        In the same folder, with the same suffix; gone after an exception.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name without content
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        if not errors.has_errno(error):
            _write_more(partial)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _write_more(path: Path) -> None:
    """Raise what the system says to a file that is to grow, if it refuses."""
    with open(path, "ab") as file:
        file.write(bytes(2**16))
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; return its path."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def write_text(path: Path, content: str) -> Path:
    """Write UTF-8 text whole or not at all; return its path."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: object) -> Path:
    """Write JSON whole or not at all; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    return write_text(path, text + "\n")


def read_json(path: Path) -> dict | None:
    """Return what ``write_json`` wrote, or None where there is no such file or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no JSON, or no UTF-8
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside ``folder`` to work in; what is left in it at the end goes."""
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{os.getpid()}-", dir=folder) as work:
        yield Path(work)


def remove_leftovers(folder: Path, *, deep: bool = True) -> list[Path]:
    """Remove what killed writers have left below a folder, and return it.

    What a process that still runs is writing stays. Unless ``deep``, only the folder itself is
    looked through.
    """
    found = (folder.rglob if deep else folder.glob)(f"{PARTIAL}*")
    left = [path for path in sorted(found) if not _is_alive(path)]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return left


def _is_alive(path: Path) -> bool:
    writer = path.name.removeprefix(PARTIAL).split("-")[0]
    if not writer.isdecimal() or int(writer) == os.getpid():
        return False
    try:
        return psutil.Process(int(writer)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's
        return True

"""Atomic writing: a file appears under its name complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxr_helpers.system import errors, portable, processes

PARTIAL = ".partial-"  # begins the names of files that are being written, see ``partial_name``
# A temporary file of another machine stays this long: whether its process runs cannot be seen.
FORGOTTEN = 24 * 3600.0  # seconds


def partial_name(name: str) -> str:
    """Return the temporary name of a file: ``.partial-4711@node3-name``."""
    return f"{PARTIAL}{processes.own()}-{name}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; at the end it replaces ``path``.

    A kill, a full disk or an exception leaves the old file unchanged. NumPy and HDF5 drop the errno
    of a full disk; a further write to the temporary file recovers it.

    Parameters
    ----------
    path : Path
        The final name. Its folder must exist.

    Yields
    ------
    Path
        In the same folder, with the same suffix; removed after an exception.
    """
    partial = path.with_name(partial_name(path.name))
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave an empty file under the new name
        portable.replace(partial, path)
    except (OSError, RuntimeError) as error:
        if not errors.has_errno(error):
            _write_more(partial)
        raise
    finally:
        with suppress(PermissionError):  # open elsewhere, on Windows
            partial.unlink(missing_ok=True)


def _write_more(path: Path) -> None:
    """Append to a file, so that the system raises its own error where it cannot grow."""
    with open(path, "ab") as file:
        file.write(bytes(2**16))
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file atomically; return its path."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def write_text(path: Path, content: str) -> Path:
    """Write UTF-8 text atomically; return its path."""
    return write_bytes(path, content.encode("utf-8"))


def as_utf8(name: str) -> str:
    """Return a file's name with a question mark for each byte that is no UTF-8: it can be written."""
    return name.encode(errors="replace").decode()


def write_json(path: Path, content: object) -> Path:
    """Write JSON atomically; return its path. NaN raises ``ValueError``."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    return write_text(path, text + "\n")


def read_json(path: Path) -> dict | None:
    """Return the mapping in a JSON file, or None where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # not JSON, or not UTF-8
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside ``folder``, removed with its content at the end.

    Where Windows still has a file in it open, it stays for ``remove_leftovers``.
    """
    prefix = partial_name("")
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True) as work:
        yield Path(work)


def weights(named: str) -> str:
    """Return the resolved path of the file that ``pretrained_weights`` names.

    Raises
    ------
    DataError
        If it is not an existing file ``….h5``.
    """
    path = Path(named).expanduser().resolve()
    if not path.is_file() or path.suffix != ".h5":
        raise errors.DataError(f"pretrained_weights={named}: expected an existing file ….h5")
    return str(path)


def remove_leftovers(folder: Path, *, deep: bool = True) -> list[Path]:
    """Remove the temporary files of processes that were killed; return their paths.

    Those of a running process stay, and so do those of another machine for a day. Unless ``deep``,
    subfolders are not searched.
    """
    found = (folder.rglob if deep else folder.glob)(f"{PARTIAL}*")
    leftovers = [path for path in sorted(found) if not _is_being_written(path)]
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(PermissionError):  # open elsewhere, on Windows
                path.unlink(missing_ok=True)
    return leftovers


def _is_being_written(path: Path) -> bool:
    writer = path.name.removeprefix(PARTIAL).split("-")[0]
    running = processes.is_running(writer)
    if running is None:
        try:
            return time.time() - path.stat().st_mtime < FORGOTTEN
        except FileNotFoundError:  # complete now, under its final name
            return True
    return running and (processes.parse(writer) or (0,))[0] != os.getpid()

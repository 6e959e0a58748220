"""SHA-256 digests of files and of plain data; those of files are kept while a file is unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cxr_helpers.system import files

FILE = "digests.json"
# A file written this shortly before it was hashed may be written again within the resolution of
# its modification time (the "racily clean" entries of git's index): its digest is not kept.
SETTLED = 2.0  # seconds
_kept: dict[str, list] = {}  # path: [size, modified, changed, digest]; times in nanoseconds
_new: set[str] = set()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits.

    A file whose path, size and times of modification and of status change are those of an earlier
    call is not read again.
    """
    found, name = os.stat(path), os.path.abspath(path)
    now = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    kept = _kept.get(name)
    if kept is not None and kept[:3] == now:
        return kept[3]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - max(found.st_mtime, found.st_ctime) > SETTLED:
        _kept[name] = [*now, digest]
        _new.add(name)
    return digest


def sha256_of_json(content: object) -> str:
    """Return the SHA-256 of plain JSON data, the same for equal data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def cached(folder: Path, *, write: bool = True) -> Iterator[None]:
    """Let ``of_file`` know the digests that were kept in a folder, and keep the new ones there.

    They are kept unless the block raises: what was refused leaves nothing behind.

    Parameters
    ----------
    folder : Path
        Holds ``digests.json``; made where it is missing.
    write : bool
        Whether new digests are kept for the next process.
    """
    _kept.update({name: kept for name, kept in _read(folder).items() if name not in _kept})
    yield
    if write:
        write_cache(folder)


def write_cache(folder: Path) -> None:
    """Write the new digests into a folder, for the next process; without it, it hashes again."""
    if not _new:
        return
    with contextlib.suppress(OSError):  # a full disk, say: what needs it finds out itself
        folder.mkdir(parents=True, exist_ok=True)
        # another process may have written since; what no longer exists is left out
        whole = _read(folder) | {name: _kept[name] for name in _new}
        whole = {name: kept for name, kept in whole.items() if os.path.exists(name)}
        files.write_text(folder / FILE, json.dumps(whole))
        _new.clear()


def _read(folder: Path) -> dict[str, list]:
    found = None
    with contextlib.suppress(OSError):
        found = files.read_json(folder / FILE)
    return {n: k for n, k in (found or {}).items() if isinstance(k, list) and len(k) == 4}

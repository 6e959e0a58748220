"""SHA-256 digests of files and of plain data; a file's digest is cached until the file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cxr_helpers.system import files

FILE = "digests.json"
# A file written this shortly before it was hashed may be written again within the resolution of
# its modification time (the "racily clean" entries of git's index): its digest is not cached.
SETTLED = 2.0  # seconds
_cache: dict[str, list] = {}  # path: [size, modified, changed, digest]; times in nanoseconds
_new: set[str] = set()  # paths whose digests are not in the cache file yet


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits.

    A file is not read again while its path, its size and its times of modification and of status
    change are those of an earlier call.
    """
    status, name = os.stat(path), os.path.abspath(path)
    state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    entry = _cache.get(name)
    if entry is not None and entry[:3] == state:
        return entry[3]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED:
        _cache[name] = [*state, digest]
        _new.add(name)
    return digest


def sha256_of_json(content: object) -> str:
    """Return the SHA-256 of plain JSON data, the same for equal data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def own_code(model: object) -> list[str]:
    """Return digests of the files that define layers and functions of a Keras model, outside of Keras.

    In the configuration of a model such an object is only a name, whatever it computes. What these
    files import is not followed, nor what a notebook's cell defines.

    Parameters
    ----------
    model : keras.Model
    """
    layers = (model, *model._flatten_layers())
    modules = {base.__module__ for layer in layers for base in type(layer).__mro__}
    modules |= {getattr(x, "__module__", None) for layer in layers for x in vars(layer).values()}
    known = {"keras", "tensorflow", *sys.stdlib_module_names}
    own = (m for m in modules if m and m.split(".")[0] not in known)
    files_of = {getattr(sys.modules.get(module), "__file__", None) for module in own}
    return sorted(sha256_of_file(Path(file)) for file in files_of if file)


@contextlib.contextmanager
def cached(folder: Path, *, write: bool = True) -> Iterator[None]:
    """Read the digests that a folder holds for ``sha256_of_file``, and write new ones there.

    They are not written if the block raises: a refused command leaves no file behind.

    Parameters
    ----------
    folder : Path
        Holds ``digests.json``; created if it is missing.
    write : bool
        Whether new digests are written for the next process.
    """
    _cache.update({name: entry for name, entry in _read(folder).items() if name not in _cache})
    yield
    if write:
        write_cache(folder)


def write_cache(folder: Path) -> None:
    """Write the new digests into a folder, so that the next process need not hash again."""
    if not _new:
        return
    with contextlib.suppress(OSError):  # such as a full disk: the next process hashes again
        folder.mkdir(parents=True, exist_ok=True)
        # another process may have written since; files that no longer exist are left out
        entries = _read(folder) | {name: _cache[name] for name in _new}
        entries = {name: entry for name, entry in entries.items() if os.path.exists(name)}
        files.write_text(folder / FILE, json.dumps(entries))
        _new.clear()


def _read(folder: Path) -> dict[str, list]:
    content = None
    with contextlib.suppress(OSError):
        content = files.read_json(folder / FILE)
    return {n: e for n, e in (content or {}).items() if isinstance(e, list) and len(e) == 4}

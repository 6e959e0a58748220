"""Remove stored results and decoded images that no run refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from cxr_helpers.data import archives, ingestion
from cxr_helpers.pipeline import locks, stages
from cxr_helpers.pipeline.runs import KEPT, OWNER
from cxr_helpers.system import files, portable


def clean(build: Path, *, dry_run: bool = False) -> dict[Path, int]:
    """Remove stored results and decoded images that no stage of any run refers to.

    An interrupted training stays, and so do results that a run in progress uses; while there is one,
    all decoded images stay, and so they do on Windows, where runs do not know theirs. Downloads and
    unpacked archives stay: they cannot be computed again.

    Parameters
    ----------
    build : Path
        Folder of the runs.
    dry_run : bool
        Only add up the sizes.

    Returns
    -------
    dict of Path to int
        Bytes freed, by folder.
    """
    if not dry_run and (build / ".cache").is_dir():
        files.remove_leftovers(build / ".cache")
        archives.sweep(build / ".cache")
    used = _used(build)
    decoded = build / ".cache" / ingestion.DECODED
    # a run that is decoding has not declared yet which images it uses
    known = not portable.WINDOWS and not any(in_progress(build))
    folders = [build / stages.STORE] + [decoded] * known
    return {folder: _clean(folder, used, dry_run=dry_run) for folder in folders}


def in_progress(build: Path) -> Iterator[str]:
    """Yield the processes that hold the lock of a run."""
    for path in build.glob(f"*/{OWNER}"):
        if owner := locks.holder(path.parent, owner=OWNER):
            yield owner


def _used(build: Path) -> set[str]:
    """Return the keys that stages of runs, of their seeds and of their scratch refer to."""
    keys: set[str] = set()
    for path in build.glob(f"**/stages/*/{KEPT}"):
        keys |= set(path.read_text(encoding="ascii").split())
        keys.add((files.read_json(path.with_name("dataset.json")) or {}).get("decoded", ""))
    return keys


def _clean(folder: Path, used: set[str], *, dry_run: bool) -> int:
    freed = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stem not in used and not path.name.startswith(files.PARTIAL):
            freed += _size(path)
            if not dry_run:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)  # a run may have removed it
    return freed


def _size(path: Path) -> int:
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in parts if file.is_file())

"""What a run needs, looked at in its first second: packages, permissions, disk, sole use."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import filelock

from cxr_helpers import atomic, origins, sources, splits, stages
from cxr_helpers.commands import Refused, short

NEEDED = (
    *("ipykernel", "papermill", "nbconvert", "pypandoc"),
    *("tensorflow", "keras", "sklearn", "seaborn"),
)
PDF = ("typst",)
LOCK = ".lock"
BYTES_PER_PIXEL = 8  # decoded twice (cache, run), and a code of as many bytes as four pixels
FEW_PHANTOMS, FEW_GROUPS = 150, 30  # whatever share is cut from more, enough is left
SPARE_BYTES = 150 * 2**20  # weights, checkpoints, executed notebooks, report


def check(folder: Path, *, films: int, image_size: int, pdf: bool) -> list[str]:
    """Refuse a run that could not end well.

    Parameters
    ----------
    folder : Path
        Where the run writes; made where it is missing.
    films, image_size : int
        Their number and side in pixels: decides how much disk is needed.
    pdf : bool
        Whether a PDF is wanted.

    Returns
    -------
    list of str
        What will be missing from the result, a line each.

    Raises
    ------
    Refused
        With exit code 6, naming what to do.
    """
    if lacking := _lacking(NEEDED):
        raise Refused(6, f"not installed: {', '.join(lacking)}; `uv sync` installs what is needed")
    needed = SPARE_BYTES + films * image_size**2 * BYTES_PER_PIXEL
    check_room(folder, needed, advice="free some, or set a smaller image_size")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(folder / ".writable", "").unlink()
    except OSError as error:
        raise Refused(
            6,
            f"{short(folder)} cannot be written to ({error.strerror}): "
            "change its permissions or free some disk, or work in another clone",
        ) from error
    if pdf and (lacking := _lacking(PDF)):
        names = " ".join(lacking)
        return [f"there will be no PDF: {names} is not installed (pip install {names})"]
    return []


def check_room(folder: Path, needed: int, *, advice: str) -> None:
    """Refuse, with exit code 6, where fewer bytes are free than needed; nothing is made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise Refused(
            6,
            f"{short(folder)}: {free / 2**20:,.0f} MiB of disk are free and about "
            f"{needed / 2**20:,.0f} are needed: {advice}",
        )


def check_films(located: str, parameters: Mapping[str, object]) -> None:
    """Refuse films that are too few for the splits that ``01_data`` would cut.

    Only where they are few: cutting takes scikit-learn, a second to import.

    Parameters
    ----------
    located : str
        ``located`` of an ``origins.Origin``.
    parameters : mapping
        Of ``01_data``.

    Raises
    ------
    folder.DataError
        Naming what there is too little of.
    """
    if located == sources.PHANTOM and parameters["n_phantoms"] >= FEW_PHANTOMS:
        return
    named = {name: parameters[name] for name in ("n_phantoms", "seed")}
    index = sources.foreseen(located, **named)
    train = index[index["split"] == "train"]
    groups = train.groupby(train["class_name"] == "normal")["group"].nunique()
    if len(groups) == 2 and groups.min() >= FEW_GROUPS:
        return
    splits.cut(
        train["group"],
        train["class_name"],
        validation=parameters.get("validation_fraction", 0.0),
        serial=parameters.get("serial_fraction", 0.0),
        chooser=splits.CHOOSERS[parameters.get("choose_by", "group")],
        seed=parameters["seed"],
    )


def _lacking(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the system frees it whenever this process ends, however it ends.

    A folder in which no stage has begun goes at the end.

    Raises
    ------
    Refused
        With exit code 5, naming the process that has it.
    """
    lock, owner = filelock.FileLock(folder / LOCK), folder / stages.OWNER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        holder = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise Refused(
            5,
            f"{short(folder)} is in use by {holder}: wait for it, or give this run "
            "a name of its own with --run",
        ) from None
    try:
        atomic.write_text(owner, f"process {os.getpid()}")
        atomic.sweep(folder)
        yield
    finally:
        atomic.sweep(folder)
        owner.unlink(missing_ok=True)
        if {path.name for path in folder.iterdir()} <= {LOCK, origins.RECORD}:
            shutil.rmtree(folder, ignore_errors=True)  # Windows does not let the lock go
        lock.release()

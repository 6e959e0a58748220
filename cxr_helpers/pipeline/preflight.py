"""What a run needs, looked at in its first second: packages, permissions, disk, sole use."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from cxr_helpers.data import ingestion, splits
from cxr_helpers.system import files
from cxr_helpers.system.errors import Refused
from cxr_helpers.system.terminal import short_path

NEEDED = (
    *("ipykernel", "papermill", "nbconvert", "pypandoc"),
    *("tensorflow", "keras", "sklearn", "seaborn"),
)
PDF = ("typst",)
BYTES_PER_PIXEL = 8  # decoded twice (cache, run), and a code of as many bytes as four pixels
FEW_PHANTOMS, FEW_GROUPS = 150, 30  # whatever share is cut from more, enough is left
SPARE_BYTES = 150 * 2**20  # weights, checkpoints, executed notebooks, report


def check(folder: Path, *, n_images: int, image_size: int, pdf: bool) -> list[str]:
    """Refuse a run that could not end well.

    Parameters
    ----------
    folder : Path
        Where the run writes; made where it is missing.
    n_images, image_size : int
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
    needed = SPARE_BYTES + n_images * image_size**2 * BYTES_PER_PIXEL
    check_disk(folder, needed, advice="free some, or set a smaller image_size")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ".writable", "").unlink()
    except OSError as error:
        raise Refused(
            6,
            f"{short_path(folder)} cannot be written to ({error.strerror}): "
            "change its permissions or free some disk, or work in another clone",
        ) from error
    if pdf and (lacking := _lacking(PDF)):
        names = " ".join(lacking)
        return [f"there will be no PDF: {names} is not installed (pip install {names})"]
    return []


def check_disk(folder: Path, needed: int, *, advice: str) -> None:
    """Refuse, with exit code 6, where fewer bytes are free than needed; nothing is made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise Refused(
            6,
            f"{short_path(folder)}: {free / 2**20:,.0f} MiB of disk are free and about "
            f"{needed / 2**20:,.0f} are needed: {advice}",
        )


def check_images(located: str, parameters: Mapping[str, object]) -> None:
    """Refuse images that are too few for the splits that ``01_data`` would cut.

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
    if located == ingestion.PHANTOM and parameters["n_phantoms"] >= FEW_PHANTOMS:
        return
    named = {name: parameters[name] for name in ("n_phantoms", "seed")}
    index = ingestion.preview(located, **named)
    train = index[index["split"] == "train"]
    groups = train.groupby(train["class_name"] == "normal")["group"].nunique()
    if len(groups) == 2 and groups.min() >= FEW_GROUPS:
        return
    splits.validation_splits(
        train["group"],
        train["class_name"],
        validation=parameters.get("validation_fraction", 0.0),
        contiguous=parameters.get("contiguous_fraction", 0.0),
        chooser=splits.SELECTION[parameters.get("choose_by", "group")],
        seed=parameters["seed"],
    )


def _lacking(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]

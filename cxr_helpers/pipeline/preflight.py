"""Checks before a run: packages, permissions, disk, enough images for the splits."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from cxr_helpers.data import ingestion, splits
from cxr_helpers.system import accelerators, environment, files
from cxr_helpers.system.errors import Refused
from cxr_helpers.system.terminal import short_path

NEEDED = (
    *("ipykernel", "papermill", "nbconvert", "pypandoc"),
    *("tensorflow", "keras", "sklearn", "seaborn"),
)
PDF = ("typst",)
BYTES_PER_PIXEL = 8  # decoded images in cache and run, embeddings and maps
FEW_PHANTOMS, FEW_GROUPS = 150, 30  # with more, any validation fractions leave enough
SPARE_BYTES = 150 * 2**20  # weights, checkpoints, executed notebooks, report
STAGE_MEMORY = 2 * 10**9  # bytes that must be free per stage for two to run at once
MANY_PIXELS = 20_000 * 128**2  # of all images, from which a stage may need more than that
SMALL_IMAGE, FEW_PIXELS = 96, 10**7  # side, and pixels of all images: up to both, a run is small


def check(folder: Path, *, n_images: int, image_size: int, pdf: bool) -> list[str]:
    """Refuse a run that could not be completed.

    Parameters
    ----------
    folder : Path
        Where the run writes; created if it is missing.
    n_images, image_size : int
        Their number, and height and width in pixels: they decide how much disk is needed.
    pdf : bool
        Whether a PDF is to be made.

    Returns
    -------
    list of str
        A warning for each part of the result that will be missing.

    Raises
    ------
    Refused
        With exit code 6, naming what to do.
    """
    if missing := _missing(NEEDED):
        raise Refused(6, f"not installed: {', '.join(missing)}; `uv sync` installs them")
    needed = SPARE_BYTES + n_images * image_size**2 * BYTES_PER_PIXEL
    check_disk(folder, needed, advice="free some disk, or set a smaller image_size")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ".writable", "").unlink()
    except OSError as error:
        raise Refused(
            6,
            f"{short_path(folder)} cannot be written to ({error.strerror}): "
            "change its permissions, free some disk, or work in another clone",
        ) from error
    if pdf and (missing := _missing(PDF)):
        names = " ".join(missing)
        return [f"there will be no PDF: {names} is not installed (pip install {names})"]
    return []


def check_device() -> list[str]:
    """Return a line of advice for each GPU that is there and not used.

    Raises
    ------
    Refused
        With exit code 6, where a plug-in breaks the import of TensorFlow.
    """
    if reason := accelerators.broken():
        raise Refused(6, reason)
    return accelerators.advice()


def jobs(*, n_images: int, image_size: int) -> int:
    """Return how many stages run at once, unless the user decides.

    Two where there are cores and memory for both: a stage uses one core for a part of its time.
    One on a GPU, whose memory they would share, and on systems other than Linux, where two have
    not been tried.

    Parameters
    ----------
    n_images, image_size : int
        Their number, and height and width in pixels.
    """
    small = n_images * image_size**2 < MANY_PIXELS
    memory = environment.free_memory() >= 2 * STAGE_MEMORY
    enough = environment.cores() > 1 and memory and small
    return 2 if enough and sys.platform == "linux" and not accelerators.gpu() else 1


def threads(*, n_images: int, image_size: int) -> int | None:
    """Return how many threads a stage computes with, unless the user decides; None for all cores.

    One in a small run: on two cores, the phantoms of the presets ``demo`` and ``quick`` take no
    longer with it, and the other core is free for the stage beside it and for what the stage begins in
    another process (``Stage.begin``). The number changes results, because training
    multiplies differences in the last bits, and therefore does not depend on the machine.

    Parameters
    ----------
    n_images, image_size : int
        As for ``jobs``.
    """
    small = image_size <= SMALL_IMAGE and n_images * image_size**2 <= FEW_PIXELS
    return 1 if small and not environment.has_thread_limit() else None


def check_disk(folder: Path, needed: int, *, advice: str) -> None:
    """Refuse, with exit code 6, where fewer bytes are free than needed; no folder is made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise Refused(
            6,
            f"{short_path(folder)}: {free / 2**20:,.0f} MiB of disk space are free, but "
            f"about {needed / 2**20:,.0f} MiB are needed: {advice}",
        )


def check_images(located: str, parameters: Mapping[str, object]) -> None:
    """Refuse too few images for the splits that ``01_data`` makes, or too few to test on.

    The splits are made only where there are few images: importing scikit-learn takes a second.

    Parameters
    ----------
    located : str
        ``located`` of a ``sources.Source``.
    parameters : mapping
        Of ``01_data``.

    Raises
    ------
    DataError
        Naming the class and the split with too few.
    """
    if located == ingestion.PHANTOM and parameters["n_phantoms"] >= FEW_PHANTOMS:
        return
    index = ingestion.preview(located, n_phantoms=parameters["n_phantoms"], seed=parameters["seed"])
    splits.check_test(index.loc[index["split"] == "test", "class_name"])
    train = index[index["split"] == "train"]
    groups = train.groupby(train["class_name"] == "normal")["group"].nunique()
    if len(groups) == 2 and groups.min() >= FEW_GROUPS:
        return
    splits.validation_splits(
        train["group"],
        train["class_name"],
        validation=parameters.get("validation_fraction", 0.0),
        contiguous=parameters.get("contiguous_fraction", 0.0),
        selection=splits.SELECTION[parameters.get("choose_by", "group")],
        seed=parameters["seed"],
    )


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]

"""Outlines of the lungs that people drew, for real images: found, matched and counted.

A folder holds one mask for each image, of the image's name, or the annotations of the V7 COVID-19
X-ray dataset (CC BY 4.0, github.com/v7labs/covid-19-xray-dataset), whose masks carry no names: these
are matched by stored size, only where one mask and one image have it. Of the two ways, that which finds
more pairs is taken, by name where both find as many.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_helpers.data import decoding
from cxr_helpers.system.errors import DataError

V7 = "v7"  # the word that asks for a download, see ``downloads.v7_lung_masks``
# Grey level from which a pixel is lung, see ``_mask``; V7 writes 255, and 127 for "ignore".
LUNG = 200
# Largest value of a mask of numbered regions, which would be black as grey levels: one or two of them,
# as where each lung has its number, are lung.
LABELS = 15
SHAPE = 0.02  # by how much the aspect ratios of mask and image may differ, relatively


@dataclass(frozen=True)
class Outlines:
    """Lung masks of some of the images.

    Attributes
    ----------
    masks : ndarray of bool, shape (m, size, size)
        Of those m images whose masks were asked for; all False where one has none.
    found : ndarray of bool, shape (n,)
        Whether an image has one.
    by : str
        ``"name"`` or ``"stored size"``.
    counts : dict of str to int
        How many masks and images were left out, by reason.
    """

    masks: np.ndarray
    found: np.ndarray
    by: str
    counts: dict[str, int] = field(default_factory=dict)

    def notes(self) -> str:
        """Return in one sentence what was matched and what was left out."""
        left = "; ".join(f"{number} {reason}" for reason, number in self.counts.items() if number)
        text = f"{int(self.found.sum())} of {len(self.found)} images have lung outlines, matched by {self.by}"
        return text + (f" ({left})." if left else ".")


def find(folder: str | Path) -> Path:
    """Return the resolved path of a folder of masks.

    Raises
    ------
    DataError
        If it does not exist.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise DataError(
            f"lung_masks {path} is not a folder: expected PNG files named like the images"
        )
    return path


def files_of(folder: Path) -> list[Path]:
    """Return the PNG files of a folder and of those below it, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    return sorted(path for path in found if path.is_file())


def read(
    folder: str | Path,
    index: pd.DataFrame,
    *,
    size: int,
    framing: str,
    kept: np.ndarray | None = None,
) -> Outlines:
    """Return the lung masks of images.

    Parameters
    ----------
    folder : path
        PNG files, in folders below it too.
    index : pandas.DataFrame
        One row per image: ``file``, ``width`` and ``height`` (in pixels, as stored).
    size : int
        Height and width of the result in pixels.
    framing : str
        How the images were made square, see ``decoding.decode``.
    kept : ndarray of bool, shape (n,), optional
        Whose masks are returned. The others are matched, checked and counted like them. By default
        all.

    Raises
    ------
    DataError
        If the folder does not exist or holds no PNG file, or no mask fits an image.
    """
    folder = find(folder)
    paths = files_of(folder)
    if not paths:
        raise DataError(f"lung_masks {folder} holds no PNG file: expected one for each image")
    index = index.assign(stem=index["file"].map(lambda file: Path(file).stem))
    by, pairs, counts = max(
        (("name", *_by_name(paths, index)), ("stored size", *_by_size(paths, index))),
        key=lambda found: len(found[1]),  # by name where both find as many
    )
    kept = np.ones(len(index), dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    masks = np.zeros((kept.sum(), size, size), dtype=bool)
    place, found = np.cumsum(kept) - 1, np.zeros(len(index), dtype=bool)
    for row, path in pairs.items():
        mask, fault = _mask(path, index.iloc[row], size=size, framing=framing)
        if mask is None:
            counts[fault] += 1
        else:
            found[row] = True
            if kept[row]:
                masks[place[row]] = mask
    counts["images without a mask"] = int((~found).sum())
    if not found.any():
        reasons = "; ".join(f"{number} {reason}" for reason, number in counts.items() if number)
        raise DataError(f"lung_masks {folder}: no mask fits an image ({reasons})")
    return Outlines(masks, found, by, dict(counts))


def _by_name(paths: list[Path], index: pd.DataFrame) -> tuple[dict[int, Path], Counter]:
    """Return the mask of each row where one image and one mask have a name, and what is left out."""
    of_images, of_masks = Counter(index["stem"]), Counter(path.stem for path in paths)
    rows = {stem: row for row, stem in enumerate(index["stem"])}
    pairs, counts = {}, Counter()
    for path in paths:
        if path.stem not in rows:
            counts["masks without an image"] += 1
        elif of_images[path.stem] > 1 or of_masks[path.stem] > 1:
            counts["masks whose name several images or masks share"] += 1
        else:
            pairs[rows[path.stem]] = path
    return pairs, counts


def _by_size(paths: list[Path], index: pd.DataFrame) -> tuple[dict[int, Path], Counter]:
    """Return the same where one image and one mask have a stored size."""
    sizes = list(zip(index["width"], index["height"], strict=True))
    of_images, rows = Counter(sizes), {size: row for row, size in enumerate(sizes)}
    stored, pairs, counts = {}, {}, Counter()
    for path in paths:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                stored[path] = image.size
        except (OSError, *decoding.UNREADABLE):
            counts["masks that cannot be read"] += 1
    of_masks = Counter(stored.values())
    for path, size in stored.items():
        if size not in rows:
            counts["masks without an image"] += 1
        elif of_images[size] > 1 or of_masks[size] > 1:
            counts["masks whose size several images or masks share"] += 1
        else:
            pairs[rows[size]] = path
    return pairs, counts


def _mask(
    path: Path, image: pd.Series, *, size: int, framing: str
) -> tuple[np.ndarray | None, str]:
    """Return a mask at the working size, or None and the reason."""
    try:
        grey = _grey(path)
    except (OSError, *decoding.UNREADABLE):
        return None, "masks that cannot be read"
    if grey is None:
        return None, "masks in colour"
    if grey.max() <= LABELS:
        if len(np.unique(grey)) > 3:
            return None, "masks of more than two regions"
        grey = np.uint8(255 * (grey > 0))
    (height, width), of_image = grey.shape, image["width"] / image["height"]
    if str(image.get("rotated")) == "True":  # text where phantoms stand beside real images
        return None, "masks of images with a stored rotation"
    if width != height and abs(width / height / of_image - 1) > SHAPE:
        return None, "masks of a different shape from their image"
    if width == height and framing == "pad":  # a copy that has lost its shape
        shape = (image["width"], image["height"])
        grey = np.asarray(Image.fromarray(grey).resize(shape, Image.Resampling.BICUBIC))
    mask = decoding.decode(grey, size, framing=framing)[0] >= LUNG
    if (grey[[0, 0, -1, -1], [0, -1, 0, -1]] >= LUNG).sum() > 2:
        return None, "masks with lung in the corners (inverted or all white)"
    return (mask, "") if mask.any() else (None, "empty masks")


def _grey(path: Path) -> np.ndarray | None:
    """Return a mask as stored, uint8; None if it is in colour.

    Masks of 16 bits are reduced to 8 where they need to be.
    """
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > decoding.MAXIMUM_PIXELS:
            raise OSError(f"{image.width} × {image.height} pixels is too large")
        image = decoding.upright(image)
        if image.mode == "P":
            colours = np.asarray(image.convert("RGB"))
            if (colours.max(axis=2) != colours.min(axis=2)).any():
                return None
            image = image.convert("L")
        if image.mode not in ("1", "L") and not image.mode.startswith("I"):
            return None
        values = np.asarray(image.convert("L") if image.mode == "1" else image).astype(int)
    if values.max() > 255:
        values = values // 257
    return np.uint8(values)

"""Duplicate images, and leakage between training and test images."""

from __future__ import annotations

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

NEAR_BITS = 6  # of the 64 of a perceptual hash
NEAR_GREY = 4.0  # mean difference in grey levels of 255


def find(images: np.ndarray, index: pd.DataFrame) -> pd.DataFrame:
    """Find images that are identical, or identical but for encoding and size.

    Candidates share all but a few bits of a perceptual hash (pHash of the library imagehash); a
    candidate counts if its pixels differ little as well.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    index : pandas.DataFrame, n rows
        ``split``, ``class_name`` and, where it is known, ``sha256``.

    Returns
    -------
    pandas.DataFrame
        One row per pair: ``first`` < ``second`` (positions), ``kind`` (``"exact"``: same content, or
        ``"near"``), ``difference`` (mean absolute, in grey levels), ``across_splits`` and
        ``across_classes``.
    """
    hashes = np.array([_bits(image) for image in images], dtype=np.uint64)
    sha256 = index["sha256"].to_numpy() if "sha256" in index else np.arange(len(index))
    split, name = index["split"].to_numpy(), index["class_name"].to_numpy()
    rows = []
    for first in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[first + 1 :] ^ hashes[first])
        for second in first + 1 + np.flatnonzero(distance <= NEAR_BITS):
            exact = sha256[first] == sha256[second]
            gap = np.abs(images[first].astype(np.int16) - images[second]).mean()
            if exact or gap <= NEAR_GREY:
                rows.append(
                    (
                        first,
                        second,
                        "exact" if exact else "near",
                        float(gap),
                        split[first] != split[second],
                        name[first] != name[second],
                    )
                )
    columns = ["first", "second", "kind", "difference", "across_splits", "across_classes"]
    return pd.DataFrame(rows, columns=columns)


def _bits(image: np.ndarray) -> int:
    return int(str(imagehash.phash(Image.fromarray(image))), 16)


def leaks(index: pd.DataFrame, pairs: pd.DataFrame, *, drop: str = "train") -> np.ndarray:
    """Return which images to drop because the other side has a copy or the same patient group.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        ``split`` (test, or anything else for training and validation) and ``group``.
    pairs : pandas.DataFrame
        From ``find``.
    drop : str
        ``"train"``: training and validation images are dropped, and test stays as published;
        ``"test"``: test images are dropped, for models that are trained already. A shared group
        then counts only where the two sides share an image: otherwise they are two collections
        whose patient numbers happen to be equal.

    Returns
    -------
    ndarray of bool, shape (n,)
        True only on the side that ``drop`` names.

    Raises
    ------
    ValueError
        If ``drop`` is neither of the two.
    """
    if drop not in ("train", "test"):
        raise ValueError(f"drop {drop!r} is neither 'train' nor 'test'")
    kept = ((index["split"] == "test") == (drop == "train")).to_numpy()
    copied = np.zeros(len(index), dtype=bool)
    for one, other in ((pairs["first"], pairs["second"]), (pairs["second"], pairs["first"])):
        copied[one[kept[other]]] = True
    group = index["group"].isin(index.loc[kept, "group"].unique()).to_numpy()
    if drop == "test" and not (copied & ~kept).any():
        group = np.zeros_like(copied)
    return (copied | group) & ~kept

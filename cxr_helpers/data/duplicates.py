"""Audit of the images: what is twice, what leaks from test into train, what size alone tells."""

from __future__ import annotations

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

NEAR_BITS = 6  # of the 64 of a perceptual hash
NEAR_GREY = 4.0  # mean difference in grey levels of 255


def find(images: np.ndarray, index: pd.DataFrame) -> pd.DataFrame:
    """Find images that are the same, or the same but for their encoding.

    Candidates share all but a few bits of a perceptual hash (pHash, by the library imagehash);
    they count if their pixels differ little too.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    index : pandas.DataFrame, n rows
        ``file``, ``split``, ``class_name`` and, where there is one, ``sha256``.

    Returns
    -------
    pandas.DataFrame
        A row a pair, ``first`` < ``second`` (positions), their ``kind`` (exact: same content;
        near), ``difference`` (mean, in grey levels), ``across_splits`` and ``across_classes``.
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
    """Say which images must go because the other side has them, or their patient group, too.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        ``split`` (test, or anything else for an image to learn from) and ``group``.
    pairs : pandas.DataFrame
        From ``duplicates``.
    drop : str
        ``"train"``: the images to learn from go, and test stays as it was published;
        ``"test"``: the test images go, for models that were trained before, and a group counts
        only where the sides share an image: else equal numbers are another collection's.

    Returns
    -------
    ndarray of bool, shape (n,)
        True only on the side that ``drop`` names.

    Raises
    ------
    ValueError
        If ``drop`` is neither.
    """
    if drop not in ("train", "test"):
        raise ValueError(f"drop {drop!r} is neither 'train' nor 'test'")
    kept = ((index["split"] == "test") == (drop == "train")).to_numpy()
    twin = np.zeros(len(index), dtype=bool)
    for one, other in ((pairs["first"], pairs["second"]), (pairs["second"], pairs["first"])):
        twin[one[kept[other]]] = True
    group = index["group"].isin(index.loc[kept, "group"].unique()).to_numpy()
    if drop == "test" and not (twin & ~kept).any():
        group = np.zeros_like(twin)
    return (twin | group) & ~kept

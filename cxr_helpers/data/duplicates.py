"""Duplicate images, and leakage between training and test images."""

from __future__ import annotations

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

NEAR_BITS = 6  # of the 64 of a perceptual hash
NEAR_GREY = 4.0  # mean difference in grey levels of 255
BLOCKS = 4  # along each side: candidates agree in the mean grey levels of these


def find(images: np.ndarray, index: pd.DataFrame) -> pd.DataFrame:
    """Find images that are identical, or identical but for encoding and size.

    The pixels of a pair differ little, and so do their perceptual hashes (pHash of the library
    imagehash). Candidates come from a k-d tree over the means of 4 × 4 blocks, which differ no more
    than the pixels do: no pair is missed, and the time is about proportional to the number of images,
    where comparing every hash with every other is not.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped.
    index : pandas.DataFrame, n rows
        ``split``, ``class_name`` and, where it is known, ``sha256``.

    Returns
    -------
    pandas.DataFrame
        One row per pair: ``first`` < ``second`` (positions), ``kind`` (``"exact"``: same content, or
        ``"near"``), ``difference`` (mean absolute, in grey levels), ``across_splits`` and
        ``across_classes``.
    """
    candidates = _close_pairs(images)
    hashes = {row: _bits(images[row]) for row in np.unique(candidates)}
    sha256 = index["sha256"].to_numpy() if "sha256" in index else np.arange(len(index))
    split, name = index["split"].to_numpy(), index["class_name"].to_numpy()
    rows = []
    for first, second in candidates:
        if (hashes[first] ^ hashes[second]).bit_count() > NEAR_BITS:
            continue
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


def _close_pairs(images: np.ndarray) -> np.ndarray:
    """Return all pairs of images that may differ by no more than ``NEAR_GREY``.

    The sum of the differences between block means is at most the sum of the differences between
    pixels, divided by the pixels of a block.

    Returns
    -------
    ndarray of int, shape (pairs, 2)
        Positions, first < second, in order.
    """
    from scipy.spatial import KDTree  # takes a second to import

    n, side = images.shape[:2]
    blocks = min(BLOCKS, side)
    step = side // blocks
    means = np.empty((n, blocks * blocks), np.float32)
    for start in range(0, n, 1024):
        part = images[start : start + 1024, : blocks * step, : blocks * step]
        tiles = part.reshape(len(part), blocks, step, blocks, step)
        means[start : start + 1024] = tiles.mean(axis=(2, 4), dtype=np.float32).reshape(
            len(part), -1
        )
    radius = NEAR_GREY * side**2 / step**2 + 0.01  # rounding of the means
    pairs = KDTree(means).query_pairs(radius, p=1, output_type="ndarray")
    pairs.sort(axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


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

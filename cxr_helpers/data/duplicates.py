"""Duplicate images, and leakage between training and test images."""

from __future__ import annotations

from functools import cache

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from cxr_helpers.data import splits
from cxr_helpers.system import array_files

NEAR_BITS = 6  # of the 64 of a perceptual hash
NEAR_GREY = 4.0  # mean difference in grey levels of 255
BLOCKS = 8  # along each side, whose mean grey levels are compared
COORDINATES = 10  # of the block means, for the search
AT_ONCE = 2**17  # pairs that are compared at a time


def find(images: np.ndarray, index: pd.DataFrame) -> pd.DataFrame:
    """Find images that are identical, or identical but for encoding and size.

    The pixels of a pair differ little, and so do their perceptual hashes (pHash of the library
    imagehash). Candidates are found by their coarse grey levels, which differ no more than the
    pixels do: no pair is missed, and images are not all compared with one another.

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
    sha256 = index["sha256"].to_numpy() if "sha256" in index else np.arange(len(index))
    split, name = index["split"].to_numpy(), index["class_name"].to_numpy()
    bits = cache(lambda row: _bits(images[row]))
    rows = []
    for first, second in _close_pairs(images):
        exact = sha256[first] == sha256[second]
        gap = np.abs(images[first].astype(np.int16) - images[second]).mean()
        if not exact and gap > NEAR_GREY:
            continue
        if (bits(first) ^ bits(second)).bit_count() <= NEAR_BITS:
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

    The mean difference of block means is at most that of the pixels, and so is the difference of
    their mean with any signs. Pairs are found by the latter in a k-d tree of a few coordinates (the
    signs are those of the principal components, in which images differ most), and kept by the former.

    Returns
    -------
    ndarray of int, shape (pairs, 2)
        Positions, first < second, in order.
    """
    from scipy.spatial import KDTree  # takes a second to import

    means, limit = _block_means(images)
    centred = means - means.mean(axis=0)
    components = np.linalg.eigh(centred.T @ centred)[1][:, : -COORDINATES - 1 : -1]
    coordinates = centred @ np.where(components < 0, -1, 1) / means.shape[1]
    pairs = KDTree(coordinates, leafsize=32).query_pairs(limit, np.inf, output_type="ndarray")
    close = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), AT_ONCE):
        one, other = pairs[start : start + AT_ONCE].T
        close[start : start + AT_ONCE] = np.abs(means[one] - means[other]).mean(axis=1) <= limit
    pairs = np.sort(pairs[close], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _block_means(images: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean grey levels of blocks, shape (n, blocks), and the limit of their difference.

    Pixels at the end of a side that make no whole block are left out: the limit allows for them.
    """
    n, side = images.shape[:2]
    blocks = min(BLOCKS, side)
    step = side // blocks
    means = np.empty((n, blocks * blocks), np.float32)
    for rows in array_files.parts(images):
        part = images[rows, : blocks * step, : blocks * step]
        tiles = part.reshape(len(part), blocks, step, blocks, step)
        means[rows] = tiles.mean(axis=(2, 4)).reshape(len(part), -1)
    return means, NEAR_GREY * side**2 / (blocks * step) ** 2 + 0.01  # rounding


def _bits(image: np.ndarray) -> int:
    return int(str(imagehash.phash(Image.fromarray(image))), 16)


def leaks(index: pd.DataFrame, pairs: pd.DataFrame, *, drop: str = "train") -> np.ndarray:
    """Return which images to drop because the other side has a copy or an image of the same patient.

    Groups that share an image, possibly re-encoded, count as one patient, see ``splits.clusters``.

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
    cluster = splits.clusters(index["group"], pairs)
    of_same_patient = np.isin(cluster, cluster[kept])
    if drop == "test" and not (copied & ~kept).any():
        of_same_patient = np.zeros_like(copied)
    return (copied | of_same_patient) & ~kept

"""Cut validation splits from the training images, a patient group at a time."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from cxr_helpers.system.errors import DataError

SELECTION = {
    "group": "validation",
    "contiguous": "contiguous",
}  # the split that weights are chosen by
# Patient groups of normal and of pneumonia. Of train's a part may be held out again
# (``Dataset.development``), and the detectors need three normal images of the rest.
MINIMUM_GROUPS = {"train": 4, "validation": 1, "contiguous": 1}


def clusters(groups: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """Join patient groups that share a duplicate: the sets of images that no split may part.

    Parameters
    ----------
    groups : array of str, shape (n,)
        Each image's patient group.
    pairs : pandas.DataFrame
        ``first`` and ``second``, positions of duplicates, from ``audit.duplicates``.

    Returns
    -------
    ndarray of int, shape (n,)
        A number a connected component of groups.
    """
    from scipy import sparse  # takes a second to import

    names, group = np.unique(np.asarray(groups), return_inverse=True)
    ends = [group[pairs[end].to_numpy(dtype=int)] for end in ("first", "second")]
    links = sparse.coo_array((np.ones(len(pairs)), ends), shape=(len(names), len(names)))
    return sparse.csgraph.connected_components(links, directed=False)[1][group]


def validation_splits(
    groups: np.ndarray,
    classes: np.ndarray,
    *,
    together: np.ndarray | None = None,
    validation: float,
    contiguous: float,
    chooser: str,
    seed: int,
) -> np.ndarray:
    """Cut the two validation splits from the training images.

    Parameters
    ----------
    groups, classes : array of str, shape (n,)
        As for ``validation_mask``.
    together : array of int, shape (n,), optional
        From ``clusters``: no two images of one number are parted, whatever their groups.
    validation, contiguous : float
        Wanted share of each split, of what is left and of all, 0 to 0.5.
    chooser : str
        The split that weights are chosen by, ``"validation"`` or ``"contiguous"``.
    seed : int

    Returns
    -------
    ndarray of str, shape (n,)
        ``train``, ``validation`` or ``contiguous``.

    Raises
    ------
    DataError
        If too few patient groups of normal or of pneumonia are left in train, or are in the split
        that weights are chosen by where it has any images.
    """
    groups, classes = np.asarray(groups), np.asarray(classes)
    split = np.full(len(groups), "train", dtype=object)
    split[contiguous_mask(groups, together=together, fraction=contiguous, seed=seed)] = "contiguous"
    groups = groups if together is None else np.asarray(together)
    rest = np.flatnonzero(split == "train")
    drawn = validation_mask(groups[rest], classes[rest], fraction=validation, seed=seed)
    split[rest[drawn]] = "validation"
    for name in ("train", *({chooser} & set(split))):
        some = split == name
        _check(groups[some], classes[some], least=MINIMUM_GROUPS[name], where=f"{name} as cut")
    return split


def _check(groups: np.ndarray, classes: np.ndarray, *, least: int, where: str) -> int:
    """Return the fewer of the patient groups of normal and of pneumonia; refuse too few."""
    normal = classes == "normal"
    count = {
        "normal": len(np.unique(groups[normal])),
        "pneumonia": max(
            (len(np.unique(groups[classes == name])) for name in np.unique(classes[~normal])),
            default=0,
        ),
    }
    fewest = min(count, key=count.get)
    if count[fewest] < least:
        kind = "normal" if fewest == "normal" else "one kind of pneumonia"
        raise DataError(
            f"too few images of {kind}: {where} has {count[fewest]} of at least {least} patient "
            "groups: give more images, or set a smaller validation_fraction or contiguous_fraction"
        )
    return count[fewest]


def validation_mask(
    groups: np.ndarray, classes: np.ndarray, *, fraction: float, seed: int
) -> np.ndarray:
    """Choose whole groups for validation, stratified by class.

    Parameters
    ----------
    groups : array of str or int, shape (n,)
        Images of one group are never parted.
    classes : array of str, shape (n,)
        Each image's class.
    fraction : float
        Wanted share of validation images, 0 (none) to 0.5.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the image is for validation. The share is that of one fold of
        ``StratifiedGroupKFold`` with ``round(1 / fraction)`` folds, or fewer where normal or
        pneumonia has not as many groups. A class with fewer groups than folds stays in train, but
        for groups that other classes share.

    Raises
    ------
    ValueError
        If ``fraction`` is out of range.
    DataError
        If normal has fewer than three groups, or every other class has.
    """
    if not 0 <= fraction <= 0.5:
        raise ValueError(f"validation fraction {fraction} is out of range: expected 0 to 0.5")
    groups, classes = np.asarray(groups), np.asarray(classes)
    mask = np.zeros(len(groups), dtype=bool)
    if fraction == 0:
        return mask
    folds = min(round(1 / fraction), _check(groups, classes, least=3, where="train"))
    counts = {name: len(np.unique(groups[classes == name])) for name in np.unique(classes)}
    common = np.flatnonzero([counts[name] >= folds for name in classes])
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    _, chosen = next(splitter.split(common, classes[common], groups[common]))
    mask[common[chosen]] = True
    return np.isin(groups, groups[mask])


def contiguous_mask(
    groups: np.ndarray, *, together: np.ndarray | None = None, fraction: float, seed: int
) -> np.ndarray:
    """Choose a contiguous block of patient numbers in each series, as the official test is.

    Images taken in one period share a style; a random draw of groups spreads each style over
    both sides and so cannot see what happens when the style changes, a block can.

    Parameters
    ----------
    groups : array of str, shape (n,)
        A series' name that ends in a number, such as ``"bacterial 78"``; others are never
        chosen.
    together : array of int, shape (n,), optional
        From ``clusters``: images that share a number with one in a block go with it, so that a
        block may have a few images from elsewhere.
    fraction : float
        Wanted share of each series' images, 0 (none) to 0.5.
    seed : int
        Decides where in its series a block begins.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the image is for validation.

    Raises
    ------
    ValueError
        If ``fraction`` is out of range.
    """
    if not 0 <= fraction <= 0.5:
        raise ValueError(f"contiguous fraction {fraction} is out of range: expected 0 to 0.5")
    draw = np.random.default_rng(seed)
    parsed = [re.fullmatch(r"(.*?)(\d+)", group) for group in groups]
    series = np.array([match[1] if match else "" for match in parsed])
    number = np.array([int(match[2]) if match else -1 for match in parsed])
    mask = np.zeros(len(series), dtype=bool)
    for name in sorted(set(series[number >= 0])):
        rows = np.flatnonzero((series == name) & (number >= 0))
        rows = rows[np.argsort(number[rows], kind="stable")]
        wanted = round(fraction * len(rows))
        if wanted:
            start = draw.integers(0, len(rows) - wanted + 1)
            block = number[rows[start : start + wanted]]
            mask[rows] |= (number[rows] >= block[0]) & (number[rows] <= block[-1])
    return mask if together is None else np.isin(together, np.asarray(together)[mask])

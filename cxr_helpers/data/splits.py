"""Split validation images off the training images, in whole patient groups."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from cxr_helpers.system.errors import DataError

# the split that weights are selected on, by the value of the parameter choose_by
SELECTION = {"group": "validation", "contiguous": "contiguous"}
# Patient groups of normal and of pneumonia. A part of train may be held out again
# (``Dataset.development``), and the detectors need three normal images of the rest.
MINIMUM_GROUPS = {"train": 4, "validation": 1, "contiguous": 1}
FEWEST_TEST = 2  # test images of each class


def clusters(groups: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """Join patient groups that share a duplicate: images of one cluster stay in one split.

    Parameters
    ----------
    groups : array of str, shape (n,)
        Each image's patient group.
    pairs : pandas.DataFrame
        ``first`` and ``second``, positions of duplicates, from ``duplicates.find``.

    Returns
    -------
    ndarray of int, shape (n,)
        The number of the connected component that the image's group is in.
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
    selection: str,
    seed: int,
) -> np.ndarray:
    """Assign training images to train and the two validation splits.

    Parameters
    ----------
    groups, classes : array of str, shape (n,)
        As for ``validation_mask``.
    together : array of int, shape (n,), optional
        From ``clusters``: images of one number stay in one split, whatever their groups.
    validation, contiguous : float
        Target shares, 0 to 0.5: contiguous of all images, validation of the remaining ones.
    selection : str
        The split that weights are selected on, ``"validation"`` or ``"contiguous"``.
    seed : int

    Returns
    -------
    ndarray of str, shape (n,)
        ``train``, ``validation`` or ``contiguous``.

    Raises
    ------
    DataError
        If train has too few patient groups of normal or of pneumonia, or the split that weights
        are selected on has some images but too few groups.
    """
    groups, classes = np.asarray(groups), np.asarray(classes)
    split = np.full(len(groups), "train", dtype=object)
    split[contiguous_mask(groups, together=together, fraction=contiguous, seed=seed)] = "contiguous"
    groups = groups if together is None else np.asarray(together)
    rest = np.flatnonzero(split == "train")
    drawn = validation_mask(groups[rest], classes[rest], fraction=validation, seed=seed)
    split[rest[drawn]] = "validation"
    for name in ("train", *({selection} & set(split))):
        rows = split == name
        _check(
            groups[rows], classes[rows], least=MINIMUM_GROUPS[name], where=f"{name} after splitting"
        )
    return split


def check_test(classes: pd.Series | np.ndarray) -> None:
    """Refuse test images on which a classifier cannot be scored.

    Parameters
    ----------
    classes : array of str, shape (n,)
        Class of each test image.

    Raises
    ------
    DataError
        If fewer than ``FEWEST_TEST`` are normal, or have pneumonia.
    """
    classes = np.asarray(classes)
    normal = int((classes == "normal").sum())
    if min(normal, len(classes) - normal) < FEWEST_TEST:
        raise DataError(
            f"test has {normal} normal images and {len(classes) - normal} with pneumonia that no "
            f"network was trained on: add images, at least {FEWEST_TEST} of each are needed"
        )


def _check(groups: np.ndarray, classes: np.ndarray, *, least: int, where: str) -> int:
    """Return the smaller number of patient groups, of normal or of pneumonia; refuse too few."""
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
            f"too few images of {kind}: {where} needs at least {least} patient groups and has "
            f"{count[fewest]} (copies of test images do not count); add images, or set a smaller "
            "validation_fraction or contiguous_fraction"
        )
    return count[fewest]


def validation_mask(
    groups: np.ndarray, classes: np.ndarray, *, fraction: float, seed: int
) -> np.ndarray:
    """Select whole groups for validation, stratified by class.

    Parameters
    ----------
    groups : array of str or int, shape (n,)
        Images of one group stay together.
    classes : array of str, shape (n,)
        Each image's class.
    fraction : float
        Target share of validation images, 0 (none) to 0.5.
    seed : int
        Of the random draw.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the image is for validation. The share is that of one fold of
        ``StratifiedGroupKFold`` with ``round(1 / fraction)`` folds, or fewer where normal or
        pneumonia has fewer groups. A class with fewer groups than folds stays in train, except for
        groups that it shares with other classes.

    Raises
    ------
    ValueError
        If ``fraction`` is out of range.
    DataError
        If normal, or every class of pneumonia, has fewer than three groups.
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
    _, chosen = next(stratified_folds(classes[common], groups[common], folds=folds, seed=seed))
    mask[common[chosen]] = True
    return np.isin(groups, groups[mask])


def stratified_folds(
    classes: np.ndarray, groups: np.ndarray, *, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to train on and the rows held out of each fold of whole groups, by class.

    ``StratifiedGroupKFold`` shuffles without stratifying before scikit-learn 1.8, so the groups are
    shuffled here: it assigns groups of equal composition in the order of their labels.

    Parameters
    ----------
    classes : array, shape (n,)
        What the folds are stratified by.
    groups : array, shape (n,)
        Images of one group are held out together.
    folds : int
        At least 2.
    seed : int
        Of the order of the groups.

    Yields
    ------
    train, held_out : ndarray of int
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    names, group = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))[group]
    yield from StratifiedGroupKFold(n_splits=folds).split(shuffled, classes, shuffled)


def contiguous_mask(
    groups: np.ndarray, *, together: np.ndarray | None = None, fraction: float, seed: int
) -> np.ndarray:
    """Select a contiguous block of patient numbers in each series, as in the official test set.

    Images of one period share an acquisition style. A random draw of groups puts each style on
    both sides and cannot show how a model fares when the style changes; a block can.

    Parameters
    ----------
    groups : array of str, shape (n,)
        Name of a series followed by a number, such as ``"bacterial 78"``; other groups are never
        selected.
    together : array of int, shape (n,), optional
        From ``clusters``: images in a cluster with one in a block join it, so that a block may
        hold a few images with other patient numbers.
    fraction : float
        Target share of the images of each series, 0 (none) to 0.5.
    seed : int
        Of the random start of each block.

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
    # a group without patient number is named after its file, as in ``class_names``
    parsed = [None if "/" in group else re.fullmatch(r"(.*?)(\d+)", group) for group in groups]
    series = np.array([match[1] if match else "" for match in parsed])
    number = np.array([int(match[2]) if match else -1 for match in parsed])
    mask = np.zeros(len(series), dtype=bool)
    for name in sorted(set(series[number >= 0])):
        rows = np.flatnonzero((series == name) & (number >= 0))
        rows = rows[np.argsort(number[rows], kind="stable")]
        length = round(fraction * len(rows))
        if length:
            start = draw.integers(0, len(rows) - length + 1)
            block = number[rows[start : start + length]]
            mask[rows] |= (number[rows] >= block[0]) & (number[rows] <= block[-1])
    return mask if together is None else np.isin(together, np.asarray(together)[mask])

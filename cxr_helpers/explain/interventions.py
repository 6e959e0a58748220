"""What the score does when a thing in the image is really changed: the strongest explanation there is.

A pair of images differs in one thing. Its effect is the mean change of the log-odds and the share of
predictions that change, with intervals over patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cxr_helpers.explain import removal
from cxr_helpers.explain.explained import Explained
from cxr_helpers.system.blocks import blockwise


class Effect(NamedTuple):
    """What a change does to each image of a network.

    Attributes
    ----------
    change : ndarray of float, shape (n,)
        Log-odds after minus before.
    flipped : ndarray of bool, shape (n,)
        Whether the prediction at the threshold 0.5 is another one.
    """

    change: np.ndarray
    flipped: np.ndarray


def effect(explained: Explained, before: np.ndarray, after: np.ndarray) -> Effect:
    """Return what a change of images does to a network.

    Parameters
    ----------
    explained : Explained
    before, after : ndarray of uint8, shape (n, side, side)
    """
    return _effect(_score(before, explained=explained), _score(after, explained=explained))


def effects(
    explained: Explained,
    originals: np.ndarray,
    experiments: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> dict[str, Effect]:
    """Return what each of several experiments does to a network.

    Parameters
    ----------
    explained : Explained
    originals : ndarray of uint8, shape (n, side, side)
        Scored once, whichever experiments begin with them.
    experiments : mapping of name to (where, before, after)
        Of each, the images of which something is changed, ndarray of bool of shape (n,), and all
        images before and after, as ``originals``; others than those of ``where`` are not scored.
    """
    unchanged, found = _score(originals, explained=explained), {}
    for name, (where, before, after) in experiments.items():
        known = before is originals
        first = unchanged[where] if known else _score(before[where], explained=explained)
        found[name] = _effect(first, _score(after[where], explained=explained))
    return found


def right(explained: Explained, images: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Return whether each prediction at the threshold 0.5 is right: float, shape (n,), 0 or 1.

    Parameters
    ----------
    explained : Explained
    images : ndarray of uint8, shape (n, side, side)
    y_true : ndarray of int, shape (n,)
        1 for pneumonia.
    """
    return ((_score(images, explained=explained) >= 0) == (y_true == 1)).astype(float)


@blockwise
def _score(images: np.ndarray, /, *, explained: Explained) -> np.ndarray:
    return explained.score(explained.prepare(images))


def _effect(first: np.ndarray, second: np.ndarray) -> Effect:
    return Effect(second - first, (first >= 0) != (second >= 0))


@blockwise
def erased(images: np.ndarray, masks: np.ndarray, /, *, margin: int = 1) -> np.ndarray:
    """Return images in which a region was filled from around it.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    masks : ndarray of bool, shape (n, size, size)
    margin : int
        Pixels by which the regions are widened: edges are blurred.

    Returns
    -------
    ndarray of uint8, shape (n, size, size)
    """
    return np.round(removal.pull_push(images, widened(masks, margin))).astype(np.uint8)


def widened(masks: np.ndarray, margin: int) -> np.ndarray:
    """Return masks that reach ``margin`` pixels farther, diagonally too."""
    wide = masks.copy()
    for _ in range(margin):
        for axis in (1, 2):
            ahead, behind = np.roll(wide, 1, axis), np.roll(wide, -1, axis)
            ahead[(slice(None),) * axis + (0,)] = behind[(slice(None),) * axis + (-1,)] = False
            wide = wide | ahead | behind
    return wide


def placebo(masks: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mirrored regions, and where they can serve as a placebo.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, size, size)
    others : ndarray of bool, shape (n, size, size)
        What a placebo must not touch, such as whatever is as bright as a letter.

    Returns
    -------
    mirrored : ndarray of bool, shape (n, size, size)
        At the same height on the other side of the image.
    usable : ndarray of bool, shape (n,)
        Whether the region is not empty, and its mirror image touches nothing of ``others``.
    """
    mirrored = masks[:, :, ::-1]
    return mirrored, masks.any(axis=(1, 2)) & ~(mirrored & others).any(axis=(1, 2))


def transplanted(
    images: np.ndarray, masks: np.ndarray, donors: np.ndarray, *, margin: int = 1
) -> np.ndarray:
    """Return images whose own marker was erased and that have another image's marker.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    masks : ndarray of bool, shape (n, size, size)
        Marker of each image.
    donors : ndarray of int, shape (n,)
        Position of the image whose marker each one gets.

    Returns
    -------
    ndarray of uint8, shape (n, size, size)
        The letter keeps its place, and its brightness above what surrounded it there.
    """
    clean = erased(images, masks, margin=margin)
    return _with_letters(clean, donors, of=(images, clean, masks), margin=margin)


@blockwise
def _with_letters(
    clean: np.ndarray,
    donors: np.ndarray,
    /,
    *,
    of: tuple[np.ndarray, np.ndarray, np.ndarray],
    margin: int,
) -> np.ndarray:
    """Add the letters of donors to images without one.

    ``of`` holds all images with and without their letters, and the masks of these.
    """
    images, without, masks = (array[donors] for array in of)
    letter = images.astype(np.int16) - without
    letter[~widened(masks, margin)] = 0
    return np.clip(clean + letter, 0, 255).astype(np.uint8)


def donors(
    y_true: np.ndarray, groups: np.ndarray, usable: np.ndarray, *, other: bool, seed: int
) -> np.ndarray:
    """Return for each image the position of one of another patient, drawn at random.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
    groups : array of str, shape (n,)
        Patients.
    usable : ndarray of bool, shape (n,)
        Which images may be donors.
    other : bool
        Whether it is of the other class, else of the same.
    seed : int

    Returns
    -------
    ndarray of int, shape (n,)
        -1 where there is none.
    """
    rng, groups = np.random.default_rng(seed), np.asarray(groups)
    found = np.full(len(y_true), -1)
    for i in range(len(y_true)):
        wanted = usable & ((y_true != y_true[i]) == other) & (groups != groups[i])
        if wanted.any():
            found[i] = rng.choice(np.flatnonzero(wanted))
    return found

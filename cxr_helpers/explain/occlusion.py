"""Occlusion maps: how much a score falls when part of the image is covered.

Zeiler & Fergus (2014), *Visualizing and Understanding Convolutional Networks*, ECCV,
doi:10.1007/978-3-319-10590-1_53.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def positions(length: int, *, patch: int, stride: int) -> np.ndarray:
    """Return the first pixel of each patch along one side, so that every pixel is covered.

    The last patch ends at the last pixel, whether or not ``stride`` divides the side.

    Parameters
    ----------
    length, patch, stride : int
        Of the side, the patch and the step, in pixels.

    Returns
    -------
    ndarray of int

    Raises
    ------
    ValueError
        Unless 1 <= stride <= patch <= length.
    """
    if not 1 <= stride <= patch <= length:
        raise ValueError(
            f"patch {patch} and stride {stride} on a side of {length}: "
            "expected 1 <= stride <= patch <= side"
        )
    starts = list(range(0, length - patch + 1, stride))
    if starts[-1] != length - patch:
        starts.append(length - patch)
    return np.array(starts)


def occlusion_map(
    score: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    *,
    patch: int,
    stride: int,
    fill: float | np.ndarray | None = None,
    batch_size: int = 512,
) -> np.ndarray:
    """Return how much the score falls, on average, when a patch covers a pixel.

    Parameters
    ----------
    score : callable
        (m, height, width, 1) float32 to (m,) scores, such as a class probability. Each call
        receives the image, followed by at most ``batch_size`` occluded copies.
    image : ndarray of uint8 or float32, shape (height, width)
        Grey levels, 0 to 255, which are scaled to [0, 1]; float is scored as it is.
    patch, stride : int
        Side of the square patch and its step, in pixels; 1 <= stride <= patch <= side.
    fill : float or ndarray of float, shape (patches,), optional
        Grey level of the patch, or of each in the order of ``corners``, on the scale that is
        scored; the mean of the image by default.
    batch_size : int
        Largest number of occluded copies in one call.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Score of the image minus the mean score of the copies in which the pixel is covered:
        positive where the content of the image raises the score, negative where it lowers it.

    Raises
    ------
    ValueError
        If the image is not two-dimensional, or patch and stride do not fit it.
    """
    if image.ndim != 2:
        raise ValueError(f"image of shape {image.shape}: expected (height, width)")
    height, width = image.shape
    scaled = image.astype(np.float32) / 255.0 if image.dtype == np.uint8 else image
    places = corners(height, width, patch=patch, stride=stride)
    levels = np.broadcast_to(scaled.mean() if fill is None else fill, len(places))
    reference, falls = None, []
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        copies = np.repeat(scaled[None, :, :, None], len(batch) + 1, axis=0)
        for number, (copy, (top, left)) in enumerate(zip(copies[1:], batch, strict=True), first):
            copy[top : top + patch, left : left + patch] = levels[number]
        scores = np.asarray(score(copies), dtype=np.float64).reshape(-1)
        reference = scores[0] if reference is None else reference
        falls += list(reference - scores[1:])
    return mean_fall(falls, places, patch=patch, shape=image.shape)


def corners(height: int, width: int, *, patch: int, stride: int) -> list[tuple[int, int]]:
    """Return the first row and column of each patch, see ``positions``."""
    return [
        (int(top), int(left))
        for top in positions(height, patch=patch, stride=stride)
        for left in positions(width, patch=patch, stride=stride)
    ]


def mean_fall(
    falls: Sequence[float], places: Sequence[tuple[int, int]], *, patch: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return the mean fall of the score over the patches that cover a pixel.

    Parameters
    ----------
    falls : sequence of float
        Of each patch.
    places : sequence of (int, int)
        First row and column of each patch; together they cover every pixel.
    patch : int
        Side of the patches in pixels.
    shape : (int, int)
        Of the image.

    Returns
    -------
    ndarray of float32, of that shape
    """
    total, counts = np.zeros(shape), np.zeros(shape)
    for fall, (top, left) in zip(falls, places, strict=True):
        total[top : top + patch, left : left + patch] += fall
        counts[top : top + patch, left : left + patch] += 1
    return (total / counts).astype(np.float32)

"""Handcrafted features of the chest: energy of fine to coarse detail, and edge directions.

Only the central 76 % of each side is used, which reduces the influence of markers, arms and
collimation; standardising each image there reduces that of exposure. Features are averaged over a
grid of regions in nine placements, shifted by 4 % of the side or not at all: a detector may take
the placement in which an image is closest to the normal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import ndimage

MARGIN, SHIFT = 0.12, 0.04  # of the side: removed at each edge; between placements
REGIONS = 6  # along each axis
SCALES = (1, 2, 4, 8)  # of the Gaussians, in 1/128 of the image's side
DIRECTIONS = 8  # over half a turn
SMALLEST = 32  # pixels: side of an image
_FLOOR = 1e-4  # lowest energy of a region, where the whole chest has 1


def band_energies(images: np.ndarray) -> np.ndarray:
    """Return the energy of four frequency bands in every region.

    A band is the difference of two Gaussian smoothings, as in a Laplacian pyramid (Burt and
    Adelson 1983, doi:10.1109/TCOM.1983.1095851); its energy is its mean square. An opacity hides
    the fine lines of vessels and lowers the energy of the fine bands.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped; ``size`` at least 32.

    Returns
    -------
    ndarray of float32, shape (n, 9, 144)
        By placement (index 4 is the unshifted one), then by region: natural logarithm of the
        energy in four bands, fine to coarse; the standardised image has variance 1.

    Raises
    ------
    ValueError
        If the images are not square, not 8-bit, or too small.
    """

    def bands(chests: np.ndarray, unit: float) -> np.ndarray:
        smooth = [chests] + [
            ndimage.gaussian_filter(chests, (0, s * unit, s * unit)) for s in SCALES
        ]
        return np.stack([(a - b) ** 2 for a, b in pairwise(smooth)], axis=-1)

    return _describe(images, bands, lambda energy: np.log(energy + _FLOOR))


def edge_directions(images: np.ndarray) -> np.ndarray:
    """Return the distribution of edge directions in every region.

    A histogram of oriented gradients (Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177) with one
    normalisation for the whole chest: an opacity obscures the edges of ribs, heart and diaphragm
    where normal images have them.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped; ``size`` at least 32.

    Returns
    -------
    ndarray of float32, shape (n, 9, 288)
        By placement (index 4 is the unshifted one), then by region: square root of the share of
        the total gradient magnitude in each of eight directions; 0 to 1, squares sum to 1 (to 0
        in an image without edges).

    Raises
    ------
    ValueError
        If the images are not square, not 8-bit, or too small.
    """

    def gradients(chests: np.ndarray, unit: float) -> np.ndarray:
        down, across = (
            ndimage.gaussian_filter(chests, (0, unit, unit), order=(0, *order))
            for order in ((1, 0), (0, 1))
        )
        angle = np.arctan2(down, across) / np.pi * DIRECTIONS  # in bins
        half = DIRECTIONS / 2
        offsets = (np.abs((angle - k + half) % DIRECTIONS - half) for k in range(DIRECTIONS))
        magnitude = np.hypot(down, across)
        return np.stack([magnitude * np.maximum(0, 1 - offset) for offset in offsets], -1)

    def shares(strength: np.ndarray) -> np.ndarray:
        total = strength.sum(axis=(2, 3, 4), keepdims=True)
        return np.sqrt(np.divide(strength, total, out=np.zeros_like(strength), where=total > 1e-9))

    return _describe(images, gradients, shares)


def _describe(images: np.ndarray, maps: Callable, finish: Callable) -> np.ndarray:
    """Return regional means of feature maps in all placements, about 128 images at a time."""
    size = images.shape[-1]
    if images.ndim != 3 or images.shape[1] != size or images.dtype != np.uint8 or size < SMALLEST:
        raise ValueError(
            f"images of shape {images.shape} and type {images.dtype}: expected uint8 of shape "
            f"(n, size, size) with a size of at least {SMALLEST}"
        )
    edge, shift = round(MARGIN * size), round(SHIFT * size)
    features, done = np.empty((0,), np.float32), 0
    for part in np.array_split(images, max(1, len(images) // 128)):
        chests = part[:, edge : size - edge, edge : size - edge].astype(np.float32)
        chests -= chests.mean(axis=(1, 2), keepdims=True)
        chests /= chests.std(axis=(1, 2), keepdims=True) + 1
        means = finish(_regions(maps(chests, size / 128), shift))
        means = means.reshape(len(part), means.shape[1], -1)
        if not done:  # parts that were joined at the end would take twice the memory
            features = np.empty((len(images), *means.shape[1:]), np.float32)
        features[done : done + len(part)] = means
        done += len(part)
    return features


def _regions(maps: np.ndarray, shift: int) -> np.ndarray:
    """Return regional means of (n, m, m, c) maps, (n, 9, REGIONS, REGIONS, c)."""
    corners = np.pad(maps, ((0, 0), (1, 0), (1, 0), (0, 0))).cumsum(1, dtype=float).cumsum(2)
    lines = np.rint(np.linspace(shift, maps.shape[1] - shift, REGIONS + 1)).astype(int)
    areas = np.diff(lines)[:, None, None] * np.diff(lines)[None, :, None]
    placements = []
    for down in (-shift, 0, shift):
        for across in (-shift, 0, shift):
            sums = corners[:, lines + down][:, :, lines + across]
            placements.append(np.diff(np.diff(sums, axis=1), axis=2) / areas)
    return np.maximum(np.stack(placements, axis=1), 0)

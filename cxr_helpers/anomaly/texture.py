"""Handcrafted features of the chest: energy of fine to coarse detail by region.

Only the central 70 % of each side is used, which reduces the influence of markers, arms and
collimation; standardising each image there reduces that of exposure. Features are averaged over a
grid of regions in nine placements, shifted by 4 % of the side or not at all: a detector may take
the placement in which an image is closest to the normal ones.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

MARGIN, SHIFT = 0.15, 0.04  # of the side: removed at each edge; between placements
REGIONS = 6  # along each axis
SCALES = (1, 2, 4, 8)  # of the Gaussians, in 1/128 of the image's side
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
    size = images.shape[-1]
    if images.ndim != 3 or images.shape[1] != size or images.dtype != np.uint8 or size < SMALLEST:
        raise ValueError(
            f"images of shape {images.shape} and type {images.dtype}: expected uint8 of shape "
            f"(n, size, size) with a size of at least {SMALLEST}"
        )
    edge, shift = round(MARGIN * size), round(SHIFT * size)
    features = np.empty((len(images), 9, REGIONS * REGIONS * len(SCALES)), np.float32)
    done = 0
    for part in np.array_split(images, max(1, len(images) // 128)):
        chests = part[:, edge : size - edge, edge : size - edge].astype(np.float32)
        chests -= chests.mean(axis=(1, 2), keepdims=True)
        chests /= chests.std(axis=(1, 2), keepdims=True) + 1
        sigmas = [scale * size / 128 for scale in SCALES]
        smooth = [chests] + [ndimage.gaussian_filter(chests, (0, s, s)) for s in sigmas]
        bands = np.stack([(a - b) ** 2 for a, b in pairwise(smooth)], axis=-1)
        energies = np.log(_regions(bands, shift) + _FLOOR)
        features[done : done + len(part)] = energies.reshape(len(part), 9, -1)
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

"""Anomaly by reconstruction error of an autoencoder, and its relation to fine detail."""

from __future__ import annotations

from itertools import pairwise

import keras
import numpy as np
import pandas as pd
from scipy import ndimage

from cxr_helpers.models import training

BANDS = (1, 2, 4, 8)  # standard deviations of the Gaussians between them, in 1/128 of the side
DETAIL = 2  # standard deviation of the Gaussian that removes fine detail, in the same unit
_FLOOR = 1e-9  # lowest error or detail before the logarithm


def reconstruct(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the reconstructions of images.

    Parameters
    ----------
    model : keras.Model
        (n, size, size, 1) to the same shape, in [0, 1].
    images : ndarray of uint8, shape (n, size, size)

    Returns
    -------
    ndarray of float32, shape (n, size, size), range [0, 1]
    """
    return training.predict(model, images)[..., 0]


def reconstruction_error(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return each image's mean squared error between itself and its reconstruction.

    Parameters
    ----------
    model : keras.Model
        (n, size, size, 1) to the same shape, in [0, 1].
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped; a few hundred images at a time are converted to floats.

    Returns
    -------
    ndarray of float64, shape (n,)
        In units of squared grey level, black 0 and white 1.
    """
    errors = [
        np.mean((reconstruct(model, part) - part / np.float32(255)) ** 2, axis=(1, 2), dtype=float)
        for part in np.array_split(images, max(1, len(images) // 512))
    ]
    return np.concatenate(errors)


def error_and_detail(model: keras.Model, images: np.ndarray) -> pd.DataFrame:
    """Return reconstruction errors and fine detail of images, by region and by frequency band.

    Parameters
    ----------
    model : keras.Model
        (n, size, size, 1) to the same shape, in [0, 1].
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped; about a hundred at a time are converted to floats.

    Returns
    -------
    pandas.DataFrame
        One row per image, in units of squared grey level, black 0 and white 1. For each region
        (``whole``; ``outer``, the outer sixth of each side; ``middle``, the rest): ``error
        <region>``, the mean squared error of the reconstruction, and ``detail <region>``, the mean
        square of what a Gaussian filter of 2/128 of the side removes. For each band of a
        Laplacian pyramid (Burt and Adelson 1983, doi:10.1109/TCOM.1983.1095851), between 0, 1, 2,
        4 and 8 of 1/128 of the side: ``energy <upper end>`` of the image and ``lost <upper end>``
        of the difference from its reconstruction.
    """
    size = images.shape[1]
    margin, unit = size // 6, size / 128
    middle = np.zeros((size, size), dtype=bool)
    middle[margin : size - margin, margin : size - margin] = True
    regions = {"whole": np.ones_like(middle), "middle": middle, "outer": ~middle}

    def energies(maps: np.ndarray) -> list[np.ndarray]:
        """Return the mean square of each band of each map."""
        blurred = [maps, *(_blurred(maps, scale * unit) for scale in BANDS)]
        return [np.mean((fine - coarse) ** 2, axis=(1, 2)) for fine, coarse in pairwise(blurred)]

    tables = []
    for part in np.array_split(images, max(1, len(images) // 128)):
        inputs = part / np.float32(255)
        difference = inputs - reconstruct(model, part)
        detail = (inputs - _blurred(inputs, DETAIL * unit)) ** 2
        columns = {}
        for name, region in regions.items():
            columns[f"error {name}"] = (difference**2)[:, region].mean(axis=1, dtype=float)
            columns[f"detail {name}"] = detail[:, region].mean(axis=1, dtype=float)
        columns |= {f"energy {b}": e for b, e in zip(BANDS, energies(inputs), strict=True)}
        columns |= {f"lost {b}": e for b, e in zip(BANDS, energies(difference), strict=True)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def log_error_and_detail(error: np.ndarray, detail: np.ndarray) -> np.ndarray:
    """Return the natural logarithms of error and detail, ndarray of float64, shape (n, 2).

    Both are ndarrays of float, shape (n,), at least 0, see ``error_and_detail``.
    """
    return np.log(np.maximum(np.column_stack([error, detail]), _FLOOR))


def _blurred(maps: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(maps, (0, sigma, sigma))

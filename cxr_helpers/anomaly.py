"""Anomaly by reconstruction error: how badly an autoencoder redraws a film."""

from __future__ import annotations

import keras
import numpy as np

from cxr_helpers import training


def reconstruct(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return what the autoencoder makes of some films.

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
    """Return each film's mean squared error between itself and its reconstruction.

    Parameters
    ----------
    model : keras.Model
        (n, size, size, 1) to the same shape, in [0, 1].
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped; a few hundred films at a time are held as floats.

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

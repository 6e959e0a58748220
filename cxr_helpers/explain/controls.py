"""Maps that cannot know a network's answer to an image: what any explanation has to be better than.

Each function takes images, ndarray of shape (n, size, size), and returns maps of that shape.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def noise(images: np.ndarray, *, seed: int, sigma: float = 0.0) -> np.ndarray:
    """Return white noise, smoothed by a Gaussian of ``sigma`` pixels where that is above 0."""
    drawn = np.random.default_rng(seed).standard_normal(images.shape).astype(np.float32)
    smooth = drawn if sigma == 0 else ndimage.gaussian_filter(drawn, (0, sigma, sigma))
    return smooth - smooth.min(axis=(1, 2), keepdims=True)


def centred(images: np.ndarray) -> np.ndarray:
    """Return a Gaussian in the middle of the image, with a quarter of the side as deviation."""
    axis = (np.arange(images.shape[1]) + 0.5) / images.shape[1] - 0.5
    profile = np.exp(-8 * axis**2).astype(np.float32)
    return np.repeat((profile[:, None] * profile)[None], len(images), axis=0)


def edges(images: np.ndarray) -> np.ndarray:
    """Return the magnitude of the Sobel gradient."""
    values = np.asarray(images, dtype=np.float32)
    down, across = (ndimage.sobel(values, axis=axis) for axis in (1, 2))
    return np.hypot(down, across)


def of_other_images(maps: np.ndarray) -> np.ndarray:
    """Return for each image the mean of the other images' maps.

    Raises
    ------
    ValueError
        If there is one map only.
    """
    if len(maps) < 2:
        raise ValueError("1 map: the mean of the others needs at least two")
    return (maps.sum(axis=0) - maps) / (len(maps) - 1)

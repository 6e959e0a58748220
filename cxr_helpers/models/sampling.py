"""Which images are drawn: weights of the training images, and a sample of many images."""

from __future__ import annotations

import numpy as np

MANY = 20_000  # images of a run: above, some of them stand for all
REFERENCES = 10_000  # training images that others are compared with
EXPLAINED = 2_000  # test images that chapters 3 and 7 change or take things away from


def subsample(n: int, *, of: int, seed: int, most: int | None = None) -> np.ndarray:
    """Return which of some images are used: all of them or, in a run with many images, a sample.

    The time of a search for nearest neighbours among them is then proportional to the number of
    images that are compared with them, and the memory of experiments on them is bounded.

    Parameters
    ----------
    n : int
        Number of images.
    of : int
        Number of images of the run: up to ``MANY``, all are used.
    seed : int
        Of the sample.
    most : int, optional
        Number of images in the sample, ``REFERENCES`` by default, or all ``n`` if they are fewer.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    most = REFERENCES if most is None else most
    if of <= MANY or n <= most:
        return np.ones(n, dtype=bool)
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(seed).choice(n, most, replace=False)] = True
    return chosen


def balanced(category: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return sampling weights with which every class is drawn equally often.

    Parameters
    ----------
    category : ndarray of int, shape (n,)
        Class of each image, 0 or more.
    weights : ndarray of float, shape (n,), optional
        How often an image is drawn relative to the others of its class; equally often by default.

    Returns
    -------
    ndarray of float, shape (n,), sum 1
    """
    weights = np.ones(len(category)) if weights is None else np.asarray(weights, dtype=float)
    totals = np.bincount(category, weights)
    return weights / totals[category] / np.count_nonzero(totals)

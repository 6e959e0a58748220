"""Which images are drawn: weights of the training images, and references among many images."""

from __future__ import annotations

import numpy as np

MANY = 20_000  # images of a run: above, new images are compared with some of the training images
REFERENCES = 10_000  # that they are compared with


def references(n: int, *, of: int, seed: int) -> np.ndarray:
    """Return which of some images serve as references: all of them, or a sample among many images.

    The time of a search for nearest neighbours, exact among the references, is then proportional to
    the number of images that are compared with them.

    Parameters
    ----------
    n : int
        Number of images that may serve.
    of : int
        Number of images of the run: up to ``MANY``, all serve.
    seed : int
        Of the sample, of ``REFERENCES`` images or all ``n``.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if of <= MANY or n <= REFERENCES:
        return np.ones(n, dtype=bool)
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(seed).choice(n, REFERENCES, replace=False)] = True
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

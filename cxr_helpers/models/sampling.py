"""Sampling weights: how often each training image is drawn."""

from __future__ import annotations

import numpy as np


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

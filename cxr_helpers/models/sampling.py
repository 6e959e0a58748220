"""Sampling weights: how often each training image is drawn."""

from __future__ import annotations

import numpy as np


def balanced(category: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return chances that draw every class equally often.

    Parameters
    ----------
    category : array of int, shape (n,)
        Class of each image, 0 or more.
    weights : array of float, shape (n,), optional
        How often an image is drawn beside the others of its class; equally often without it.

    Returns
    -------
    ndarray of float, shape (n,), sum 1
    """
    weights = np.ones(len(category)) if weights is None else np.asarray(weights, dtype=float)
    totals = np.bincount(category, weights)
    return weights / totals[category] / np.count_nonzero(totals)

"""Functions of many images, computed for a few of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np

SIZE = 64  # images at once


def blockwise(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Let a function see a few images at a time: what it needs besides its result is needed for these only.

    Parameters
    ----------
    function : callable
        Takes one or several arrays with an image in each row, by position, and options by name, which
        are the same for all images; returns an array with a row for each image, which depends on the
        same rows of its arrays only.
    """

    @wraps(function)
    def in_blocks(*arrays: np.ndarray, **options: object) -> np.ndarray:
        starts = range(0, len(arrays[0]), SIZE)
        if len(starts) < 2:
            return function(*arrays, **options)
        first = function(*(array[:SIZE] for array in arrays), **options)
        found = np.empty((len(arrays[0]), *first.shape[1:]), first.dtype)
        found[:SIZE] = first
        for start in starts[1:]:
            part = slice(start, start + SIZE)
            found[part] = function(*(array[part] for array in arrays), **options)
        return found

    return in_blocks

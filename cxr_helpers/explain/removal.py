"""Removal curves: what happens to the score when pixels are taken away in the order of a map.

The symmetric relevance gain (Blücher, Vielhaben and Strodthoff 2024, *Decoupling Pixel Flipping and
Occlusion Strategy for Consistent XAI Benchmarks*, TMLR) is the area between two curves: pixels are
removed from the least relevant on, and from the most relevant on. It hardly depends on what removed
pixels are filled with, as the area under one curve does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from scipy import ndimage
from threadpoolctl import ThreadpoolController

from cxr_helpers.explain.explained import Explained
from cxr_helpers.models.prefetching import ahead

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the pixels that are removed
BLUR = 1 / 8  # standard deviation of the Gaussian blur, share of the image's side
IN_CACHE = 32  # images that are filled at once: more of them no longer fit a processor's cache


def blurred(images: np.ndarray) -> np.ndarray:
    """Return images blurred so far that no structure is left: ndarray, shape (n, size, size)."""
    sigma = BLUR * images.shape[1]
    return ndimage.gaussian_filter(np.asarray(images, np.float32), (0, sigma, sigma))


def pull_push(images: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Return images whose removed pixels are interpolated from those that are left.

    Means of the pixels that are left are pulled up a pyramid of halved images until no cell is
    empty; empty cells are then filled from the coarser image, level by level, and smoothed
    (Gortler et al. 1996, *The Lumigraph*, SIGGRAPH). It approximates the harmonic fill, whose
    exact solution costs a linear system for each image.

    Parameters
    ----------
    images : ndarray of float or uint8, shape (n, size, size)
    removed : ndarray of bool, shape (n, size, size)

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        Where everything is removed, the mean of the image.
    """
    images, filled = np.asarray(images), np.empty(images.shape, np.float32)
    # the products are small: more threads gain nothing, and their busy waiting slows TensorFlow down
    with _thread_pools().limit(limits=1, user_api="blas"):
        for start in range(0, len(images), IN_CACHE):
            some = slice(start, start + IN_CACHE)
            filled[some] = _pull_push(images[some].astype(np.float32), removed[some])
    return filled


def _pull_push(images: np.ndarray, removed: np.ndarray) -> np.ndarray:
    kept = (~removed).astype(np.float32)
    filled = _filled(images * kept, kept)
    empty = kept.sum(axis=(1, 2)) == 0
    filled[empty] = images[empty].mean(axis=(1, 2), keepdims=True)
    return np.where(removed, filled, images)


@cache
def _thread_pools() -> ThreadpoolController:
    """Return the pools of threads of the libraries that are loaded; to look for them takes a while."""
    return ThreadpoolController()


def _filled(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return values, weighted sums divided by their weights, with empty pixels filled."""
    values = sums / np.maximum(weights, 1e-6)
    n, height, width = values.shape
    if max(height, width) == 1:
        return values
    pad = ((0, 0), (0, height % 2), (0, width % 2))
    halves = (-(-height // 2), -(-width // 2))

    def halved(x: np.ndarray) -> np.ndarray:
        return np.pad(x, pad).reshape(n, halves[0], 2, halves[1], 2).sum(axis=(2, 4))

    pulled, weight = halved(values * weights), halved(weights)
    scale = np.minimum(weight, 1) / np.maximum(weight, 1e-6)  # a cell counts once at most
    coarse = _filled(pulled * scale, weight * scale)
    down, across = (
        _between(half, length) for half, length in zip(halves, (height, width), strict=True)
    )
    fine = down @ coarse @ across.T
    share = np.minimum(weights, 1)
    return share * values + (1 - share) * fine


def _between(cells: int, pixels: int) -> np.ndarray:
    """Return the weights of linear interpolation between halved cells, shape (pixels, cells)."""
    at = np.clip((np.arange(pixels) + 0.5) / 2 - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)


Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _by_blur(images: np.ndarray) -> Fill:
    smooth = blurred(images)
    return lambda rows, removed: np.where(removed, smooth[rows], images[rows])


def _by_interpolation(images: np.ndarray) -> Fill:
    return lambda rows, removed: pull_push(images[rows], removed)


# Each takes images, and returns a function of positions of images and of the removed pixels.
FILLS: Mapping[str, Callable[[np.ndarray], Fill]] = {
    "blurred": _by_blur,
    "interpolated": _by_interpolation,
}


def ranks(maps: np.ndarray) -> np.ndarray:
    """Return the rank of each pixel of each map, as a share of the pixels.

    Parameters
    ----------
    maps : ndarray of float, shape (n, size, size)

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        Near 0 for the highest value, 1 for the lowest; ties in a random order that is the same
        for every map.
    """
    n, pixels = len(maps), maps[0].size
    tie = np.random.default_rng(0).permutation(pixels)
    flat = maps.reshape(n, pixels)[:, tie]
    order = np.argsort(-flat, axis=1, kind="stable")
    found = np.empty((n, pixels), dtype=np.float32)
    places = np.broadcast_to(np.arange(1, pixels + 1, dtype=np.float32) / pixels, (n, pixels))
    np.put_along_axis(found, tie[order], places, axis=1)
    return found.reshape(maps.shape)


def endpoints(explained: Explained, prepared: np.ndarray, *, fill: str) -> np.ndarray:
    """Return the log-odds with nothing and with everything removed, where all curves begin and end.

    Parameters are those of ``curves``.

    Returns
    -------
    ndarray of float32, shape (2, n)
    """
    everything = np.ones(prepared.shape, bool)
    filled = FILLS[fill](prepared)(np.arange(len(prepared)), everything)
    return np.stack([explained.score(prepared), explained.score(filled)])


def curves(
    explained: Explained,
    prepared: np.ndarray,
    maps: np.ndarray,
    *,
    fill: str,
    ends: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-odds while pixels are removed, and while the least relevant are.

    Parameters
    ----------
    explained : Explained
    prepared : ndarray of float32, shape (n, size, size)
    maps : ndarray of float, shape (n, size, size)
        Signed where they are: the highest values are the most relevant.
    fill : str
        Of ``FILLS``.
    ends : ndarray of float, shape (2, n)
        From ``endpoints``: the same for all maps.

    Returns
    -------
    most_first, least_first : ndarray of float32, shape (n, len(SHARES))
    """
    order, n, inner = ranks(maps), len(prepared), SHARES[1:-1]
    removed = [order <= share for share in inner] + [order > 1 - share for share in inner]
    removed = np.concatenate(removed)
    repeated, filled = np.tile(np.arange(n), len(removed) // n), FILLS[fill](prepared)
    batch_size = explained.batch_size
    batches = (
        filled(repeated[k : k + batch_size], removed[k : k + batch_size])
        for k in range(0, len(removed), batch_size)
    )
    scores = np.concatenate([explained.score(batch) for batch in ahead(batches)])
    halves = np.split(scores.reshape(-1, n), 2)
    most, least = (np.vstack([ends[0], half, ends[1]]).T for half in halves)
    return most, least


def relevance_gain(most_first: np.ndarray, least_first: np.ndarray) -> np.ndarray:
    """Return the symmetric relevance gain of each image: ndarray of float, shape (n,).

    The area between the curves of ``curves``, in units of the score; 0 is chance.
    """
    return np.trapezoid(least_first - most_first, SHARES, axis=1)

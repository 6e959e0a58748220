"""Maps that attribute the log-odds of pneumonia to the pixels of an image, by gradients.

Each function takes an ``Explained`` network and prepared images, ndarray of float32 of shape
(n, size, size), and returns maps of that shape. Positive: raises the log-odds.
"""

from __future__ import annotations

import numpy as np

from cxr_helpers.explain import gradcam
from cxr_helpers.explain.explained import Explained

TOLERANCE = 0.01  # shortfall of integrated gradients
REFINED = 2  # times, at most, that the intervals of their integral are divided in three


def absolute_gradient(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    """Return the absolute gradient: to which pixels the score is most sensitive, in any direction.

    Simonyan, Vedaldi and Zisserman (2014), *Deep Inside Convolutional Networks*, ICLR workshop.
    """
    return np.abs(explained.gradient(prepared))


def integrated_gradients(
    explained: Explained,
    prepared: np.ndarray,
    *,
    steps: int = 32,
    tolerance: float | None = TOLERANCE,
) -> np.ndarray:
    """Return integrated gradients from an image of the image's own mean grey level.

    The values of a map sum to the score of the image minus that of its baseline, up to the error
    of the integral (Sundararajan, Taly and Yan 2017, *Axiomatic Attribution for Deep Networks*,
    ICML). The integral is a sum over the midpoints of equal intervals. Each interval is divided in
    three, up to ``REFINED`` times, for the images whose map does not sum to this difference: the
    earlier midpoints are among the later ones.

    Parameters
    ----------
    explained : Explained
    prepared : ndarray of float32, shape (n, size, size)
    steps : int
        Intervals at first.
    tolerance : float, optional
        Largest ``shortfall`` of a map. None: no interval is divided.
    """
    difference = prepared - baseline(prepared)
    maps, gradients = np.empty_like(prepared), np.zeros_like(prepared)
    rows, numerators = np.arange(len(prepared)), 2 * np.arange(steps) + 1
    for _ in range(1 if tolerance is None else 1 + REFINED):
        shares = (numerators / (2 * steps)).astype(np.float32)
        at_once = max(1, explained.batch_size // len(shares))
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            rest = (1 - shares[:, None, None]) * difference[some, None]
            paths = (prepared[some, None] - rest).reshape(-1, *prepared.shape[1:])
            gradients[some] += explained.gradient(paths).reshape(rest.shape).sum(axis=1)
        maps[rows] = difference[rows] * gradients[rows] / steps
        if tolerance is not None:
            rows = rows[shortfall(explained, prepared[rows], maps[rows]) > tolerance]
        if not len(rows):
            break
        steps *= 3  # every third midpoint is there already
        numerators = 2 * np.delete(np.arange(steps), np.s_[1::3]) + 1
    return maps


def shortfall(explained: Explained, prepared: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return by how much the sums of integrated gradients miss what they should be.

    Parameters
    ----------
    explained : Explained
    prepared, maps : ndarray of float32, shape (n, size, size)

    Returns
    -------
    ndarray of float, shape (n,)
        Absolute difference between the sum of a map and the score of its image minus that of its
        baseline, as a share of the latter; of 1 where that is below 1, in units of the log-odds.
    """
    expected = explained.score(prepared) - explained.score(baseline(prepared))
    sums = maps.sum(axis=(1, 2), dtype=float)
    return np.abs(sums - expected) / np.maximum(np.abs(expected), 1)


def baseline(prepared: np.ndarray) -> np.ndarray:
    """Return images of each image's mean grey level."""
    means = prepared.mean(axis=(1, 2), keepdims=True)
    return np.broadcast_to(means, prepared.shape)


def grad_cam(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    """Return Grad-CAM maps: feature maps weighted by their mean gradient, and the positive part.

    Selvaraju et al. (2017), see ``gradcam``.
    """
    return _weighted(explained, prepared, by_position=False)


def hires_cam(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    """Return HiResCAM maps: feature maps times their gradient at each position, the positive part.

    Grad-CAM averages the gradient over all positions first, and so may show positions that the
    network did not use where a layer with a weight for each position follows (Draelos and Carin
    2020, *Use HiResCAM instead of Grad-CAM for faithful explanations*, arXiv:2011.08891). Where
    only global average pooling and one dense layer follow, both are equal.
    """
    return _weighted(explained, prepared, by_position=True)


def _weighted(explained: Explained, prepared: np.ndarray, *, by_position: bool) -> np.ndarray:
    maps = [
        gradcam.weighted(features, gradients, by_position=by_position)
        for features, gradients in explained.features(prepared)
    ]
    centres = gradcam.cell_centres(explained.model, explained.feature_map)
    return gradcam.upsampled(np.concatenate(maps), centres, explained.size)

"""Maps that attribute the log-odds of pneumonia to the pixels of an image, by gradients.

Each function takes an ``Explained`` network and prepared images, ndarray of float32 of shape
(n, size, size), and returns maps of that shape. Positive: raises the log-odds.
"""

from __future__ import annotations

import numpy as np

from cxr_helpers.explain import gradcam
from cxr_helpers.explain.explained import Explained


def absolute_gradient(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    """Return the absolute gradient: to which pixels the score is most sensitive, in any direction.

    Simonyan, Vedaldi and Zisserman (2014), *Deep Inside Convolutional Networks*, ICLR workshop.
    """
    return np.abs(explained.gradient(prepared))


def integrated_gradients(
    explained: Explained, prepared: np.ndarray, *, steps: int = 32
) -> np.ndarray:
    """Return integrated gradients from an image of the image's own mean grey level.

    The values of a map sum to the score of the image minus that of its baseline, up to the error
    of the integral (Sundararajan, Taly and Yan 2017, *Axiomatic Attribution for Deep Networks*,
    ICML). The integral is a sum over the midpoints of ``steps`` equal intervals.
    """
    maps = np.empty_like(prepared)
    shares = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    at_once = max(1, explained.batch_size // steps)
    for start in range(0, len(prepared), at_once):
        images = prepared[start : start + at_once]
        differences = images - baseline(images)
        paths = images[:, None] - (1 - shares[:, None, None]) * differences[:, None]
        gradients = explained.gradient(paths.reshape(-1, *images.shape[1:])).reshape(paths.shape)
        maps[start : start + at_once] = differences * gradients.mean(axis=1)
    return maps


def baseline(prepared: np.ndarray) -> np.ndarray:
    """Return images of each image's mean grey level."""
    means = prepared.mean(axis=(1, 2), keepdims=True)
    return np.broadcast_to(means, prepared.shape)


def grad_cam(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    """Return Grad-CAM maps: feature maps weighted by their mean gradient, and the positive part.

    Selvaraju et al. (2017), see ``gradcam``.
    """
    features, gradients = explained.features(prepared)
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    return _on_image(explained, np.maximum((weights * features).sum(axis=-1), 0))


def hires_cam(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    """Return HiResCAM maps: feature maps times their gradient at each position, the positive part.

    Grad-CAM averages the gradient over all positions first, and so may show positions that the
    network did not use where a layer with a weight for each position follows (Draelos and Carin
    2020, *Use HiResCAM instead of Grad-CAM for faithful explanations*, arXiv:2011.08891). Where
    only global average pooling and one dense layer follow, both are equal.
    """
    features, gradients = explained.features(prepared)
    return _on_image(explained, np.maximum((gradients * features).sum(axis=-1), 0))


def _on_image(explained: Explained, maps: np.ndarray) -> np.ndarray:
    centres = gradcam.cell_centres(explained.model, explained.feature_map)
    return gradcam.upsampled(maps, centres, explained.size)

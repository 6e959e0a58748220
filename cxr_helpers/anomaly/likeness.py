"""In which respects an image is unlike the training images, so that no prediction can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxr_helpers.data import decoding

ORDINARY = 99.0  # percentage of the training images that are not unlike the others
LAYOUT = 16  # pixels


@dataclass(frozen=True)
class Likeness:
    """Measures in which respects images are unlike the training images of a run.

    Attributes
    ----------
    anomaly_score : callable
        Images, ndarray of uint8 of shape (n, size, size) and the run's image size, to the score of
        chapter 4 (the mean of both distances from normal images), shape (n,).
    anomaly_limit : float
        ``ORDINARY`` % of the training images with pneumonia (of a sample, among many) are nearer to the
        normal ones.
    mean_image : ndarray of float, shape (LAYOUT, LAYOUT)
        Of the training images.
    least_correlation : float
        Of an image with the mean image: lower than in ``ORDINARY`` % of the training images.
    brightness : (float, float)
        Range of the mean grey level of ``ORDINARY`` % of the training images.
    """

    anomaly_score: Callable[[np.ndarray], np.ndarray]
    anomaly_limit: float
    mean_image: np.ndarray
    least_correlation: float
    brightness: tuple[float, float]

    def differences(self, images: np.ndarray) -> list[str]:
        """Return in which respects each image is unlike the training images, empty where in none.

        *Detail* is how much of each scale there is in each region, whatever its sign; *layout* is
        where the image is bright and dark, so that inverted grey levels and an image that was turned
        are noticed; *brightness* is the mean grey level.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, size, size)
            Of the run's image size.
        """
        small = _layout(images)
        brightness = small.mean(axis=(1, 2))
        low, high = self.brightness
        unlike = {
            "detail": self.anomaly_score(images) > self.anomaly_limit,
            "layout": _correlation(small, self.mean_image) < self.least_correlation,
            "brightness": (brightness < low) | (brightness > high),
        }
        return [", ".join(name for name in unlike if unlike[name][i]) for i in range(len(images))]


def fit(
    images: np.ndarray,
    *,
    anomaly_score: Callable[[np.ndarray], np.ndarray],
    anomaly_limit: float,
) -> Likeness:
    """Return what compares images with training images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        Training images.
    anomaly_score, anomaly_limit
        Of the result.
    """
    small = _layout(images)
    mean_image, rest = small.mean(axis=0), (100 - ORDINARY) / 2
    low, high = np.percentile(small.mean(axis=(1, 2)), [rest, 100 - rest])
    correlation = _correlation(small, mean_image)
    least = float(np.percentile(correlation, 100 - ORDINARY))
    return Likeness(anomaly_score, anomaly_limit, mean_image, least, (float(low), float(high)))


def _layout(images: np.ndarray) -> np.ndarray:
    """Return images so small that only the layout is left: float, shape (n, LAYOUT, LAYOUT)."""
    return decoding.resize(images, LAYOUT).astype(float)


def _correlation(images: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the correlation of images with one image; 0 for a constant image."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    own = (image - image.mean()).ravel()
    size = np.linalg.norm(flat, axis=1) * np.linalg.norm(own)
    return np.divide(flat @ own, size, out=np.zeros(len(flat)), where=size > 0)

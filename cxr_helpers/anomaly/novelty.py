"""Anomaly by distance from normal images, in any description of them (one-class detection).

Fitted on normal images alone; what an anomaly looks like is never shown. An image may be
described several times, for instance with its regions shifted a little: its distance is then
the least of them, so that standing askew is not an anomaly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

_CONSTANT = 1e-6  # a feature that varies less is not scaled up


@dataclass(frozen=True)
class Detector:
    """What is known of normal images.

    Attributes
    ----------
    centre, spread : ndarray, shape (d,)
        Mean and standard deviation of every feature of the normal images.
    model : sklearn estimator
        Fitted on the standardised features.
    neighbours : int
        How many near images count; 0 for the Mahalanobis distance.
    typical : (float, float)
        Mean and standard deviation of the logarithm of the distances of the images fitted: for
        neighbours with the image itself left out, for the Gaussian with it, so that there new
        normal images score a little above 0.
    """

    centre: np.ndarray
    spread: np.ndarray
    model: NearestNeighbors | LedoitWolf
    neighbours: int
    typical: tuple[float, float] = (0.0, 1.0)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return how far images are from the normal ones.

        Parameters
        ----------
        features : ndarray of float, shape (n, d) or (n, placements, d)

        Returns
        -------
        ndarray of float64, shape (n,), at least 0
            The least over the placements, in standard deviations of a feature.

        Raises
        ------
        ValueError
            If there are not as many features as in the images fitted.
        """
        return self._distances(features).min(axis=1)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return how anomalous images are, on a scale that several detectors share.

        Parameters
        ----------
        features : ndarray of float, shape (n, d) or (n, placements, d)

        Returns
        -------
        ndarray of float64, shape (n,)
            Logarithm of the distance, standardised: near 0 for an image like those fitted, in
            their standard deviations; higher is more anomalous. The scores of several
            detectors may be averaged.
        """
        mean, deviation = self.typical
        return (_logarithm(self.distance(features)) - mean) / deviation

    def _distances(self, features: np.ndarray, *, own: bool = False) -> np.ndarray:
        """Return distances by image and placement; ``own``: of the images fitted themselves."""
        features = np.asarray(features)
        if features.ndim not in (2, 3) or features.shape[-1] != len(self.centre):
            raise ValueError(
                f"features of shape {features.shape}: expected (n, {len(self.centre)}) or "
                f"(n, placements, {len(self.centre)})"
            )
        rows = ((features - self.centre) / self.spread).reshape(-1, len(self.centre))
        if not self.neighbours:
            found = np.sqrt(self.model.mahalanobis(rows))
        else:
            near, which = self.model.kneighbors(rows, self.neighbours + own)
            if own:  # an image is no neighbour of itself
                images = np.arange(len(rows)) // (len(rows) // len(features))
                near = np.sort(np.where(which == images[:, None], np.inf, near), axis=1)
            found = near[:, : self.neighbours].mean(axis=1)
        return found.reshape(len(features), -1)


def nearest_normals(features: np.ndarray, *, neighbours: int = 3) -> Detector:
    """Fit the mean distance to the nearest normal images.

    Ramaswamy et al. (2000), doi:10.1145/342009.335437; for images Bergman, Cohen and Hoshen
    (2020), arXiv:2002.10445.

    Parameters
    ----------
    features : ndarray of float, shape (n, d) or (n, placements, d)
        Of normal images; with placements, the middle one is what others are compared with.
    neighbours : int
        At least 1; all other images where there are fewer.

    Returns
    -------
    Detector

    Raises
    ------
    ValueError
        If there are fewer than three images, no neighbour, or a value that is not finite.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; expected at least 1")
    rows, centre, spread = _standardised(features)
    model = NearestNeighbors(algorithm="brute").fit(rows)
    return _gauged(Detector(centre, spread, model, min(neighbours, len(rows) - 1)), features)


def mahalanobis(features: np.ndarray) -> Detector:
    """Fit one Gaussian to normal images: the distance counts their standard deviations.

    The covariance is shrunk as much as Ledoit and Wolf (2004, doi:10.1016/S0047-259X(03)00096-4)
    find best, so that there may be fewer images than features. For images: Rippel, Mertens and
    Merhof (2021), arXiv:2005.14140.

    Parameters
    ----------
    features : ndarray of float, shape (n, d) or (n, placements, d)
        Of normal images; with placements, the Gaussian is fitted to the middle one.

    Returns
    -------
    Detector

    Raises
    ------
    ValueError
        If there are fewer than three images, or a value that is not finite.
    """
    rows, centre, spread = _standardised(features)
    return _gauged(Detector(centre, spread, LedoitWolf().fit(rows), 0), features)


def _standardised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features = np.asarray(features)
    if features.ndim not in (2, 3) or len(features) < 3 or not np.isfinite(features).all():
        raise ValueError(
            f"features of shape {features.shape}: expected finite values of at least 3 images, "
            "(n, d) or (n, placements, d)"
        )
    rows = features if features.ndim == 2 else features[:, features.shape[1] // 2]
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    spread = np.where(spread < _CONSTANT, 1, spread)
    return (rows - centre) / spread, centre, spread


def _gauged(detector: Detector, features: np.ndarray) -> Detector:
    """Return the detector with the scale of its scores, from the images it was fitted on."""
    usual = _logarithm(detector._distances(features, own=True).min(axis=1))
    typical = (float(usual.mean()), max(float(usual.std()), _CONSTANT))
    return replace(detector, typical=typical)


def _logarithm(distance: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(distance, _CONSTANT))

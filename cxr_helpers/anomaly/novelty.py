"""One-class detection: anomaly as distance from normal images in a feature space.

Detectors are fitted on normal images alone and never see an anomaly. An image may have several
feature vectors, for instance from slightly shifted regions (placements): its distance is then the
smallest of them, so that a shifted patient position is not an anomaly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

AT_ONCE = 20_000  # images whose features are standardised and compared at a time
_CONSTANT = 1e-6  # a feature with a smaller standard deviation is not scaled


@dataclass(frozen=True)
class Detector:
    """A fitted detector.

    Attributes
    ----------
    centre, spread : ndarray, shape (d,)
        Mean and standard deviation of each feature over the normal images.
    model : sklearn estimator
        Fitted on the standardised features.
    neighbours : int
        Number of nearest neighbours; 0 for the Mahalanobis distance.
    typical : (float, float)
        Mean and standard deviation of the log distance of the images it was fitted on. Nearest
        neighbours leave the image itself out; the Gaussian includes it, so that new normal images
        score above 0: by about 1 with 500 images of 144 features, by 10 with 50.
    """

    centre: np.ndarray
    spread: np.ndarray
    model: NearestNeighbors | LedoitWolf
    neighbours: int
    typical: tuple[float, float] = (0.0, 1.0)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return the distance of images from the normal ones.

        Parameters
        ----------
        features : ndarray of float, shape (n, d) or (n, placements, d)

        Returns
        -------
        ndarray of float64, shape (n,), at least 0
            Minimum over the placements, in standard deviations of a feature.

        Raises
        ------
        ValueError
            If the number of features differs from that at fitting.
        """
        return self._distances(features).min(axis=1)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return the anomaly score of images, on a scale common to all detectors.

        Parameters
        ----------
        features : ndarray of float, shape (n, d) or (n, placements, d)

        Returns
        -------
        ndarray of float64, shape (n,)
            Log distance, standardised over the images of fitting, see ``typical``; higher for anomalous
            images. Scores of several detectors may be averaged: fitted on few images, that of the
            Gaussian varies more and so has more weight.
        """
        mean, deviation = self.typical
        return (_logarithm(self.distance(features)) - mean) / deviation

    def _distances(self, features: np.ndarray, *, fitting: bool = False) -> np.ndarray:
        """Return distances by image and placement; ``fitting``: of the images of fitting."""
        features = np.asarray(features)
        if features.ndim not in (2, 3) or features.shape[-1] != len(self.centre):
            raise ValueError(
                f"features of shape {features.shape}: expected (n, {len(self.centre)}) or "
                f"(n, placements, {len(self.centre)})"
            )
        starts = range(0, max(1, len(features)), AT_ONCE)
        return np.concatenate(
            [self._of_block(features[i : i + AT_ONCE], i if fitting else None) for i in starts]
        )

    def _of_block(self, features: np.ndarray, first: int | None) -> np.ndarray:
        """Return distances of some images; ``first``: position of these among those of fitting."""
        rows = ((features - self.centre) / self.spread).reshape(-1, len(self.centre))
        if not self.neighbours:
            distances = np.sqrt(self.model.mahalanobis(rows))
        else:
            near, which = self.model.kneighbors(rows, self.neighbours + (first is not None))
            if first is not None:  # an image is not its own neighbour
                images = first + np.arange(len(rows)) // (len(rows) // len(features))
                near = np.sort(np.where(which == images[:, None], np.inf, near), axis=1)
            distances = near[:, : self.neighbours].mean(axis=1)
        return distances.reshape(len(features), -1)


def nearest_normals(features: np.ndarray, *, neighbours: int = 3) -> Detector:
    """Fit a detector by mean distance to the nearest normal images.

    For images Bergman, Cohen and Hoshen (2020), arXiv:2002.10445; Ramaswamy et al. (2000),
    doi:10.1145/342009.335437, take the distance to the last of them instead of the mean.

    Parameters
    ----------
    features : ndarray of float, shape (n, d) or (n, placements, d)
        Features of normal images; with placements, the middle one is fitted.
    neighbours : int
        At least 1; limited to the number of other images.

    Returns
    -------
    Detector

    Raises
    ------
    ValueError
        If there are fewer than three images, ``neighbours`` is below 1, or a value is not finite.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; expected at least 1")
    rows, centre, spread = _standardised(features)
    model = NearestNeighbors(algorithm="brute").fit(rows)
    return _with_scale(Detector(centre, spread, model, min(neighbours, len(rows) - 1)), features)


def mahalanobis(features: np.ndarray) -> Detector:
    """Fit a detector by Mahalanobis distance from a Gaussian of the normal images.

    The covariance is shrunk (Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4), so that
    there may be fewer images than features. For images: Rippel, Mertens and Merhof (2021),
    arXiv:2005.14140.

    Parameters
    ----------
    features : ndarray of float, shape (n, d) or (n, placements, d)
        Features of normal images; with placements, the middle one is fitted.

    Returns
    -------
    Detector

    Raises
    ------
    ValueError
        If there are fewer than three images, or a value is not finite.
    """
    rows, centre, spread = _standardised(features)
    return _with_scale(Detector(centre, spread, LedoitWolf().fit(rows), 0), features)


def _standardised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the standardised features of the middle placement, their mean and deviation."""
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


def _with_scale(detector: Detector, features: np.ndarray) -> Detector:
    """Return the detector with the scale of its scores, from the images it was fitted on."""
    distances = _logarithm(detector._distances(features, fitting=True).min(axis=1))
    typical = (float(distances.mean()), max(float(distances.std()), _CONSTANT))
    return replace(detector, typical=typical)


def _logarithm(distance: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(distance, _CONSTANT))

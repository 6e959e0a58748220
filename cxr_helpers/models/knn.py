"""Nearest neighbours: one estimator for the choice of k and for the scores with that k."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier


def classifier(
    points: np.ndarray, labels: np.ndarray, *, k: int, **options
) -> KNeighborsClassifier:
    """Return scikit-learn's classifier, fitted on the images of known class.

    Parameters
    ----------
    points : ndarray of float, shape (n, d)
        Embeddings.
    labels : ndarray of int, shape (n,)
        Classes; images of unknown class, labelled below 0, do not vote.
    k : int
        Number of neighbours that vote, at least 1. If there are fewer images, all of them vote,
        and ``n_neighbors`` of the result is their number.
    **options
        ``metric`` and ``weights`` of ``KNeighborsClassifier``; by default Euclidean distance and
        equal votes.

    Raises
    ------
    ValueError
        If no image has a known class, or ``k`` is below 1.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    known = labels >= 0
    if k < 1 or not known.any():
        raise ValueError(f"k = {k} among {known.sum()} images of known class: expected 1 or more")
    if not known.all():  # otherwise a copy, for nothing
        points, labels = points[known], labels[known]
    return KNeighborsClassifier(min(k, len(labels)), **options).fit(points, labels)

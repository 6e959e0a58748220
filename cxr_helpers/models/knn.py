"""Nearest neighbours: one estimator for the choice of k and for the scores that use it."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier


def classifier(points: np.ndarray, labels: np.ndarray, *, k: int, **how) -> KNeighborsClassifier:
    """Return scikit-learn's classifier, fitted on the images whose class is known.

    Parameters
    ----------
    points : ndarray of float, shape (n, d)
        Embeddings.
    labels : ndarray of int, shape (n,)
        Classes; images below 0, of unknown class, have no vote.
    k : int
        Neighbours that vote, at least 1. Where there are fewer images, all of them do:
        ``n_neighbors`` of the result says how many.
    how : optional
        ``metric`` and ``weights`` of ``KNeighborsClassifier``; by default Euclidean distance and
        equal votes.

    Raises
    ------
    ValueError
        If no class is known, or ``k`` is below 1.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    known = labels >= 0
    if k < 1 or not known.any():
        raise ValueError(f"k = {k} among {known.sum()} images of known class: expected 1 of each")
    vote = KNeighborsClassifier(min(k, int(known.sum())), **how)
    return vote.fit(points[known], labels[known])

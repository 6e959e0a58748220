"""Nearest neighbours: one estimator for the choice of k and for the scores with that k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
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


def accuracy_by_k(
    points: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    y_true: np.ndarray,
    *,
    ks: Sequence[int],
    **options,
) -> dict[int, float]:
    """Return the accuracy with several numbers of neighbours; distances are computed once.

    Where distances are equal, other neighbours may vote than in ``classifier`` with that number.

    Parameters
    ----------
    points, labels, **options
        As for ``classifier``.
    queries : ndarray of float, shape (m, d)
        Embeddings of the images to classify.
    y_true : ndarray of int, shape (m,)
        Their classes.
    ks : sequence of int
        Numbers of neighbours, each at least 1.

    Returns
    -------
    dict of int to float
        By the number of neighbours that vote, at most that of the images of known class.

    Raises
    ------
    ValueError
        As for ``classifier``.
    """
    known = np.asarray(labels) >= 0
    nearest = classifier(points, labels, k=max(ks), **options)
    graph = nearest.kneighbors_graph(queries, mode="distance")
    # scikit-learn asks for the distances between voters, too, but uses only the shape
    voters = sparse.identity(known.sum(), format="csr")
    options |= {"metric": "precomputed"}
    accuracy = {}
    for k in dict.fromkeys(min(k, nearest.n_neighbors) for k in ks):
        votes = KNeighborsClassifier(k, **options).fit(voters, np.asarray(labels)[known])
        accuracy[k] = votes.score(graph, y_true)
    return accuracy

"""Baseline from metadata alone: the stored size of an image, without any pixel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier


def size_features(index: pd.DataFrame) -> np.ndarray:
    """Return features of the stored size: log width, log height, and aspect ratio.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        ``width`` and ``height`` in pixels.

    Returns
    -------
    ndarray of float, shape (n, 3)
    """
    width, height = (index[name].to_numpy(dtype=float) for name in ("width", "height"))
    return np.column_stack([np.log(width), np.log(height), width / height])


def size_baseline(
    train: pd.DataFrame, labels: np.ndarray, queries: pd.DataFrame, *, classes: int, seed: int
) -> np.ndarray | None:
    """Return class probabilities predicted from the stored size alone.

    The model is gradient-boosted trees (scikit-learn), fitted on the training images.

    Parameters
    ----------
    train : pandas.DataFrame, n rows
        ``width`` and ``height`` in pixels.
    labels : array of int, shape (n,)
        The classes of ``train``, 0 to ``classes`` - 1; some may not occur.
    queries : pandas.DataFrame, m rows
        The images to predict, with the same columns.
    classes, seed : int

    Returns
    -------
    ndarray of float, shape (m, classes), or None
        Rows sum to 1; column k is class k, 0 where ``train`` has no image of it. None where all
        training images have the same size, so that size is not informative.
    """
    features = size_features(train)
    if (features == features[0]).all():
        return None
    model = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, random_state=seed)
    model.fit(features, labels)
    predicted = model.predict_proba(size_features(queries))
    probabilities = np.zeros((len(queries), classes))
    # where train has a single class, scikit-learn returns two columns
    probabilities[:, model.classes_] = predicted[:, : len(model.classes_)]
    return probabilities

"""What the metadata of an image give away without a pixel: its stored size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier


def size_features(index: pd.DataFrame) -> np.ndarray:
    """Return what is known of an image without a pixel: log width, log height, aspect.

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
    train: pd.DataFrame, labels: np.ndarray, asked: pd.DataFrame, *, classes: int, seed: int
) -> np.ndarray | None:
    """Return what the stored size alone says of an image's class.

    Gradient-boosted trees (scikit-learn), fitted on train.

    Parameters
    ----------
    train, asked : pandas.DataFrame
        ``width`` and ``height`` in pixels.
    labels : array of int, shape (n,)
        The classes of ``train``, 0 to ``classes`` - 1; some may not occur.
    asked : pandas.DataFrame, m rows
        The images to judge.
    classes, seed : int

    Returns
    -------
    ndarray of float, shape (m, classes), rows sum to 1; column k is class k, 0 where train has no
    image of it. None where all images of train have one size, so that size tells nothing.
    """
    features = size_features(train)
    if (features == features[0]).all():
        return None
    model = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, random_state=seed)
    model.fit(features, labels)
    found = np.zeros((len(asked), classes))
    # of one class alone scikit-learn returns two columns
    found[:, model.classes_] = model.predict_proba(size_features(asked))[:, : len(model.classes_)]
    return found

"""Films by what their frame says against what they are: where leaning on style fails."""

from __future__ import annotations

import numpy as np
import pandas as pd

SMALLEST = 5  # films: the accuracy of fewer says nothing


def contradicts(index: pd.DataFrame) -> np.ndarray:
    """Say of which films the frame speaks for the other of normal and pneumonia.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        ``class_name`` and ``frame_normal``, the frame's probability of normal, 0 to 1.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    return ((index["frame_normal"] < 0.5) != (index["class_name"] != "normal")).to_numpy()


def worst(index: pd.DataFrame, right: np.ndarray) -> float:
    """Return the accuracy in the worst of four groups: normal or pneumonia, frame for or against.

    Sagawa et al. (2020), *Distributionally robust neural networks for group shifts*.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        As for ``contradicts``.
    right : array of bool, shape (n,)
        Whether the film's prediction was right.

    Returns
    -------
    float
        Over the groups of at least ``SMALLEST`` films; NaN where there is none.
    """
    normal = (index["class_name"] == "normal").to_numpy()
    against = contradicts(index)
    found = [
        np.mean(right[mask])
        for is_normal in (True, False)
        for is_against in (True, False)
        if (mask := (normal == is_normal) & (against == is_against)).sum() >= SMALLEST
    ]
    return float(min(found, default=np.nan))

"""Cut a validation split from the training images, a patient group at a time."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


def validation_mask(
    groups: np.ndarray, classes: np.ndarray, *, fraction: float, seed: int
) -> np.ndarray:
    """Choose whole groups for validation, stratified by class.

    Parameters
    ----------
    groups : array of str, shape (n,)
        Images of one group are never parted.
    classes : array of str, shape (n,)
        Each image's class.
    fraction : float
        Wanted share of validation images, 0 (none) to 0.5.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the image is for validation. The share is that of one fold of
        ``StratifiedGroupKFold`` with ``round(1 / fraction)`` folds.

    Raises
    ------
    ValueError
        If ``fraction`` is out of range, or there are fewer groups in a class than folds.
    """
    if not 0 <= fraction <= 0.5:
        raise ValueError(f"validation fraction {fraction} is out of range: expected 0 to 0.5")
    groups, classes = np.asarray(groups), np.asarray(classes)
    mask = np.zeros(len(groups), dtype=bool)
    if fraction == 0:
        return mask
    folds = round(1 / fraction)
    for name in np.unique(classes):
        count = len(np.unique(groups[classes == name]))
        if count < folds:
            raise ValueError(
                f"class {str(name)!r} has {count} patient groups in train; a validation share of "
                f"{fraction:g} needs at least {folds}"
            )
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    _, chosen = next(splitter.split(groups, classes, groups))
    mask[chosen] = True
    return mask

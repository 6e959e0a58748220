"""What the border of an image gives away: a network that sees little of the lung.

Image style (markers, stamps, tone, collimation) goes with the class in this dataset. A network
that sees only the border gives a lower bound on how far; the images whose border contradicts their
label are where a network that leans on style would fail (see ``frame_groups``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from cxr_helpers.data import decoding
from cxr_helpers.models import architectures, training
from cxr_helpers.models.augmentation import Augmentation
from cxr_helpers.models.sampling import balanced

SIZE = 64  # pixels: style needs no detail


def black_out(images: np.ndarray, share: float) -> np.ndarray:
    """Return copies of images with their centre blacked out.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    share : float
        Side of the black square, share of the image's, 0 to 1.

    Raises
    ------
    ValueError
        If ``share`` is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} of the blacked-out centre is out of range: 0 to 1")
    side = images.shape[1]
    margin = round(side * (1 - share) / 2)
    blacked_out = images.copy()
    blacked_out[:, margin : side - margin, margin : side - margin] = 0
    return blacked_out


def network(classes: int) -> keras.Model:
    """Return the untrained network that sees borders: a small ``models.residual_cnn``."""
    return architectures.residual_cnn(SIZE, widths=(16, 32, 64), classes=classes)


def cross_fit(
    images: np.ndarray,
    category: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int,
    share: float,
    epochs: int,
    seed: int,
    folds: int = 4,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> tuple[np.ndarray, list[keras.Model]]:
    """Return what the border alone says of training images, each judged by a network new to it.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        Whole groups are left out in turn (cross-fitting), so that the answer for an image comes
        from a network trained without its patient.
    category : array of int, shape (n,)
        Class of each, from 0; -1, unknown, is judged but not learnt from.
    groups : array of str, shape (n,)
    classes : int
    share : float
        Side of the blacked-out centre.
    epochs, seed : int
    folds : int
        Fewer are made where a known class has fewer groups.
    log : callable, optional
        Gets a line of text a fold.
    checkpoint : callable, optional
        As for ``training.fit``.

    Returns
    -------
    probabilities : ndarray of float32, shape (n, classes)
        Where the classes are equally frequent.
    networks : list of keras.Model
        One a fold, for ``judge``.
    """
    category, groups = np.asarray(category), np.asarray(groups)
    known = category >= 0
    sizes = [len(np.unique(groups[category == c])) for c in np.unique(category[known])]
    folds = min([folds, *sizes])
    blacked_out = black_out(decoding.shrink(images, SIZE), share)
    found = np.zeros((len(images), classes), np.float32)
    networks = []
    strata = np.where(known, category, classes - 1)  # an unknown kind is some pneumonia
    splitter = StratifiedGroupKFold(n_splits=max(2, folds), shuffle=True, random_state=seed)
    for fold, (learn, held) in enumerate(splitter.split(images, strata, groups)):
        learn = learn[category[learn] >= 0]
        steps = -(-len(learn) // 32)
        networks.append(network(classes))
        networks[-1].compile(
            training.adamw(
                steps=epochs * steps, warmup=steps, learning_rate=0.003, weight_decay=0.02
            ),
            "categorical_crossentropy",
        )
        training.fit(
            networks[-1],
            blacked_out[learn],
            keras.utils.to_categorical(category[learn], classes),
            epochs=epochs,
            batch_size=32,
            seed=seed + fold,
            augmentation=Augmentation(rotation=4, shift=0.03),
            sampling_weights=balanced(category[learn]),
            average=0.99,
            checkpoint=checkpoint,
        )
        found[held] = training.predict(networks[-1], blacked_out[held])
        if log is not None:
            log(f"border-only network {fold + 1}/{folds}")
    return found, networks


def predict(networks: Sequence[keras.Model], images: np.ndarray, *, share: float) -> np.ndarray:
    """Return the mean of what some networks say of images' borders, shape (n, classes)."""
    if not len(images):
        return np.zeros((0, networks[0].output_shape[-1]), np.float32)
    blacked_out = black_out(decoding.shrink(images, SIZE), share)
    return np.mean([training.predict(network, blacked_out) for network in networks], axis=0)

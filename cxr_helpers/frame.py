"""What the frame of a film gives away: a network that sees little of the lung.

Film style (markers, stamps, tone, collimation) goes with the class in this dataset. A network
that sees only the frame gives a lower bound on how far; the films whose frame contradicts their
label are where a network that leans on style would fail (see ``frame_groups``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from cxr_helpers import images, models, training
from cxr_helpers.augmentation import Augmentation

SIZE = 64  # pixels: style needs no detail


def black_out(films: np.ndarray, share: float) -> np.ndarray:
    """Return copies of films with their centre blacked out.

    Parameters
    ----------
    films : ndarray of uint8, shape (n, size, size)
    share : float
        Side of the black square, share of the film's, 0 to 1.

    Raises
    ------
    ValueError
        If ``share`` is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} of the blacked-out centre is out of range: 0 to 1")
    side = films.shape[1]
    margin = round(side * (1 - share) / 2)
    framed = films.copy()
    framed[:, margin : side - margin, margin : side - margin] = 0
    return framed


def network(classes: int) -> keras.Model:
    """Return the untrained network that sees frames: a small ``models.residual_cnn``."""
    return models.residual_cnn(SIZE, widths=(16, 32, 64), classes=classes)


def cross_fit(
    films: np.ndarray,
    category: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int,
    share: float,
    epochs: int,
    seed: int,
    folds: int = 4,
    report: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> tuple[np.ndarray, list[keras.Model]]:
    """Return what the frame alone says of training films, each judged by a network new to it.

    Parameters
    ----------
    films : ndarray of uint8, shape (n, size, size)
        Whole groups are left out in turn (cross-fitting), so that the answer for a film comes
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
    report : callable, optional
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
    framed = black_out(images.shrink(films, SIZE), share)
    found = np.zeros((len(films), classes), np.float32)
    networks = []
    strata = np.where(known, category, classes - 1)  # an unknown kind is some pneumonia
    splitter = StratifiedGroupKFold(n_splits=max(2, folds), shuffle=True, random_state=seed)
    for fold, (learn, held) in enumerate(splitter.split(films, strata, groups)):
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
            framed[learn],
            keras.utils.to_categorical(category[learn], classes),
            epochs=epochs,
            batch_size=32,
            seed=seed + fold,
            augmentation=Augmentation(rotation=4, shift=0.03),
            chances=balanced(category[learn]),
            average=0.99,
            checkpoint=checkpoint,
        )
        found[held] = training.predict(networks[-1], framed[held])
        if report is not None:
            report(f"frame-only network {fold + 1}/{folds}")
    return found, networks


def judge(networks: Sequence[keras.Model], films: np.ndarray, *, share: float) -> np.ndarray:
    """Return the mean of what some networks say of films' frames, shape (n, classes)."""
    if not len(films):
        return np.zeros((0, networks[0].output_shape[-1]), np.float32)
    framed = black_out(images.shrink(films, SIZE), share)
    return np.mean([training.predict(network, framed) for network in networks], axis=0)


def balanced(category: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return chances that draw every class equally often.

    Parameters
    ----------
    category : array of int, shape (n,)
        Class of each film, 0 or more.
    weights : array of float, shape (n,), optional
        How often a film is drawn beside the others of its class; equally often without it.

    Returns
    -------
    ndarray of float, shape (n,), sum 1
    """
    weights = np.ones(len(category)) if weights is None else np.asarray(weights, dtype=float)
    totals = np.bincount(category, weights)
    return weights / totals[category] / np.count_nonzero(totals)

"""Border-only networks: how well the border of an image, with little of the lung, predicts its class.

Image style (markers, stamps, exposure, collimation) is associated with the class in this dataset.
The accuracy of a network that sees only the border estimates that association: the border still
contains some lung, and style reaches into the centre too. On images whose border predicts a class
other than their own, a network that relies on style would fail (see ``evaluation.shortcut_groups``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from cxr_helpers.data import decoding
from cxr_helpers.data.splits import stratified_folds
from cxr_helpers.models import architectures, training
from cxr_helpers.models.augmentation import Augmentation
from cxr_helpers.models.sampling import balanced

SIZE = 64  # pixels: style is visible without detail


class Stage(Protocol):
    """What trains or copies models, such as ``cxr_helpers.pipeline.stages.Stage``."""

    earlier: Path | None

    def save(self, name: str, write: Callable) -> None:
        """Write an artifact as ``write(path)``."""

    def earlier_names(self, pattern: str) -> list[str]:
        """Return the names of the artifacts of the earlier run that match a pattern."""

    def copy_earlier(self, name: str) -> Path:
        """Copy an artifact of the earlier run; return the path of the copy."""

    def log(self, line: str) -> None:
        """Show a line of progress."""

    def checkpoint(self, key: str) -> Path:
        """Return the path of the training of this key."""


def black_out(images: np.ndarray, centre_share: float) -> np.ndarray:
    """Return copies of images with their centre blacked out.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    centre_share : float
        Side of the black square as a fraction of the image's side, 0 to 1.

    Returns
    -------
    ndarray of uint8, shape (n, size, size)

    Raises
    ------
    ValueError
        If ``centre_share`` is out of range.
    """
    if not 0 <= centre_share <= 1:
        raise ValueError(f"centre_share {centre_share} is out of range: expected 0 to 1")
    side = images.shape[1]
    margin = round(side * (1 - centre_share) / 2)
    blacked_out = images.copy()
    blacked_out[:, margin : side - margin, margin : side - margin] = 0
    return blacked_out


def network(classes: int) -> keras.Model:
    """Return an untrained border network: a small ``architectures.residual_cnn``."""
    return architectures.residual_cnn(SIZE, widths=(16, 32, 64), classes=classes)


def cross_fit(
    images: np.ndarray,
    category: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int,
    centre_share: float,
    epochs: int,
    seed: int,
    folds: int = 4,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> tuple[np.ndarray, list[keras.Model]]:
    """Return out-of-fold predictions of training images from their border alone.

    Whole patient groups are left out in turn (cross-fitting): the network that predicts an image
    was trained without its patient group.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        Training images.
    category : ndarray of int, shape (n,)
        Class of each image, from 0. Images of unknown class, -1, are predicted but not trained
        on.
    groups : ndarray of str, shape (n,)
        Patient group of each image.
    classes : int
        Number of classes.
    centre_share : float
        Side of the blacked-out centre as a fraction of the image's side, 0 to 1.
    epochs, seed : int
        Training epochs of each network; seed of folds, initial order and augmentation.
    folds : int
        Number of folds, at least 2, at most the number of groups of the class with the fewest.
    log : callable, optional
        Receives a line of text after each fold.
    checkpoint : callable, optional
        As for ``training.fit``.

    Returns
    -------
    probabilities : ndarray of float32, shape (n, classes)
        For equal class frequencies, since every class is sampled equally often in training.
    networks : list of keras.Model
        One for each fold, for ``predict``.
    """
    category, groups = np.asarray(category), np.asarray(groups)
    known = category >= 0
    sizes = [len(np.unique(groups[category == c])) for c in np.unique(category[known])]
    folds = max(2, min([folds, *sizes]))
    blacked_out = black_out(decoding.shrink(images, SIZE), centre_share)
    probabilities = np.zeros((len(images), classes), np.float32)
    networks = []
    strata = np.where(known, category, classes - 1)  # an unknown class is a kind of pneumonia
    splits = stratified_folds(strata, groups, folds=folds, seed=seed)
    steps = -(-known.sum() * (folds - 1) // folds // 32)
    trained = network(classes)
    trained.compile(
        training.adamw(steps=epochs * steps, warmup=steps, learning_rate=0.003, weight_decay=0.02),
        "categorical_crossentropy",
    )
    for fold, (train, held_out) in enumerate(splits):
        train = train[category[train] >= 0]
        networks.append(network(classes))
        training.restart(trained, like=networks[-1])
        training.fit(
            trained,
            blacked_out[train],
            keras.utils.to_categorical(category[train], classes),
            epochs=epochs,
            batch_size=32,
            seed=seed + fold,
            augmentation=Augmentation(rotation=4, shift=0.03),
            sampling_weights=balanced(category[train]),
            average=0.99,
            checkpoint=checkpoint,
        )
        networks[-1].set_weights(trained.get_weights())
        probabilities[held_out] = training.predict(networks[-1], blacked_out[held_out])
        if log is not None:
            log(f"border-only network {fold + 1}/{folds}")
    return probabilities, networks


def fit_or_load(
    stage: Stage, fit: Callable[..., tuple[np.ndarray, list[keras.Model]]], *, earlier: np.ndarray
) -> tuple[np.ndarray, list[keras.Model]]:
    """Return what ``cross_fit`` returns, and save the networks; or those of an earlier run.

    Parameters
    ----------
    stage : Stage
        Where it scores the models of an earlier run, its networks are copied and nothing is trained.
    fit : callable
        ``cross_fit`` with all its arguments but ``log`` and ``checkpoint``.
    earlier : ndarray of float, shape (n, classes)
        Predictions of the training images by the earlier run, which are then returned.
    """
    if stage.earlier is None:
        probabilities, networks = fit(log=stage.log, checkpoint=stage.checkpoint)
        for number, trained in enumerate(networks):
            stage.save(f"border{number}.weights.h5", trained.save_weights)
        return probabilities, networks
    saved = stage.earlier_names("border*.weights.h5")
    networks = [network(np.shape(earlier)[1]) for _ in saved]
    for trained, name in zip(networks, saved, strict=True):
        trained.load_weights(stage.copy_earlier(name))
    return earlier, networks


def predict(
    networks: Sequence[keras.Model], images: np.ndarray, *, centre_share: float
) -> np.ndarray:
    """Return the mean of border networks' predictions, shape (n, classes)."""
    if not len(images):
        return np.zeros((0, networks[0].output_shape[-1]), np.float32)
    blacked_out = black_out(decoding.shrink(images, SIZE), centre_share)
    return np.mean([training.predict(network, blacked_out) for network in networks], axis=0)

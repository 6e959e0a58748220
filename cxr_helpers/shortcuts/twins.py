"""Twins: two networks that differ only in whether the marker revealed the class in training.

Both start from the same weights and see the same patients in the same order, with faint lesions. In
the images of one of them the size and position of the marker depend on the class. Whether it really
relies on the marker, and the other does not, is measured by exchanging the marker; only then do the
twins show whether an explanation reveals the shortcut (Adebayo et al. 2022, *Post hoc Explanations may
be Ineffective for Detecting Unknown Spurious Correlation*, ICLR).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from cxr_helpers.models import architectures, training
from cxr_helpers.models.augmentation import Augmentation
from cxr_helpers.phantoms import rendering

SIZE = 64  # pixels
CONTRAST = 0.5  # of the lesions
BIAS = {"marker reveals the class": 1.0, "marker is independent": 0.0}  # marker_bias in training
RELIES = 0.5  # log-odds by which exchanging the marker moves a network that relies on it, at least
LEVELS = (0.075, 0.925)  # of the marker, normal and pneumonia: the means with a marker_bias of 1


class Twins(NamedTuple):
    """The weights of two networks, and the images on which they are compared.

    Attributes
    ----------
    weights : dict of str to list of ndarray
        Of each, by the names of ``BIAS``.
    images : ndarray of uint8, shape (n, SIZE, SIZE)
        Test phantoms with the marker of their own class.
    exchanged : ndarray of uint8, shape (n, SIZE, SIZE)
        The same with the marker of the other class, drawn again.
    markers : ndarray of int, shape (n, 4)
        Boxes of the markers in ``images``, see ``localization.box_masks``.
    y_true : ndarray of int, shape (n,)
    groups : ndarray of str, shape (n,)
        Patients.
    """

    weights: dict[str, list[np.ndarray]]
    images: np.ndarray
    exchanged: np.ndarray
    markers: np.ndarray
    y_true: np.ndarray
    groups: np.ndarray


def network() -> keras.Model:
    """Return the network that each twin is, with initial weights."""
    return architectures.binary_cnn(SIZE)


def train(
    *,
    n_images: int,
    epochs: int,
    seed: int,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> Twins:
    """Train both twins, small versions of the published binary network.

    Parameters
    ----------
    n_images : int
        Phantoms; half of them, in whole patients, are for training.
    epochs : int
        Of each training.
    seed : int
        Of the phantoms, the weights and the trainings.
    log, checkpoint : optional
        ``log`` receives a line for each training; ``checkpoint`` as for ``training.fit``.
    """
    known = {"n": n_images, "size": SIZE, "seed": seed, "lesion_contrast": CONTRAST}
    splits = {"train": 0.5, "test": 0.5}
    keras.utils.set_random_seed(seed)
    initial, trained, weights = network(), network(), {}
    trained.compile(keras.optimizers.Adam(0.002), "binary_crossentropy")
    (relying, bias), (other, no_bias) = BIAS.items()
    biased = rendering.render(marker_bias=bias, splits=splits, **known)
    in_train = (biased.index["split"] == "train").to_numpy()
    y_true = (biased.index["class_name"] != "normal").to_numpy(dtype=int)
    of_train = biased.index[in_train]
    images_of = {
        relying: biased.images[in_train],
        other: rendering.redraw(of_train, splits=splits, marker_bias=no_bias, **known),
    }
    for name, images in images_of.items():
        training.restart(trained, like=initial)
        training.fit(
            trained,
            images,
            y_true[in_train, None],
            epochs=epochs,
            batch_size=16,
            seed=seed,
            augmentation=Augmentation(flip=False, shift=0.02, rotation=2.0),
            checkpoint=checkpoint,
        )
        weights[name] = trained.get_weights()
        if log is not None:
            log(f"twins {len(weights)}/{len(BIAS)} · {name}")
    test = biased.index[~in_train].reset_index(drop=True)
    y_test = y_true[~in_train]
    changes = [{"marker": LEVELS[1 - label]} for label in y_test]
    exchanged = rendering.redraw(test, splits=splits, marker_bias=bias, changes=changes, **known)
    boxes = test[["marker_x0", "marker_y0", "marker_x1", "marker_y1"]].to_numpy()
    groups = (test["class_name"] + " " + test["patient"].astype(str)).to_numpy()
    return Twins(weights, biased.images[~in_train], exchanged, boxes, y_test, groups)

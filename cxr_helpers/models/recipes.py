"""How classifiers are trained, by default on random crops, and how they predict whole images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxr_helpers.data import decoding
from cxr_helpers.models import embeddings, training
from cxr_helpers.models.augmentation import RandomResizedCrop


@dataclass(frozen=True)
class Recipe:
    """Settings of a training on random resized crops.

    Attributes
    ----------
    epochs, batch_size : int
    learning_rate, weight_decay : float
        Of AdamW, with a linear warm-up and a cosine decay of the rate.
    crop_sizes : sequence of int
        Side of the crops in pixels. Several sizes share the epochs equally, in this order: small
        crops first make the early epochs faster (Tan and Le 2021, *EfficientNetV2*, ICML).
    crop_area : float
        Smallest crop, as a share of the image's area.
    crop_style : float
        Strength of changes of style, 0 to 1, see ``RandomResizedCrop``.
    warmup : int
        Epochs of warm-up.
    label_smoothing : float
    average : float
        Decay per step of the moving average of the weights, which the network ends with.
    """

    epochs: int = 30
    batch_size: int = 48
    learning_rate: float = 0.0025
    weight_decay: float = 0.03
    crop_sizes: Sequence[int] = (96,)
    crop_area: float = 0.1
    crop_style: float = 0.0
    warmup: int = 2
    label_smoothing: float = 0.05
    average: float = 0.998

    def size(self, epoch: int) -> int:
        """Return the side of the crops in an epoch, counted from 0."""
        return self.crop_sizes[epoch * len(self.crop_sizes) // self.epochs]

    def augmentation(self) -> list[RandomResizedCrop]:
        """Return how the images of each epoch are augmented."""
        sizes = (self.size(epoch) for epoch in range(self.epochs))
        settings = {"area": self.crop_area, "style": self.crop_style}
        return [RandomResizedCrop(size, **settings) for size in sizes]


def fit(
    model: keras.Model,
    images: np.ndarray,
    one_hot: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    sampling_weights: np.ndarray | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    augmentation: object | None = None,
    compiled: bool = False,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> pd.DataFrame:
    """Compile and train a classifier; return its learning curves, as ``training.fit`` does.

    Parameters
    ----------
    model : keras.Model
        (n, size, size, 1) float in [0, 1] to (n, classes) probabilities; for the sizes of the
        crops, or, with another augmentation, for that of the images.
    images : ndarray of uint8, shape (n, larger, larger)
        Images to take crops of.
    one_hot : ndarray of float, shape (n, classes)
    recipe : Recipe
    seed : int
        Of the order and the crops.
    sampling_weights, validation, log, checkpoint : optional
        As for ``training.fit``.
    augmentation : optional
        Instead of the recipe's crops, as for ``training.fit``.
    compiled : bool
        Whether an earlier call with as many images compiled the model, see ``training.restart``.

    Raises
    ------
    ValueError, FloatingPointError
        As ``training.fit`` does.
    """
    steps = -(-len(images) // recipe.batch_size)
    if not compiled:
        model.compile(
            training.adamw(
                steps=recipe.epochs * steps,
                warmup=recipe.warmup * steps,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
            ),
            keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            metrics=["accuracy"],
        )
    return training.fit(
        model,
        images,
        one_hot,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=seed,
        augmentation=augmentation or recipe.augmentation(),
        sampling_weights=sampling_weights,
        average=recipe.average,
        validation=validation,
        log=log,
        checkpoint=checkpoint,
    )


def predict(
    model: keras.Model, images: np.ndarray, *, of_crops: keras.Model | None = None
) -> np.ndarray:
    """Return the mean of the predictions for images and for their mirror images.

    Parameters
    ----------
    model : keras.Model
        (n, size, size, 1) float in [0, 1] to (n, classes) probabilities.
    images : ndarray of uint8, shape (n, size, size)
    of_crops : keras.Model, optional
        The same network for crops: half of the result is then the mean over ten crops, see
        ``embeddings.over_crops``.

    Returns
    -------
    ndarray of float, shape (n, classes), range [0, 1]
    """
    mirrored = training.predict(model, images[:, :, ::-1])
    whole = (training.predict(model, images) + mirrored) / 2
    if of_crops is None:
        return whole
    last = of_crops.layers[-1].name
    return (whole + embeddings.over_crops(of_crops, images, layers=[last])[last]) / 2


def probabilities(
    model: keras.Model,
    images: np.ndarray,
    *,
    size: int,
    mirrored: bool = False,
    of_crops: keras.Model | None = None,
) -> np.ndarray:
    """Return a classifier's probabilities for images of any size.

    Parameters
    ----------
    model : keras.Model
        Predicts one probability, of pneumonia, or one for each class, the first of which is normal.
    images : ndarray of uint8, shape (n, side, side)
    size : int
        To which the images are resized.
    mirrored : bool
        Whether the predictions for the mirror images are averaged in.
    of_crops : keras.Model, optional
        As for ``predict``; the mirror images are then averaged in too.

    Returns
    -------
    ndarray of float, shape (n, outputs), range [0, 1]
    """
    images = decoding.resize(images, size)
    if mirrored or of_crops is not None:
        return predict(model, images, of_crops=of_crops)
    return training.predict(model, images)


def pneumonia_probability(model: keras.Model, images: np.ndarray, **options) -> np.ndarray:
    """Return ``pneumonia(probabilities(model, images, **options))``."""
    return pneumonia(probabilities(model, images, **options))


def pneumonia(y_prob: np.ndarray) -> np.ndarray:
    """Return the probability of pneumonia, shape (n,).

    Parameters
    ----------
    y_prob : ndarray of float, shape (n, outputs) or (n,)
        The probability of pneumonia, or of several classes, the first of which is normal.
    """
    if y_prob.ndim == 1:
        return y_prob
    return y_prob[:, 0] if y_prob.shape[1] == 1 else 1 - y_prob[:, 0]

"""Training on memory-mapped images: exact order, cheap augmentation, one line an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """Random rotation, horizontal flip and shift, as in the course report.

    Attributes
    ----------
    rotation : float
        Largest rotation to either side, in degrees, 0 to 180.
    shift : float
        Largest shift along each axis, as a share of the image's side, 0 to 1.
    flip : bool
        Whether half of the images are mirrored left to right.
    """

    rotation: float = 10.0
    shift: float = 0.1
    flip: bool = True

    def layer(self, seed: int) -> keras.Sequential:
        """Return a layer for (n, size, size, 1) floats; what leaves the frame turns black."""
        black = {"fill_mode": "constant", "fill_value": 0.0, "dtype": "float32"}
        steps: list[keras.Layer] = []
        if self.flip:
            steps.append(keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
        if self.rotation:
            steps.append(keras.layers.RandomRotation(self.rotation / 360, seed=seed + 1, **black))
        if self.shift:
            steps.append(
                keras.layers.RandomTranslation(self.shift, self.shift, seed=seed + 2, **black)
            )
        return keras.Sequential(steps or [keras.layers.Identity()])


def batches(
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    batch_size: int = 128,
    order: np.ndarray | None = None,
    augment: keras.Layer | None = None,
    reconstruct: bool = False,
) -> tf.data.Dataset:
    """Feed 8-bit images to a model as floats in [0, 1], a batch at a time.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped: only one batch at a time is copied.
    targets : ndarray, shape (n, ...), optional
        What the model should say.
    batch_size : int
        Images in a batch; the last batch may be smaller.
    order : ndarray of int, optional
        The images to feed, in this order; all of them in their own order by default.
    augment : keras.Layer, optional
        Applied to each batch of floats.
    reconstruct : bool
        Whether the input itself is the target, as for an autoencoder.

    Returns
    -------
    tf.data.Dataset
        Of (m, size, size, 1) float32 in [0, 1], with targets where there are any.
    """
    size = images.shape[1:3]
    order = np.arange(len(images)) if order is None else np.asarray(order)
    wanted = None if targets is None else tf.constant(np.asarray(targets))

    def read(positions: np.ndarray) -> np.ndarray:
        return images[positions]

    def prepare(positions: tf.Tensor):
        raw = tf.numpy_function(read, [positions], tf.uint8)
        pictures = tf.cast(tf.ensure_shape(raw, (None, *size)), tf.float32)[..., None] / 255.0
        if augment is not None:
            pictures = augment(pictures, training=True)
        if reconstruct:
            return pictures, pictures
        return pictures if wanted is None else (pictures, tf.gather(wanted, positions))

    return tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(prepare).prefetch(2)


def fit(
    model: keras.Model,
    images: np.ndarray,
    targets: np.ndarray | None,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | None = None,
    validation: tuple[np.ndarray, np.ndarray | None] | None = None,
    report: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Train a compiled model and return its learning curves.

    The order of the images and their augmentation depend only on ``seed`` and the number
    of the epoch. With ``validation``, the weights of the epoch with the lowest validation
    loss are restored at the end; without it the last epoch's stay, as in the course report.

    Parameters
    ----------
    model : keras.Model
        Compiled; trained in place.
    images : ndarray of uint8, shape (n, size, size)
        Training images.
    targets : ndarray of shape (n, ...), or None
        Their labels; None trains an autoencoder to return its input.
    epochs, batch_size : int
        At least 1.
    seed : int
        Of the order and the augmentation.
    augmentation : Augmentation, optional
        None: the images as they are.
    validation : (images, targets), optional
        Scored after each epoch, never augmented.
    report : callable, optional
        Gets one line of text an epoch, for instance ``print``.

    Returns
    -------
    pandas.DataFrame
        A row an epoch: ``epoch`` (from 1), ``loss``, the compiled metrics, their ``val_``
        twins, and ``best`` (True for the epoch whose weights the model has now).

    Raises
    ------
    ValueError
        If ``epochs`` or ``batch_size`` is below 1, or there is no image.
    FloatingPointError
        If the loss is not a number: a broken image, or too high a learning rate.
    """
    if epochs < 1 or batch_size < 1 or not len(images):
        raise ValueError(
            f"epochs {epochs}, batch_size {batch_size} and {len(images)} images: "
            "expected at least 1 of each"
        )
    held_out = None
    if validation is not None:
        held_out = batches(*validation, reconstruct=targets is None)
    rows: list[dict] = []
    best, best_weights = np.inf, None
    start = time.monotonic()
    for epoch in range(epochs):
        epoch_seed = np.random.SeedSequence([seed, epoch]).generate_state(2)
        order = np.random.default_rng(epoch_seed[0]).permutation(len(images))
        augment = augmentation.layer(int(epoch_seed[1] >> 2)) if augmentation else None
        feed = batches(
            images,
            targets,
            batch_size=batch_size,
            order=order,
            augment=augment,
            reconstruct=targets is None,
        )
        logs = model.fit(feed, validation_data=held_out, shuffle=False, verbose=0).history
        row = {"epoch": epoch + 1} | {name: values[-1] for name, values in logs.items()}
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {row['loss']}: "
                "lower the learning rate, or look for broken images in 01_data"
            )
        rows.append(row)
        if row.get("val_loss", np.inf) < best:
            best, best_weights = row["val_loss"], model.get_weights()
        if report is not None:
            report(_line(row, epochs=epochs, elapsed=time.monotonic() - start))
    history = pd.DataFrame(rows)
    history["best"] = history["epoch"] == epochs
    if best_weights is not None:
        model.set_weights(best_weights)
        history["best"] = history["val_loss"] == best
    return history


def _line(row: dict, *, epochs: int, elapsed: float) -> str:
    """Return the progress line of one epoch, with the time that is left."""
    left = round(elapsed / row["epoch"] * (epochs - row["epoch"]))
    figures = " · ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
    eta = f"ETA {left // 60}:{left % 60:02d}"
    return f"epoch {row['epoch']}/{epochs} · {figures} · {eta}"

"""Training on memory-mapped images: exact order, cheap augmentation, one line an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr_helpers import checkpoints
from cxr_helpers.stages import file_digest


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

    def draw(self, seed: int) -> Callable:
        """Return a function that changes batches at random, each call anew.

        It takes and returns (n, size, size, 1) floats; what leaves the frame turns black.
        """
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
        change = keras.Sequential(steps or [keras.layers.Identity()])
        return tf.function(lambda pictures: change(pictures, training=True), reduce_retracing=True)


def batches(
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    batch_size: int = 128,
    order: np.ndarray | None = None,
    augment: Callable | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Feed 8-bit images to a model as floats in [0, 1], a batch at a time.

    A plain loop in the caller's thread: on two cores it was steadier and on average faster
    than ``tf.data``, whose threads can push both of TensorFlow's onto one core.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped: only one batch at a time is copied.
    targets : ndarray, shape (n, ...), optional
        What the model should say; without it, its own input.
    batch_size : int
        Images in a batch; the last batch may be smaller.
    order : ndarray of int, optional
        The images to feed, in this order; all of them in their own order by default.
    augment : callable, optional
        Applied to each batch of floats.

    Yields
    ------
    pictures : array of float32, shape (m, size, size, 1), range [0, 1]
    wanted : array, shape (m, ...)
    """
    order = np.arange(len(images)) if order is None else np.asarray(order)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        pictures = images[rows][..., None] / np.float32(255)
        if augment is not None:
            pictures = augment(pictures)
        yield pictures, pictures if targets is None else targets[rows]


def predict(model: keras.Model, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
    """Return a model's output for 8-bit images, shape (n, ...), a batch at a time."""
    return np.concatenate(
        [model.predict_on_batch(pictures) for pictures, _ in batches(images, batch_size=batch_size)]
    )


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
    checkpoint: Path | None = None,
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
    checkpoint : Path, optional
        A ``.npz`` file written after each epoch. Where it is from an earlier, interrupted call
        with the same model, data, settings and code, training goes on after its last epoch and
        ends with the same weights and curves, bit for bit, as if it had never been interrupted.

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
    model.optimizer.build(model.trainable_variables)
    train_step, test_step = (
        tf.function(lambda *batch, step=step: step(batch), reduce_retracing=True)
        for step in (model.train_step, model.test_step)
    )
    done = _Progress()
    if checkpoint is not None:
        key = checkpoints.key(
            model,
            *(images, targets, *(validation or ())),
            settings=(epochs, batch_size, seed, augmentation),
            code=file_digest(Path(__file__)),
            tensorflow=tf.__version__,
        )
        done = _Progress.restored(checkpoint, model, key=key)
        if done.rows and report is not None:
            report(f"goes on after epoch {len(done.rows)}/{epochs} of an interrupted run")
    start, first = time.monotonic(), len(done.rows)
    for epoch in range(first, epochs):
        seeds = np.random.SeedSequence([seed, epoch]).generate_state(2)
        feed = batches(
            images,
            targets,
            batch_size=batch_size,
            order=np.random.default_rng(seeds[0]).permutation(len(images)),
            augment=augmentation.draw(int(seeds[1] >> 2)) if augmentation else None,
        )
        row = {"epoch": epoch + 1} | _pass(model, train_step, feed)
        if validation is not None:
            scored = _pass(model, test_step, batches(*validation))
            row |= {f"val_{name}": value for name, value in scored.items()}
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {row['loss']}: "
                "lower the learning rate, or look for broken images in 01_data"
            )
        done.add(row, model)
        if checkpoint is not None:
            done.save(checkpoint, model, key=key)
        if report is not None:
            pace = (time.monotonic() - start) / (epoch + 1 - first)
            report(_line(row, epochs=epochs, left=pace * (epochs - epoch - 1)))
    history = pd.DataFrame(done.rows)
    history["best"] = history["epoch"] == epochs
    if done.best_weights:
        model.set_weights(done.best_weights)
        history["best"] = history["val_loss"] == done.best
    return history


@dataclass
class _Progress:
    """What the loop of ``fit`` knows after some epochs."""

    rows: list[dict] = field(default_factory=list)
    best: float = np.inf
    best_weights: list[np.ndarray] = field(default_factory=list)

    def add(self, row: dict, model: keras.Model) -> None:
        self.rows.append(row)
        if row.get("val_loss", np.inf) < self.best:
            self.best, self.best_weights = row["val_loss"], model.get_weights()

    def save(self, path: Path, model: keras.Model, *, key: str) -> None:
        progress = {"rows": self.rows, "best": self.best}
        checkpoints.save(path, model, key=key, progress=progress, extra={"best": self.best_weights})

    @classmethod
    def restored(cls, path: Path, model: keras.Model, *, key: str) -> _Progress:
        found = checkpoints.restore(path, model, key=key)
        if found is None:
            return cls()
        progress, extra = found
        return cls(**progress, best_weights=extra.get("best", []))


def _pass(model: keras.Model, step: Callable, feed: Iterator) -> dict[str, float]:
    """Take all batches through one compiled step; return loss and metrics over all of them."""
    model.reset_metrics()
    for pictures, wanted in feed:
        step(tf.constant(pictures), tf.constant(wanted))
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def _line(row: dict, *, epochs: int, left: float) -> str:
    """Return the progress line of one epoch, with the seconds that are left."""
    figures = " · ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
    eta = f"ETA {round(left) // 60}:{round(left) % 60:02d}"
    return f"epoch {row['epoch']}/{epochs} · {figures} · {eta}"

"""Training on memory-mapped images: exact order, cheap augmentation, one line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr_helpers.models import augmentation as aug
from cxr_helpers.models import checkpoints
from cxr_helpers.models.augmentation import Augmentation, StrongAugmentation
from cxr_helpers.system import digests


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
        Takes and returns a batch of floats and what is wanted of it.

    Yields
    ------
    pictures : array of float32, shape (m, size, size, 1), range [0, 1]
    wanted : array, shape (m, ...)
    """
    order = np.arange(len(images)) if order is None else np.asarray(order)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        pictures = images[rows][..., None] / np.float32(255)
        wanted = None if targets is None else targets[rows]
        if augment is not None:
            pictures, wanted = augment(pictures, wanted)
        yield pictures, pictures if wanted is None else wanted


def predict(model: keras.Model, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
    """Return a model's output for 8-bit images, shape (n, ...), a batch at a time."""
    feed = batches(images, batch_size=batch_size)
    return np.concatenate([model.predict_on_batch(pictures) for pictures, _ in feed])


def adamw(
    *, steps: int, warmup: int, learning_rate: float, weight_decay: float
) -> keras.optimizers.AdamW:
    """Return AdamW whose rate rises for ``warmup`` steps and falls as a cosine until ``steps``.

    Loshchilov and Hutter (2017, 2019). Gradients are clipped to norm 1; biases and the weights
    of normalisations do not decay.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, steps - warmup),
        alpha=0.01,
        warmup_target=learning_rate,
        warmup_steps=max(1, warmup),
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def fit(
    model: keras.Model,
    images: np.ndarray,
    targets: np.ndarray | None,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | StrongAugmentation | None = None,
    sampling_weights: np.ndarray | None = None,
    average: float = 0.0,
    validation: tuple[np.ndarray, np.ndarray | None] | None = None,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> pd.DataFrame:
    """Train a compiled model and return its learning curves.

    The order of the images and their augmentation depend only on ``seed`` and the number
    of the epoch. With ``validation``, the weights of the epoch with the lowest validation
    loss are restored at the end; without it the last epoch's stay, as in the course report.
    With ``average``, the averaged weights of the last epoch are what the model has at the end,
    whatever the validation loss was.

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
    augmentation : Augmentation or StrongAugmentation, optional
        None: the images as they are.
    sampling_weights : ndarray of float, shape (n,), optional
        How often an image is drawn, in proportion. An epoch is n draws, spread so that an
        image comes as often as its chance says or once more. Without it each comes once.
    average : float
        Decay of an exponential moving average of all weights, a step; validation scores it,
        and the model has it at the end. 0 averages nothing. Polyak and Juditsky (1992).
    validation : (images, targets), optional
        Scored after each epoch, never augmented.
    log : callable, optional
        Gets one line of text an epoch, for instance ``print``.
    checkpoint : callable, optional
        Takes the training's key (str), returns the ``.npz`` file (Path) that is written after
        each epoch. The key is made of the initial model, data, settings, code and versions of the
        libraries. Where that file is from an earlier, interrupted call, training goes on after its
        last epoch and ends with the same weights and curves, bit for bit, as if it had never been
        interrupted; where it is from a finished one, nothing is trained.

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
    averaged = _Average(model, decay=average) if average else None
    done = _Progress()
    if checkpoint is not None:
        key = checkpoints.key(
            model,
            *(images, targets, *(validation or ()), sampling_weights),
            settings=(epochs, batch_size, seed, augmentation, average),
            code=[digests.sha256_of_file(Path(m.__file__)) for m in (sys.modules[__name__], aug)],
            versions=(tf.__version__, np.__version__),
        )
        path = checkpoint(key)
        done = _Progress.restored(path, model, averaged, key=key)
        if done.finished:
            if log is not None:
                log(f"trained before: {epochs} epochs taken from the store")
            return done.history(averaged=averaged is not None)
        if done.rows and log is not None:
            log(f"goes on after epoch {len(done.rows)}/{epochs} of an interrupted run")
    start, first = time.monotonic(), len(done.rows)
    for epoch in range(first, epochs):
        seeds = np.random.SeedSequence([seed, epoch]).generate_state(2)
        feed = batches(
            images,
            targets,
            batch_size=batch_size,
            order=_order(len(images), sampling_weights, draw=np.random.default_rng(seeds[0])),
            augment=augmentation.draw(int(seeds[1] >> 2)) if augmentation else None,
        )
        row = {"epoch": epoch + 1} | _pass(model, train_step, feed, after=averaged)
        if validation is not None:
            with averaged.in_place() if averaged else nullcontext():
                scored = _pass(model, test_step, batches(*validation))
            row |= {f"val_{name}": value for name, value in scored.items()}
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {row['loss']}: "
                "lower the learning rate, or look for broken images in 01_data"
            )
        done.add(row, model, choose=averaged is None)
        if checkpoint is not None:
            done.save(path, model, averaged, key=key)
        if log is not None:
            pace = (time.monotonic() - start) / (epoch + 1 - first)
            log(_line(row, epochs=epochs, left=pace * (epochs - epoch - 1)))
    if averaged:
        averaged.keep()
    elif done.best_weights:
        model.set_weights(done.best_weights)
    if checkpoint is not None:
        done.finish(path, model, key=key)
    return done.history(averaged=averaged is not None)


def _order(n: int, sampling_weights: np.ndarray | None, *, draw: np.random.Generator) -> np.ndarray:
    """Return which images an epoch feeds, in which order."""
    order = draw.permutation(n)
    if sampling_weights is None:
        return order
    ends = np.cumsum(
        sampling_weights[order] / np.sum(sampling_weights)
    )  # a comb of n teeth over the shares
    picked = order[np.searchsorted(ends, (np.arange(n) + draw.random()) / n).clip(0, n - 1)]
    return draw.permutation(picked)


class _Average:
    """An exponential moving average of all of a model's weights, in float32."""

    def __init__(self, model: keras.Model, *, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.weights = [tf.Variable(w) for w in model.get_weights()]
        self._move = tf.function(self._follow)

    def _follow(self, decay: tf.Tensor) -> None:
        for mean, now in zip(self.weights, self.model.weights, strict=True):
            mean.assign(decay * mean + (1 - decay) * tf.cast(now.value, mean.dtype))

    def __call__(self) -> None:
        self.steps += 1  # early on a short memory: the first weights mean nothing
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self._move(tf.constant(decay, tf.float32))

    def keep(self) -> None:
        self.model.set_weights([mean.numpy() for mean in self.weights])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        now = self.model.get_weights()
        self.keep()
        try:
            yield
        finally:
            self.model.set_weights(now)


@dataclass
class _Progress:
    """What the loop of ``fit`` knows after some epochs."""

    rows: list[dict] = field(default_factory=list)
    best: float = np.inf
    best_weights: list[np.ndarray] = field(default_factory=list)
    finished: bool = False

    def add(self, row: dict, model: keras.Model, *, choose: bool) -> None:
        self.rows.append(row)
        if choose and row.get("val_loss", np.inf) < self.best:
            self.best, self.best_weights = row["val_loss"], model.get_weights()

    def save(self, path: Path, model: keras.Model, averaged: _Average | None, *, key: str) -> None:
        progress = {"rows": self.rows, "best": self.best, "finished": False}
        progress["steps"] = averaged.steps if averaged else 0
        means = [mean.numpy() for mean in averaged.weights] if averaged else []
        extra = {"best": self.best_weights, "average": means}
        checkpoints.save(path, model, key=key, progress=progress, extra=extra)

    def finish(self, path: Path, model: keras.Model, *, key: str) -> None:
        """Keep the model as it is in the end, and no more."""
        progress = {"rows": self.rows, "best": self.best, "finished": True, "steps": 0}
        checkpoints.save(path, model, key=key, progress=progress, extra={})

    def history(self, *, averaged: bool) -> pd.DataFrame:
        table = pd.DataFrame(self.rows)
        chosen = not averaged and np.isfinite(self.best)
        last = table["epoch"] == len(table)
        return table.assign(best=table["val_loss"] == self.best if chosen else last)

    @classmethod
    def restored(
        cls, path: Path, model: keras.Model, averaged: _Average | None, *, key: str
    ) -> _Progress:
        found = checkpoints.restore(path, model, key=key)
        if found is None:
            return cls()
        progress, extra = found
        steps = progress.pop("steps")
        if averaged and not progress["finished"]:
            averaged.steps = steps
            for mean, saved in zip(averaged.weights, extra["average"], strict=True):
                mean.assign(saved)
        return cls(**progress, best_weights=extra.get("best", []))


def _pass(
    model: keras.Model, step: Callable, feed: Iterator, *, after: Callable[[], None] | None = None
) -> dict[str, float]:
    """Take all batches through one compiled step; return loss and metrics over all of them."""
    model.reset_metrics()
    for pictures, wanted in feed:
        step(tf.constant(pictures), tf.constant(wanted))
        if after is not None:
            after()
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def _line(row: dict, *, epochs: int, left: float) -> str:
    """Return the progress line of one epoch, with the seconds that are left."""
    figures = " · ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
    eta = f"ETA {round(left) // 60}:{round(left) % 60:02d}"
    return f"epoch {row['epoch']}/{epochs} · {figures} · {eta}"

"""Training on memory-mapped images, in a reproducible order and resumable bit for bit."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr_helpers.models import augmentation as aug
from cxr_helpers.models import checkpoints, prefetching, tracing
from cxr_helpers.models.augmentation import Augmentation, StrongAugmentation
from cxr_helpers.system import accelerators, array_files, digests, environment


def batches(
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    batch_size: int = 32,
    order: np.ndarray | None = None,
    augment: Callable | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of 8-bit images as floats in [0, 1], with their targets.

    This is a plain loop in the caller's thread: on two cores it was steadier and on average
    faster than ``tf.data``, whose threads compete with TensorFlow's for the cores.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped: what was read takes memory for a few batches only.
    targets : ndarray, shape (n, ...), optional
        Targets of the model; its own input by default.
    batch_size : int
        Images in a batch; the last batch may be smaller.
    order : ndarray of int, optional
        Positions of the images to yield, in this order; by default all, in the given order.
    augment : callable, optional
        Takes and returns a batch of floats and its targets.

    Yields
    ------
    batch : ndarray of float32, shape (m, size, size, 1), range [0, 1]
    batch_targets : ndarray, shape (m, ...)
    """
    order = np.arange(len(images)) if order is None else np.asarray(order)
    read, at_once = 0, array_files.part(images)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = images[rows][..., None] / np.float32(255)
        read += len(rows)
        if read >= at_once:
            array_files.release(images)
            read = 0
        batch_targets = None if targets is None else targets[rows]
        if augment is not None:
            batch, batch_targets = augment(batch, batch_targets)
        yield batch, batch if batch_targets is None else batch_targets


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return a model's predictions for 8-bit images, shape (n, ...), computed in batches."""
    feed = batches(images, batch_size=tracing.batch_size(images.shape[1]))
    infer = tracing.inference_of(model)
    return np.concatenate([infer(batch).numpy() for batch, _ in feed])


def adamw(
    *, steps: int, warmup: int, learning_rate: float, weight_decay: float
) -> keras.optimizers.AdamW:
    """Return AdamW with linear warm-up and cosine decay of the learning rate.

    The rate rises for ``warmup`` steps, at most a quarter of all, and then falls to a hundredth of
    its peak at ``steps`` (Loshchilov and Hutter 2017, *SGDR*, and 2019, *Decoupled Weight Decay Regularization*, ICLR).
    Each gradient is clipped to norm 1; biases and the scales of normalisations do not decay.
    """
    warmup = max(1, min(warmup, steps // 4))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, steps - warmup),
        alpha=0.01,
        warmup_target=learning_rate,
        warmup_steps=warmup,
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
    augmentation: Augmentation | StrongAugmentation | Sequence | None = None,
    sampling_weights: np.ndarray | None = None,
    average: float = 0.0,
    validation: tuple[np.ndarray, np.ndarray | None] | None = None,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> pd.DataFrame:
    """Train a compiled model and return its learning curves.

    The order of the images and their augmentation depend only on ``seed`` and the epoch. With
    ``validation``, the model ends with the weights of the epoch of lowest validation loss;
    without it, with those of the last epoch, as in the course report. With ``average``, it ends
    with the averaged weights of the last epoch, whatever the validation loss.

    Parameters
    ----------
    model : keras.Model
        Compiled; trained in place.
    images : ndarray of uint8, shape (n, size, size)
        Training images.
    targets : ndarray of shape (n, ...), or None
        Their labels; None trains an autoencoder to reproduce its input.
    epochs, batch_size : int
        At least 1.
    seed : int
        Seed of the order and the augmentation.
    augmentation : object of ``models.augmentation``, or one for each epoch, optional
        By default the images are not augmented.
    sampling_weights : ndarray of float, shape (n,), optional
        Relative frequency with which each image is drawn. An epoch is n draws by systematic
        sampling: an image appears as often as expected, rounded down or up. By default every
        image appears once.
    average : float
        Decay per step of an exponential moving average of all weights, which is validated after
        each epoch and kept at the end (Polyak and Juditsky 1992, *Acceleration of Stochastic
        Approximation by Averaging*). 0 switches averaging off.
    validation : (images, targets), optional
        Evaluated after each epoch, without augmentation.
    log : callable, optional
        Receives a line of text after each epoch, for instance ``print``.
    checkpoint : callable, optional
        Takes the training's key (str) and returns the path of the ``.npz`` file that is written
        after each epoch. The key is a digest of the initial model, the data, the settings, the
        code, the library versions and the number of threads. If that file is from an interrupted
        call, training resumes after its last epoch and ends with bit for bit the same weights and
        curves as an uninterrupted one; if it is from a finished call, its result is returned
        without training.

    Returns
    -------
    pandas.DataFrame
        One row per epoch: ``epoch`` (from 1), ``loss``, the compiled metrics, the same with
        the prefix ``val_``, and ``best`` (True for the epoch whose weights the model ends with).

    Raises
    ------
    ValueError
        If ``epochs`` or ``batch_size`` is below 1, or there are no images.
    FloatingPointError
        If the loss is not finite: the learning rate is too high, or an image is corrupt.
    """
    if epochs < 1 or batch_size < 1 or not len(images):
        raise ValueError(
            f"epochs {epochs}, batch_size {batch_size} and {len(images)} images: "
            "expected at least 1 of each"
        )
    model.optimizer.build(model.trainable_variables)
    _build_metrics(model, images, targets)
    train_step, test_step = _steps(model)
    averaged = _Average(model, decay=average) if average else None
    progress = _Progress()
    if checkpoint is not None:
        key = checkpoints.key(
            model,
            *(images, targets, *(validation or ()), sampling_weights),
            settings=(epochs, batch_size, seed, augmentation, average),
            code=[
                digests.sha256_of_file(Path(module.__file__))
                for module in (sys.modules[__name__], aug, checkpoints, prefetching, tracing)
            ],
            versions=(tf.__version__, np.__version__),
            threads=environment.threads(),
        )
        path = checkpoint(key)
        progress = _Progress.restored(path, model, averaged, key=key)
        if progress.finished:
            if log is not None:
                log(f"already trained: {epochs} epochs read from the store")
            return progress.history(averaged=averaged is not None)
        if progress.rows and log is not None:
            log(f"resumes after epoch {len(progress.rows)}/{epochs} of an interrupted run")
    start, first = time.monotonic(), len(progress.rows)
    for epoch in range(first, epochs):
        seeds = np.random.SeedSequence([seed, epoch]).generate_state(2)
        change = augmentation[epoch] if isinstance(augmentation, Sequence) else augmentation
        feed = batches(
            images,
            targets,
            batch_size=batch_size,
            order=_order(len(images), sampling_weights, rng=np.random.default_rng(seeds[0])),
            augment=change.draw(int(seeds[1] >> 2)) if change else None,
        )
        row = {"epoch": epoch + 1} | _pass(model, train_step, feed, after=averaged)
        if validation is not None:
            with averaged.in_model() if averaged else nullcontext():
                validated = _pass(model, test_step, batches(*validation))
            row |= {f"val_{name}": value for name, value in validated.items()}
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {row['loss']}: "
                "lower the learning rate, or look for corrupt images in 01_data"
            )
        progress.add(row, model, keep_best=averaged is None)
        if checkpoint is not None:
            progress.save(path, model, averaged, key=key)
        if log is not None:
            pace = (time.monotonic() - start) / (epoch + 1 - first)
            log(_line(row, epochs=epochs, left=pace * (epochs - epoch - 1)))
    if averaged:
        averaged.copy_to_model()
    elif progress.best_weights:
        model.set_weights(progress.best_weights)
    if checkpoint is not None:
        progress.finish(path, model, key=key)
    return progress.history(averaged=averaged is not None)


def _build_metrics(model: keras.Model, images: np.ndarray, targets: np.ndarray | None) -> None:
    """Create the variables of a model's metrics: TensorFlow compiles a step that does so twice."""
    ((_, target),) = batches(images[:1], None if targets is None else targets[:1])
    predicted = np.zeros([side or 1 for side in model.output_shape], np.float32)
    model.compute_metrics(None, target, predicted)
    model.reset_metrics()


def restart(model: keras.Model, *, like: keras.Model) -> None:
    """Give a compiled model the initial weights of another one, and its optimizer its initial state.

    ``fit`` then trains it again with the step that it compiled before: for a short training,
    compiling takes longer than the training itself.

    Parameters
    ----------
    model : keras.Model
        Changed in place; its optimizer keeps its learning rate.
    like : keras.Model
        Of the same architecture, not trained.
    """
    for variable, initial in zip(model.variables, like.variables, strict=True):
        variable.assign(initial)
    optimizer = model.optimizer
    # under mixed_float16, Keras wraps the optimizer in one that scales the loss
    initial = {"dynamic_scale": getattr(optimizer, "initial_scale", 0.0)}
    for variable in optimizer.variables:
        if variable.name != "learning_rate":
            variable.assign(np.full(variable.shape, initial.get(variable.name, 0.0)))


# By model: its optimizer when they were compiled, and the compiled steps.
_COMPILED: WeakKeyDictionary[keras.Model, tuple] = WeakKeyDictionary()


def _steps(model: keras.Model) -> tuple[Callable, Callable]:
    """Return the compiled training and test steps, compiled again only after ``model.compile``."""
    optimizer, *steps = _COMPILED.get(model, (None,))
    if optimizer is not model.optimizer:
        alive = weakref.ref(model)  # the dictionary must not keep its own keys
        steps = [
            tracing.traced(lambda *batch, name=name: getattr(alive(), name)(batch))
            for name in ("train_step", "test_step")
        ]
        _COMPILED[model] = (model.optimizer, *steps)
    return tuple(steps)


def _order(n: int, sampling_weights: np.ndarray | None, *, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of the images of an epoch, in the order of training."""
    order = rng.permutation(n)
    if sampling_weights is None:
        return order
    # systematic sampling: n equidistant points on the cumulative probabilities
    ends = np.cumsum(sampling_weights[order] / np.sum(sampling_weights))
    drawn = order[np.searchsorted(ends, (np.arange(n) + rng.random()) / n).clip(0, n - 1)]
    return rng.permutation(drawn)


class _Average:
    """An exponential moving average of all of a model's weights, in float32."""

    def __init__(self, model: keras.Model, *, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.weights = [tf.Variable(w) for w in model.get_weights()]
        self._compiled_update = tf.function(self._update, autograph=False)

    def _update(self, decay: tf.Tensor) -> None:
        for mean, weight in zip(self.weights, self.model.weights, strict=True):
            mean.assign(decay * mean + (1 - decay) * tf.cast(weight.value, mean.dtype))

    def __call__(self) -> None:
        self.steps += 1  # a smaller decay at first: the initial weights are random
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self._compiled_update(tf.constant(decay, tf.float32))

    def copy_to_model(self) -> None:
        self.model.set_weights([mean.numpy() for mean in self.weights])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        current = self.model.get_weights()
        self.copy_to_model()
        try:
            yield
        finally:
            self.model.set_weights(current)


@dataclass
class _Progress:
    """State of the training loop of ``fit`` after an epoch."""

    rows: list[dict] = field(default_factory=list)
    best: float = np.inf
    best_weights: list[np.ndarray] = field(default_factory=list)
    finished: bool = False

    def add(self, row: dict, model: keras.Model, *, keep_best: bool) -> None:
        self.rows.append(row)
        if keep_best and row.get("val_loss", np.inf) < self.best:
            self.best, self.best_weights = row["val_loss"], model.get_weights()

    def save(self, path: Path, model: keras.Model, averaged: _Average | None, *, key: str) -> None:
        progress = {"rows": self.rows, "best": self.best, "finished": False}
        progress["steps"] = averaged.steps if averaged else 0
        means = [mean.numpy() for mean in averaged.weights] if averaged else []
        extra = {"best": self.best_weights, "average": means}
        checkpoints.save(path, model, key=key, progress=progress, extra=extra)

    def finish(self, path: Path, model: keras.Model, *, key: str) -> None:
        """Save the final model without the state that only resuming needs."""
        progress = {"rows": self.rows, "best": self.best, "finished": True, "steps": 0}
        checkpoints.save(path, model, key=key, progress=progress, extra={})

    def history(self, *, averaged: bool) -> pd.DataFrame:
        table = pd.DataFrame(self.rows)
        by_validation = not averaged and np.isfinite(self.best)
        last = table["epoch"] == len(table)
        first = table.index == table["val_loss"].idxmin() if by_validation else last
        return table.assign(best=first)

    @classmethod
    def restored(
        cls, path: Path, model: keras.Model, averaged: _Average | None, *, key: str
    ) -> _Progress:
        saved = checkpoints.restore(path, model, key=key)
        if saved is None:
            return cls()
        progress, extra = saved
        steps = progress.pop("steps")
        if averaged and not progress["finished"]:
            averaged.steps = steps
            for mean, value in zip(averaged.weights, extra["average"], strict=True):
                mean.assign(value)
        return cls(**progress, best_weights=extra.get("best", []))


def _pass(
    model: keras.Model, step: Callable, feed: Iterator, *, after: Callable[[], None] | None = None
) -> dict[str, float]:
    """Run a compiled step on every batch; return the loss and metrics over all of them."""
    model.reset_metrics()
    # on a CPU, which computes the steps too, a batch is made so fast that nothing would be gained
    for batch, targets in prefetching.ahead(feed) if accelerators.gpu() else feed:
        step(tf.constant(batch), tf.constant(targets))
        if after is not None:
            after()
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def _line(row: dict, *, epochs: int, left: float) -> str:
    """Return the progress line of one epoch, with the estimated time left."""
    values = " · ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
    eta = f"ETA {round(left) // 60}:{round(left) % 60:02d}"
    return f"epoch {row['epoch']}/{epochs} · {values} · {eta}"

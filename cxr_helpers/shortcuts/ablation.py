"""From the published network to ours, step by step, where a marker reveals the class.

Phantoms show what the changes are for: in the training images the size and the position of the
marker depend on the class (``marker_bias`` 1), so that a network can learn the marker instead of
the lungs. The test patients are drawn twice, with such markers and with markers that are
independent of the class; everything else in the two images of a patient is equal.

These networks are trained in float32, whatever the precision of the others: bfloat16 is slower where
convolutions do not have a multiple of 16 channels (``benchmarks/precision.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxr_helpers.data import decoding
from cxr_helpers.models import architectures, recipes, training
from cxr_helpers.models.augmentation import Augmentation
from cxr_helpers.models.sampling import balanced
from cxr_helpers.phantoms import rendering

DETAIL, SIZE, LARGER = 64, 48, 56  # pixels: of the phantoms, of the input, of larger test images
WIDTHS = (8, 16, 32)
STEPS = (
    "published network",
    "residual network",
    "our training, whole images",
    "our training, random crops",
    "larger test images",
    "mean with mirror images",
    "mean with ten crops",
)
MARKERS = {"as in training": 1.0, "independent of the class": 0.0}  # marker_bias of the test images


@contextmanager
def _in_float32() -> Iterator[None]:
    """Let networks that are built meanwhile compute in float32."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@_in_float32()
def predictions(
    *,
    n_images: int,
    epochs: int,
    seed: int,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> pd.DataFrame:
    """Predict the test phantoms, with both kinds of marker, after each step.

    The first four steps train a network each; the last three change how the fourth predicts.

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

    Returns
    -------
    pandas.DataFrame
        Columns ``step`` (of ``STEPS``), ``marker`` (of ``MARKERS``), ``group`` (patient),
        ``y_true`` (1 for pneumonia) and ``y_prob``; one row for each step, marker and test image.
    """
    options = {"n": n_images, "size": DETAIL, "seed": seed, "splits": {"train": 0.5, "test": 0.5}}
    (as_in_training, bias), (independent, other_bias) = MARKERS.items()
    drawn = rendering.render(marker_bias=bias, **options)
    in_train = (drawn.index["split"] == "train").to_numpy()
    y_true = (drawn.index["class_name"] != "normal").to_numpy(dtype=int)
    train, labels, of_test = drawn.images[in_train], y_true[in_train], drawn.index[~in_train]
    versions = {
        as_in_training: drawn.images[~in_train],
        independent: rendering.redraw(of_test, marker_bias=other_bias, **options),
    }
    whole = partial(decoding.resize, size=SIZE)
    recipe = recipes.Recipe(
        epochs=epochs, batch_size=16, learning_rate=0.004, crop_sizes=(SIZE,), average=0.98
    )
    common = {"seed": seed, "checkpoint": checkpoint}
    as_published = {"epochs": epochs, "batch_size": 16, "augmentation": Augmentation(), **common}
    table = []

    def add(step: str, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        for marker, test in versions.items():
            y_prob = predict(test)
            group = of_test["class_name"] + " " + of_test["patient"].astype(str)
            values = {"group": group, "y_true": y_true[~in_train], "y_prob": y_prob}
            table.append(pd.DataFrame({"step": step, "marker": marker, **values}))
        if log is not None:
            log(f"ablation {len(table) // len(MARKERS)}/{len(STEPS)} · {step}")

    keras.utils.set_random_seed(seed)
    published = architectures.binary_cnn(SIZE)
    published.compile("adam", "binary_crossentropy")
    training.fit(published, whole(train), labels[:, None], **as_published)
    add(STEPS[0], lambda images: training.predict(published, whole(images))[:, 0])
    one_hot = keras.utils.to_categorical(labels, 2)
    keras.utils.set_random_seed(seed)
    residual = architectures.residual_cnn(None, widths=WIDTHS, classes=2)
    initial = keras.models.clone_model(residual)
    initial.set_weights(residual.get_weights())
    residual.compile("adam", "categorical_crossentropy")
    training.fit(residual, whole(train), one_hot, **as_published)
    add(STEPS[1], lambda images: training.predict(residual, whole(images))[:, 1])
    for step, images, augmentation in (
        (STEPS[2], whole(train), Augmentation()),
        (STEPS[3], train, None),
    ):
        training.restart(residual, like=initial)
        recipes.fit(
            residual,
            images,
            one_hot,
            recipe,
            sampling_weights=balanced(labels),
            augmentation=augmentation,
            compiled=step == STEPS[3],
            **common,
        )
        add(step, lambda x: training.predict(residual, whole(x))[:, 1])
    larger = partial(decoding.resize, size=LARGER)
    add(STEPS[4], lambda images: training.predict(residual, larger(images))[:, 1])
    add(STEPS[5], lambda images: recipes.predict(residual, larger(images))[:, 1])
    of_crops = architectures.residual_cnn(SIZE, widths=WIDTHS, classes=2)
    of_crops.set_weights(residual.get_weights())
    add(STEPS[6], lambda x: recipes.predict(residual, larger(x), of_crops=of_crops)[:, 1])
    return pd.concat(table, ignore_index=True)

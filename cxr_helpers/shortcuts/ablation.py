"""From the published network to ours, one change at a time, where a marker reveals the class.

Phantoms show what the changes are for: in the training images the size and the position of the
marker depend on the class (``marker_bias`` 1), so that a network can learn the marker instead of
the lungs. The test patients are drawn twice, with such markers and with markers that are
independent of the class; everything else in the two images of a patient is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxr_helpers.data import decoding
from cxr_helpers.models import architectures, recipes, training
from cxr_helpers.models.augmentation import Augmentation, StrongAugmentation
from cxr_helpers.models.sampling import balanced
from cxr_helpers.phantoms import rendering

SIZE, CROPS, LARGER = 64, 48, 56  # pixels: of the phantoms, of crops, of whole test images
WIDTHS = (8, 16, 32)
STEPS = (
    "published network",
    "residual network, more augmentation",
    "trained on random crops",
    "larger test images, mirrored",
)
MARKERS = {"as in training": 1.0, "independent of the class": 0.0}  # marker_bias of the test images


def predictions(
    *,
    n_images: int,
    epochs: int,
    seed: int,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> pd.DataFrame:
    """Train the network of each step and predict the test phantoms with both kinds of marker.

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
    options = {"n": n_images, "size": SIZE, "seed": seed, "splits": {"train": 0.5, "test": 0.5}}
    versions = {
        name: rendering.render(marker_bias=bias, **options) for name, bias in MARKERS.items()
    }
    index = versions["as in training"].index
    in_train = (index["split"] == "train").to_numpy()
    y_true = (index["class_name"] != "normal").to_numpy(dtype=int)
    train, labels = versions["as in training"].images[in_train], y_true[in_train]
    recipe = recipes.Recipe(
        epochs=epochs, batch_size=16, learning_rate=0.004, crop_sizes=(CROPS,), average=0.98
    )
    common = {"seed": seed, "checkpoint": checkpoint}
    table = []

    def add(step: str, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        for marker, phantoms in versions.items():
            y_prob = predict(phantoms.images[~in_train])
            of_test = index[~in_train]
            group = of_test["class_name"] + " " + of_test["patient"].astype(str)
            values = {"group": group, "y_true": y_true[~in_train], "y_prob": y_prob}
            table.append(pd.DataFrame({"step": step, "marker": marker, **values}))
        if log is not None:
            log(f"ablation {len(table) // len(MARKERS)}/{len(STEPS)} · {step}")

    keras.utils.set_random_seed(seed)
    published = architectures.binary_cnn(SIZE)
    published.compile("adam", "binary_crossentropy")
    training.fit(
        published,
        train,
        labels[:, None],
        epochs=epochs,
        batch_size=16,
        augmentation=Augmentation(),
        **common,
    )
    add(STEPS[0], lambda images: training.predict(published, images)[:, 0])
    one_hot = keras.utils.to_categorical(labels, 2)
    keras.utils.set_random_seed(seed)
    ours = architectures.residual_cnn(None, widths=WIDTHS, classes=2)
    initial = keras.models.clone_model(ours)
    initial.set_weights(ours.get_weights())
    for step, images, augmentation in (
        (STEPS[1], decoding.resize(train, CROPS), StrongAugmentation()),
        (STEPS[2], train, None),
    ):
        if again := step != STEPS[1]:
            training.restart(ours, like=initial)
        recipes.fit(
            ours,
            images,
            one_hot,
            recipe,
            sampling_weights=balanced(labels),
            augmentation=augmentation,
            compiled=again,
            **common,
        )
        add(step, lambda x: training.predict(ours, decoding.resize(x, CROPS))[:, 1])
    add(STEPS[3], lambda images: recipes.predict(ours, decoding.resize(images, LARGER))[:, 1])
    return pd.concat(table, ignore_index=True)

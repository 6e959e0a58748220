"""Further networks, one file each: trained, scored, and explained beside those of the report.

A module of this package defines ``NETWORK``, a ``Network``. Nothing else has to be changed:
chapter 3 trains it and gives it two rows of Table 1 (``<id>_binary`` and ``<id>_categorical``),
chapter 5 scores nearest neighbours in its embedding (``knn_<id>``), chapter 6 maps that embedding,
and chapter 7 scores its Grad-CAM maps. A file ``small.py`` for instance::

    from cxr_helpers.models.networks import Network

    def build(image_size, classes):
        from cxr_helpers.models import architectures  # imports Keras, slowly: not for --help
        return architectures.residual_cnn(image_size, widths=(8, 16, 32), classes=classes)

    NETWORK = Network("small", "Small residual network", build, feature_map="block3", epochs=10)

``build`` takes the image size in pixels and the number of classes. It returns an untrained,
flat Keras model, (n, image_size, image_size, 1) float in [0, 1] to (n, classes) probabilities by
a last layer ``Dense(classes, activation="softmax")``, with one layer named ``"embedding"``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
    import pandas as pd


@dataclass(frozen=True)
class Network:
    """A network and how it is trained.

    Attributes
    ----------
    id : str
        Prefix of its rows in the result files: letters, digits and underscores.
    label : str
        What Table 1 calls it.
    build : callable
        (image_size, classes) to an untrained ``keras.Model``, see the module's docstring.
    feature_map : str
        Name of the layer that Grad-CAM explains, (n, height, width, channels).
    epochs, batch_size : int
    learning_rate, weight_decay : float
        Of AdamW, with one epoch of warm-up and a cosine decay.
    average : float
        Decay of the moving average of the weights, for each step; 0 averages nothing.
    """

    id: str
    label: str
    build: Callable[[int, int], keras.Model]
    feature_map: str
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 0.002
    weight_decay: float = 0.02
    average: float = 0.998

    @property
    def rows(self) -> list[tuple[str, str, int]]:
        """Id, label and number of classes of its rows in Table 1."""
        return [
            (f"{self.id}_binary", self.label, 2),
            (f"{self.id}_categorical", self.label, 3),
            (f"knn_{self.id}", f"kNN on the embedding of {self.label}", 2),
        ]


def registered() -> list[Network]:
    """Return the networks that the modules of this package define, by id.

    Raises
    ------
    ValueError
        If a module defines no ``NETWORK``, or two have the same id.
    """
    found = {}
    for module in pkgutil.iter_modules(__path__):
        network = getattr(importlib.import_module(f"{__name__}.{module.name}"), "NETWORK", None)
        if not isinstance(network, Network) or not network.id.isidentifier():
            raise ValueError(f"models/networks/{module.name}.py: expected NETWORK = Network(…)")
        if network.id in found:
            raise ValueError(f"models/networks/{module.name}.py: the id {network.id!r} is taken")
        found[network.id] = network
    return [found[id] for id in sorted(found)]


def fit(
    model: keras.Model,
    images: np.ndarray,
    one_hot: np.ndarray,
    *,
    network: Network,
    validation: tuple[np.ndarray, np.ndarray] | None,
    seed: int,
    log: Callable[[str], None] | None = None,
    checkpoint: Callable[[str], Path] | None = None,
) -> pd.DataFrame:
    """Train a registered network on whole, strongly augmented images; classes are drawn equally often.

    The labels are smoothed, and the network gets the moving average of its weights at the end.

    Parameters
    ----------
    model : keras.Model
        From ``network.build``; trained in place.
    images : ndarray of uint8, shape (n, size, size)
        Training images.
    one_hot : ndarray of float, shape (n, classes)
    network : Network
        Whose settings are used.
    validation : (images, one_hot) or None
        Scored after each epoch.
    seed : int
        Of the order and the augmentation.
    log, checkpoint : optional
        As for ``training.fit``.

    Returns
    -------
    pandas.DataFrame
        Learning curves, as ``training.fit`` returns them.
    """
    from cxr_helpers.models import recipes, sampling
    from cxr_helpers.models.augmentation import StrongAugmentation

    recipe = recipes.Recipe(
        epochs=network.epochs,
        batch_size=network.batch_size,
        learning_rate=network.learning_rate,
        weight_decay=network.weight_decay,
        warmup=1,
        average=network.average,
    )
    return recipes.fit(
        model,
        images,
        one_hot,
        recipe,
        seed=seed,
        augmentation=StrongAugmentation(),
        sampling_weights=sampling.balanced(one_hot.argmax(axis=1)),
        validation=validation,
        log=log,
        checkpoint=checkpoint,
    )

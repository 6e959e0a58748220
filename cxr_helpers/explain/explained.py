"""A classifier with the one score that is explained: the log-odds of pneumonia."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from cxr_helpers.data import decoding
from cxr_helpers.explain import gradcam
from cxr_helpers.models import tracing

GRADIENTS = 16  # images at once: a gradient needs what every layer returned


class Explained:
    """A network's log-odds of pneumonia, s = log p(pneumonia) - log p(normal), and its gradients.

    Probabilities saturate: of two images at 0.999 and 0.9999, one may be far surer. With a single
    sigmoid output s is the logit, with several classes logsumexp over those with pneumonia minus
    the logit of normal. Computed in float32.

    A network that standardises its input is explained after that layer: covering a part of the
    image itself would change the mean, and with it the input everywhere else. Its images then have
    mean 0 and standard deviation 1, and 0 is the mean grey level.

    Parameters
    ----------
    model : keras.Model
        Flat, of a fixed image size, built in float32, ending in a Dense layer: probability of
        pneumonia, or of several classes, the first of which is normal.
    feature_map : str
        Its last layer with feature maps, for Grad-CAM.

    Attributes
    ----------
    size : int
        Height and width of its input in pixels.
    batch_size : int
        How many images are passed through it at once.
    gradient_batch_size : int
        The same for gradients, half as many and at most ``GRADIENTS``.
    standardises : bool
        Whether images are standardised before anything is covered.
    """

    def __init__(self, model: keras.Model, *, feature_map: str) -> None:
        self.model, self.feature_map = model, feature_map
        self.size = int(model.inputs[0].shape[1])
        self.batch_size = tracing.batch_size(self.size)
        self.gradient_batch_size = max(1, min(GRADIENTS, self.batch_size // 2))
        names = [layer.name for layer in model.layers]
        self.standardises = "standardise" in names
        self.input = model.get_layer("standardise").output if self.standardises else model.inputs[0]
        if self.standardises:
            self._first = tracing.inference(keras.Model(model.inputs, self.input))
        self.log_odds = log_odds(gradcam.logits(model))
        features = model.get_layer(feature_map).output
        self._both = keras.Model(self.input, [features, self.log_odds])
        self._score = tracing.inference(keras.Model(self.input, self.log_odds))

        def gradient(batch: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(batch)
                _, score = self._both(batch, training=False)
            return tape.gradient(score, batch)

        def features_and_gradient(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(batch)
                features, score = self._both(batch, training=False)
            return features, tape.gradient(score, features)

        self._gradient = tracing.traced(gradient)
        self._features = tracing.traced(features_and_gradient)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Return what the network is explained on.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, side, side)
            Of any size.

        Returns
        -------
        ndarray of float32, shape (n, size, size)
            In [0, 1], or standardised.
        """
        scaled = decoding.resize(images, self.size).astype(np.float32) / 255
        return scaled if not self.standardises else _each(self._first, scaled, self.batch_size)

    def score(self, prepared: np.ndarray) -> np.ndarray:
        """Return the log-odds of prepared images: ndarray of float32, shape (n,)."""
        return _each(self._score, prepared, self.batch_size)

    def gradient(self, prepared: np.ndarray) -> np.ndarray:
        """Return the gradient of the log-odds: ndarray of float32, shape (n, size, size)."""
        return _each(self._gradient, prepared, self.gradient_batch_size)

    def features(self, prepared: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the feature maps and the gradient of the log-odds with respect to them.

        Yields
        ------
        two ndarrays of float32, shape (m, height, width, channels)
            Of a few images at a time: those of all can be larger than the images many times over.
        """
        for batch in _batches(prepared, self.gradient_batch_size):
            features, gradients = self._features(batch)
            yield features.numpy(), gradients.numpy()


def _each(function: Callable, prepared: np.ndarray, batch_size: int) -> np.ndarray:
    """Return what a function returns for all images, without a last axis of one channel."""
    batches = _batches(prepared, batch_size)
    result = np.concatenate([function(batch).numpy() for batch in batches])
    return result[..., 0] if result.ndim == 4 else result


def _batches(prepared: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yield prepared images with an axis for their channel."""
    for start in range(0, len(prepared), batch_size):
        yield np.asarray(prepared[start : start + batch_size], dtype=np.float32)[..., None]


@lru_cache(maxsize=16)
def explained_by(model: keras.Model, feature_map: str) -> Explained:
    """Return ``Explained(model, feature_map=feature_map)``; of one model always the same object.

    Tracing its functions takes seconds. Weights that change later are used, see ``sanity.randomised``.
    """
    return Explained(model, feature_map=feature_map)


def log_odds(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Return the log-odds of pneumonia, shape (n,), from logits of shape (n, outputs)."""
    logits = keras.ops.cast(logits, "float32")
    if logits.shape[-1] == 1:
        return logits[:, 0]
    return keras.ops.logsumexp(logits[:, 1:], axis=1) - logits[:, 0]

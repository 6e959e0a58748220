"""Grad-CAM: which regions of a convolutional layer raise a class score.

Selvaraju et al. (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization*, ICCV, doi:10.1109/ICCV.2017.74.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf


def gradcam(
    model: keras.Model,
    images: np.ndarray,
    *,
    layer: str,
    class_index: int,
    upsample: bool = True,
) -> np.ndarray:
    """Return Grad-CAM heat maps for a batch of films.

    The class score is the value *before* the last sigmoid or softmax, as in the paper. With
    one sigmoid output, class 1 is that value and class 0 its negative.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, its layers possibly nested in models within it.
    images : ndarray of uint8, shape (n, size, size)
        A few dozen at most: one pass holds all.
    layer : str
        A layer whose output has shape (n, h, w, channels), at any depth of the model.
    class_index : int
        The class to explain.
    upsample : bool
        Whether the maps are enlarged (bilinearly) to the films' size.

    Returns
    -------
    ndarray of float32, shape (n, size, size), or (n, h, w) without ``upsample``
        Not negative, in units of the class score: not scaled to 1, so that films compare.

    Raises
    ------
    ValueError
        If there is no such layer or class, or the layer has no feature maps.
    """
    target = find_layer(model, layer)
    inputs = tf.convert_to_tensor(images.astype(np.float32)[..., None] / 255.0)
    with tf.GradientTape() as tape, _linear_output(model), _watched(target, tape) as seen:
        score = _class_score(model(inputs, training=False), class_index)
    if not seen or len(seen[-1].shape) != 4:
        raise ValueError(f"layer {layer!r} of {model.name} gives no feature maps (n, h, w, c)")
    features = tf.cast(seen[-1], tf.float32)
    gradients = tf.cast(tape.gradient(score, seen[-1]), tf.float32)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    if upsample:
        maps = tf.image.resize(maps, images.shape[1:3])
    return maps[..., 0].numpy()


def find_layer(model: keras.Model, name: str) -> keras.Layer:
    """Return the layer of that name, searching models within the model too."""
    waiting = list(model.layers)
    while waiting:
        layer = waiting.pop(0)
        if layer.name == name:
            return layer
        waiting += getattr(layer, "layers", [])
    raise ValueError(f"{model.name} has no layer {name!r}")


def _class_score(outputs: tf.Tensor, class_index: int) -> tf.Tensor:
    classes = max(2, outputs.shape[-1])
    if not 0 <= class_index < classes:
        raise ValueError(f"class {class_index} of a model with {classes} classes")
    if outputs.shape[-1] == 1:
        return outputs[:, 0] * (1.0 if class_index == 1 else -1.0)
    return outputs[:, class_index]


@contextmanager
def _watched(layer: keras.Layer, tape: tf.GradientTape) -> Iterator[list[tf.Tensor]]:
    """Let the tape watch what a layer gives; nested layers have no symbolic path to it."""
    seen: list[tf.Tensor] = []
    call = layer.call  # a method of the class: the instance's own attribute hides it for a while

    def watching(*args, **kwargs):
        output = call(*args, **kwargs)
        tape.watch(output)
        seen.append(output)
        return output

    layer.call = watching
    try:
        yield seen
    finally:
        del layer.call


@contextmanager
def _linear_output(model: keras.Model) -> Iterator[None]:
    """Take the sigmoid or softmax off the model's last layer for a while."""
    last = model.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    activation = getattr(last, "activation", None)
    if activation not in (keras.activations.sigmoid, keras.activations.softmax):
        yield
        return
    last.activation = keras.activations.linear
    try:
        yield
    finally:
        last.activation = activation

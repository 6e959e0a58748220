"""Grad-CAM: heat maps of the regions that raise a class score.

Selvaraju et al. (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization*, ICCV, doi:10.1109/ICCV.2017.74. Each cell of a feature map is registered at the
centre of its receptive field (Araujo, Norris and Sim 2019, *Computing Receptive Fields of
Convolutional Neural Networks*, Distill, doi:10.23915/distill.00021): convolutions without padding
shrink the map, and stretching it over the whole image would displace the heat outwards.
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
    """Return Grad-CAM heat maps for a batch of images.

    The class score is the logit, *before* the last sigmoid or softmax, as in the paper. With a
    single sigmoid output, the score of class 1 is the logit and that of class 0 its negative.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, its layers possibly nested in models within it.
    images : ndarray of uint8, shape (n, size, size)
        A few dozen at most: all are processed in one pass.
    layer : str
        A layer whose output has shape (n, h, w, channels), at any depth of the model.
    class_index : int
        The class to explain.
    upsample : bool
        Whether the maps are resampled to the size of the images: bilinearly between the centres
        of the cells' receptive fields, constant beyond the outermost centres.

    Returns
    -------
    ndarray of float32, shape (n, size, size), or (n, h, w) without ``upsample``
        At least 0, in units of the class score: not normalised, so that images are comparable.

    Raises
    ------
    ValueError
        If there is no such layer or class, the layer has no feature maps, or (with
        ``upsample``) their position in the image is unknown.
    """
    target = find_layer(model, layer)
    inputs = tf.convert_to_tensor(images.astype(np.float32)[..., None] / 255.0)
    with tf.GradientTape() as tape, _linear_output(model), _watched(target, tape) as seen:
        score = _class_score(model(inputs, training=False), class_index)
    if not seen or len(seen[-1].shape) != 4:
        raise ValueError(f"layer {layer!r} of {model.name} has no feature maps (n, h, w, c)")
    features = tf.cast(seen[-1], tf.float32)
    gradients = tf.cast(tape.gradient(score, seen[-1]), tf.float32)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy()
    if not upsample:
        return maps
    centres = cell_centres(model, layer)
    weights = [_interpolation(*axis) for axis in zip(centres, images.shape[1:3], strict=True)]
    return np.einsum("nij,iy,jx->nyx", maps, *weights, optimize=True).astype(np.float32)


def cell_centres(model: keras.Model, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions in the image of the cells of a layer's feature maps.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, of a fixed image size.
    layer : str
        A layer whose output has shape (n, h, w, channels), at any depth of the model.

    Returns
    -------
    rows, columns : ndarray of float64, shape (h,) and (w,)
        Centres of the receptive fields, in pixels; 0 is the centre of the first pixel. Centres of
        cells that see padding may lie outside the image. Where branches merge, their mean.

    Raises
    ------
    ValueError
        If there is no such layer, or if an earlier layer is neither a convolution, nor a pooling,
        nor one that keeps height and width.
    """
    target = find_layer(model, layer)
    start = [np.arange(length, dtype=float) for length in model.inputs[0].shape[1:3]]
    found: dict[int, list[np.ndarray]] = {}
    _follow(model, start, found)
    if id(target) not in found:
        raise ValueError(f"the position of the feature maps of {layer!r} in the image is unknown")
    rows, columns = found[id(target)]
    return rows, columns


def _follow(model: keras.Model, start: list[np.ndarray], found: dict) -> list[np.ndarray] | None:
    """Note the centres of each layer's cells, by the layer's id; return those of the output."""
    known = {id(tensor): start for tensor in model.inputs}
    for layer in model.layers:  # in the order of the data
        for node in layer._inbound_nodes:
            before = [known.get(id(tensor)) for tensor in node.input_tensors]
            if not before or any(centres is None for centres in before):
                continue  # beyond what can be followed, or the layer's use in another model
            merged = [np.mean(axis, axis=0) for axis in zip(*before, strict=True)]
            if isinstance(layer, keras.Model):
                after = _follow(layer, merged, found)
            else:
                after = _after(layer, merged, node.outputs[0].shape)
            if after is not None:
                found[id(layer)] = known[id(node.outputs[0])] = after
    return known.get(id(model.outputs[0]))


def _after(layer: keras.Layer, before: list[np.ndarray], shape: tuple) -> list[np.ndarray] | None:
    """Return the centres of a layer's cells, or None where its geometry is not known."""
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", (1, 1)))
    strides = getattr(layer, "strides", (1, 1))
    dilation = getattr(layer, "dilation_rate", (1, 1))
    padded = getattr(layer, "padding", "valid") == "same"
    after = []
    for centres, size, step, spread in zip(before, window, strides, dilation, strict=True):
        reach, length = (size - 1) * spread, len(centres)
        pad = max(0, (-(-length // step) - 1) * step + reach + 1 - length) if padded else 0
        firsts = np.arange(0, length + pad - reach, step) - pad // 2
        spacing = centres[1] - centres[0] if length > 1 else 1.0  # one cell fills the image anyway
        after.append(centres[0] + (firsts + reach / 2) * spacing)
    known = len(shape) == 4 and tuple(shape[1:3]) == tuple(len(centres) for centres in after)
    return after if known else None


def _interpolation(centres: np.ndarray, length: int) -> np.ndarray:
    """Return the weights of linear interpolation, shape (cells, pixels)."""
    pixels = np.arange(length)
    return np.array([np.interp(pixels, centres, cell) for cell in np.eye(len(centres))])


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

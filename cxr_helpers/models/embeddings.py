"""Embeddings: the outputs of hidden layers, a vector for each image."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import keras
import numpy as np

from cxr_helpers.models import tracing, training


def embed(
    model: keras.Model,
    images: np.ndarray,
    *,
    layers: list[str],
    batch_size: int = 32,
    pool: int | None = None,
    rows: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the outputs of one or several hidden layers, in one pass over the images.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional.
    images : ndarray of uint8, shape (n, size, size)
        May be memory-mapped.
    layers : list of str
        Names of layers of the model.
    batch_size : int
        Images in a batch.
    pool : int, optional
        Feature maps larger than ``pool`` × ``pool`` are average-pooled to at most that size, so
        that those of large images fit in memory. None keeps every value.
    rows : ndarray of int, shape (m,), optional
        Positions of the images to embed, in this order; by default all.

    Returns
    -------
    dict of str to ndarray of float32, shape (n, d) or (m, d)
        Flattened, by layer.

    Raises
    ------
    ValueError
        If a layer is not in the model.
    """
    names = [layer.name for layer in model.layers]
    if unknown := set(layers) - set(names):
        raise ValueError(f"{model.name} has no layer {sorted(unknown)}; it has {', '.join(names)}")
    infer = _inference(model, tuple(layers), pool)
    n, start = len(images) if rows is None else len(rows), 0
    vectors: dict[str, np.ndarray] = {}
    for batch, _ in training.batches(images, batch_size=batch_size, order=rows):
        for name, values in zip(layers, keras.tree.flatten(infer(batch)), strict=True):
            if name not in vectors:
                vectors[name] = np.empty((n, values.shape[1]), np.float32)
            vectors[name][start : start + len(batch)] = values
        start += len(batch)
    return vectors


def five_crops(images: np.ndarray, size: int) -> list[np.ndarray]:
    """Return the crops at the four corners and at the centre, views of shape (n, size, size).

    Parameters
    ----------
    images : ndarray of shape (n, side, side)
    size : int
        At most ``side``; if it is ``side``, there is one crop, the images.
    """
    last = images.shape[1] - size
    starts = [(0, 0), (0, last), (last, 0), (last, last), (last // 2, last // 2)]
    return [images[:, top : top + size, left : left + size] for top, left in dict.fromkeys(starts)]


def over_crops(
    model: keras.Model, images: np.ndarray, *, layers: list[str]
) -> dict[str, np.ndarray]:
    """Return the mean outputs of one or several layers over ten crops of each image.

    The crops are those at the corners and at the centre, and their mirror images (Krizhevsky et al.
    2012, *ImageNet Classification with Deep Convolutional Neural Networks*, NeurIPS).

    Parameters
    ----------
    model : keras.Model
        Its input has the size of the crops.
    images : ndarray of uint8, shape (n, side, side)
        At least as large. Of the size of the input, only they and their mirror images are averaged.
    layers : list of str
        Names of layers of the model, the last one among them for its predictions.

    Returns
    -------
    dict of str to ndarray of float32, shape (n, d)
        Flattened, by layer.
    """
    crops = five_crops(images, model.input_shape[1])
    views = [*crops, *(crop[:, :, ::-1] for crop in crops)]
    total = dict.fromkeys(layers, 0)
    for view in views:
        of_view = embed(model, view, layers=layers)
        total = {layer: total[layer] + of_view[layer] for layer in layers}
    return {layer: values / len(views) for layer, values in total.items()}


# By model, layers and pooling: its traced function, which tracing again would take longer than to use.
_TRACED: WeakKeyDictionary[keras.Model, dict[tuple, Callable]] = WeakKeyDictionary()


def _inference(model: keras.Model, layers: tuple[str, ...], pool: int | None) -> Callable:
    """Return the function from a batch to the vectors of some layers."""
    known = _TRACED.setdefault(model, {})
    if (layers, pool) in known:
        return known[layers, pool]
    outputs = []
    for name in layers:
        output = model.get_layer(name).output
        if pool is not None and len(output.shape) == 4:
            step = -(-output.shape[1] // pool)
            if step > 1:
                pooling = keras.layers.AveragePooling2D(step, padding="same", name=f"{name}_pooled")
                output = pooling(output)
        outputs.append(keras.layers.Flatten(dtype="float32", name=f"{name}_vector")(output))
    known[layers, pool] = tracing.inference(keras.Model(model.inputs, outputs))
    return known[layers, pool]

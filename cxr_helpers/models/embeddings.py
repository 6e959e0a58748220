"""Embeddings: what a hidden layer makes of an image."""

from __future__ import annotations

import keras
import numpy as np

from cxr_helpers.models import training


def embed(
    model: keras.Model,
    images: np.ndarray,
    *,
    layers: list[str],
    batch_size: int = 128,
    pool: int | None = None,
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
        Feature maps larger than ``pool`` × ``pool`` are averaged down to at most that, so
        that the code of a large image fits in memory. None keeps every value.

    Returns
    -------
    dict of str to ndarray of float32, shape (n, d)
        Flattened, by layer.

    Raises
    ------
    ValueError
        If a layer is not in the model.
    """
    known = [layer.name for layer in model.layers]
    if unknown := set(layers) - set(known):
        raise ValueError(f"{model.name} has no layer {sorted(unknown)}; it has {', '.join(known)}")
    outputs = []
    for name in layers:
        output = model.get_layer(name).output
        if pool is not None and len(output.shape) == 4:
            step = -(-output.shape[1] // pool)
            if step > 1:
                small = keras.layers.AveragePooling2D(step, padding="same", name=f"{name}_pooled")
                output = small(output)
        outputs.append(keras.layers.Flatten(dtype="float32", name=f"{name}_vector")(output))
    network = keras.Model(model.inputs, outputs)
    found: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    for pictures, _ in training.batches(images, batch_size=batch_size):
        given = network.predict_on_batch(pictures)
        for name, values in zip(layers, given if len(layers) > 1 else [given], strict=True):
            found[name].append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}

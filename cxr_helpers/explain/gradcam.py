"""Grad-CAM: heat maps of the regions that raise a class score.

Selvaraju et al. (2017), *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization*, ICCV, doi:10.1109/ICCV.2017.74. Each cell of a feature map is registered at the
centre of its receptive field (Araujo, Norris and Sim 2019, *Computing Receptive Fields of
Convolutional Neural Networks*, Distill, doi:10.23915/distill.00021): convolutions without padding
shrink the map, and stretching it over the whole image would displace the heat outwards.
"""

from __future__ import annotations

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
    by_position: bool = False,
) -> np.ndarray:
    """Return Grad-CAM heat maps for a batch of images.

    The class score is the logit, *before* the last sigmoid or softmax, as in the paper. With a
    single sigmoid output, the score of class 1 is the logit and that of class 0 its negative.

    Parameters
    ----------
    model : keras.Model
        Flat Sequential or functional classifier whose last layer is Dense.
    images : ndarray of uint8, shape (n, size, size)
        A few dozen at most: all are processed in one pass.
    layer : str
        A layer whose output has shape (n, h, w, channels).
    class_index : int
        The class to explain.
    upsample : bool
        Whether the maps are resampled to the size of the images: bilinearly between the centres
        of the cells' receptive fields, constant beyond the outermost centres.
    by_position : bool
        Whether each position keeps its own gradient: HiResCAM, see ``attributions.hires_cam``.

    Returns
    -------
    ndarray of float32, shape (n, size, size), or (n, h, w) without ``upsample``
        At least 0, in units of the class score: not normalised, so that images are comparable.

    Raises
    ------
    ValueError
        If there is no such layer or class, the layer has no feature maps, their position in the
        image is unknown (with ``upsample``), the last layer is not Dense, or a layer is itself a
        model.
    """
    feature_map = _layer(model, layer).output
    if len(feature_map.shape) != 4:
        raise ValueError(f"layer {layer!r} of {model.name} has no feature maps (n, h, w, c)")
    explained = keras.Model(model.inputs, [feature_map, logits(model)])
    batch = tf.convert_to_tensor(images.astype(np.float32)[..., None] / 255.0)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        features, outputs = explained([batch], training=False)
        score = _class_score(outputs, class_index)
    both = (tf.cast(x, tf.float32).numpy() for x in (features, tape.gradient(score, features)))
    maps = weighted(*both, by_position=by_position)
    if not upsample:
        return maps
    return upsampled(maps, cell_centres(model, layer), images.shape[1])


def weighted(features: np.ndarray, gradients: np.ndarray, *, by_position: bool) -> np.ndarray:
    """Return the positive part of feature maps weighted by the gradient of a score.

    Parameters
    ----------
    features, gradients : ndarray of float32, shape (n, h, w, channels)
    by_position : bool
        Whether each position keeps its own gradient (HiResCAM), or has the mean over all (Grad-CAM).

    Returns
    -------
    ndarray of float32, shape (n, h, w)
    """
    weights = gradients if by_position else gradients.mean(axis=(1, 2), keepdims=True)
    return np.maximum((weights * features).sum(axis=-1), 0)


def upsampled(maps: np.ndarray, centres: tuple[np.ndarray, np.ndarray], size: int) -> np.ndarray:
    """Return maps of a layer's cells at the size of the image.

    Parameters
    ----------
    maps : ndarray of float, shape (n, h, w)
    centres : two ndarrays of float, shape (h,) and (w,)
        From ``cell_centres``.
    size : int
        Height and width of the image in pixels.

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        Bilinear between the centres of the cells' receptive fields, constant beyond the outermost.
    """
    weights = [_interpolation(axis, size) for axis in centres]
    return np.einsum("nij,iy,jx->nyx", maps, *weights, optimize=True).astype(np.float32)


def cell_centres(model: keras.Model, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions in the image of the cells of a layer's feature maps.

    Parameters
    ----------
    model : keras.Model
        Flat Sequential or functional, of a fixed image size, every layer used once.
    layer : str
        A layer whose output has shape (n, h, w, channels).

    Returns
    -------
    rows, columns : ndarray of float64, shape (h,) and (w,)
        Centres of the receptive fields, in pixels; 0 is the centre of the first pixel. Centres of
        cells that see padding may lie outside the image. Where branches merge, their mean;
        squeeze-and-excitation factors, one for each channel, have no position and do not count.

    Raises
    ------
    ValueError
        If there is no such layer, an earlier layer is neither a convolution, nor a pooling, nor
        a zero padding, nor one that keeps height and width, or a layer is itself a model.
    """
    target = _layer(model, layer)
    pixels = [np.arange(length, dtype=float) for length in model.inputs[0].shape[1:3]]
    centres: dict[int, list[np.ndarray] | None] = {id(model.inputs[0]): pixels}
    for step in model.layers:  # in topological order
        inputs = keras.tree.flatten(step.input)
        if len(inputs) > 1:
            inputs = [tensor for tensor in inputs if not _is_factor(tensor)] or inputs
        branches = [centres.get(id(tensor)) for tensor in inputs]
        if branches and None not in branches:
            merged = [np.mean(axis, axis=0) for axis in zip(*branches, strict=True)]
            centres[id(step.output)] = _centres_after(step, merged)
    if (axes := centres.get(id(target.output))) is None:
        raise ValueError(f"the position of the feature maps of {layer!r} in the image is unknown")
    rows, columns = axes
    return rows, columns


def _is_factor(tensor: keras.KerasTensor) -> bool:
    """Return whether a tensor has one value for each channel, broadcast over the image."""
    return tuple(tensor.shape[1:-1]) == (1, 1)


def _centres_after(layer: keras.Layer, before: list[np.ndarray]) -> list[np.ndarray] | None:
    """Return the centres of a layer's cells, or None if its geometry is unknown."""
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return [_extended(*axis) for axis in zip(before, layer.padding, strict=True)]
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", (1, 1)))
    strides = getattr(layer, "strides", (1, 1))
    dilation = getattr(layer, "dilation_rate", (1, 1))
    padded = getattr(layer, "padding", "valid") == "same"
    after = []
    for centres, size, step, spread in zip(before, window, strides, dilation, strict=True):
        reach, length = (size - 1) * spread, len(centres)
        pad = max(0, (-(-length // step) - 1) * step + reach + 1 - length) if padded else 0
        firsts = np.arange(0, length + pad - reach, step) - pad // 2
        after.append(centres[0] + (firsts + reach / 2) * _spacing(centres))
    shape = layer.output.shape
    known = len(shape) == 4 and tuple(shape[1:3]) == tuple(len(centres) for centres in after)
    return after if known else None


def _extended(centres: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    """Return the centres of cells and of those that a padding adds before and after them."""
    cells = np.arange(-padding[0], len(centres) + padding[1])
    return centres[0] + cells * _spacing(centres)


def _spacing(centres: np.ndarray) -> float:
    return centres[1] - centres[0] if len(centres) > 1 else 1.0  # arbitrary for one cell


def _interpolation(centres: np.ndarray, length: int) -> np.ndarray:
    """Return the weights of linear interpolation, shape (cells, pixels)."""
    pixels = np.arange(length)
    return np.array([np.interp(pixels, centres, cell) for cell in np.eye(len(centres))])


def _layer(model: keras.Model, name: str) -> keras.Layer:
    """Return a layer of a flat model."""
    if nested := [layer.name for layer in model.layers if isinstance(layer, keras.Model)]:
        raise ValueError(f"{model.name} contains the models {nested}: expected plain layers only")
    return model.get_layer(name)


def logits(model: keras.Model) -> keras.KerasTensor:
    """Return the output of a model without the activation of its last layer.

    Raises
    ------
    ValueError
        If the last layer is not Dense.
    """
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(f"{model.name} ends with {type(last).__name__}: expected Dense")
    return affine(last.input, last)


def affine(vectors: keras.KerasTensor, dense: keras.layers.Dense) -> keras.KerasTensor:
    """Return what a dense layer makes of vectors, shape (n, d), before its activation."""
    product = keras.ops.matmul(vectors, dense.kernel)
    return product if dense.bias is None else product + dense.bias


def _class_score(logits: tf.Tensor, class_index: int) -> tf.Tensor:
    classes = max(2, logits.shape[-1])
    if not 0 <= class_index < classes:
        raise ValueError(f"class {class_index} of a model with {classes} classes")
    if logits.shape[-1] == 1:
        return logits[:, 0] * (1.0 if class_index == 1 else -1.0)
    return logits[:, class_index]

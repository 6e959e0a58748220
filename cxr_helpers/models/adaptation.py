"""Batch normalisation with the statistics of the images that are predicted, without their labels."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from cxr_helpers.models import embeddings, recipes, tracing, training

BATCH = 96  # images whose statistics are computed at once


def predict(
    model: keras.Model, images: np.ndarray, *, of_crops: keras.Model, seed: int = 0
) -> np.ndarray:
    """Return what ``recipes.predict`` does, of networks adapted to these images.

    The result for one image depends on the others: the statistics are those of all images together,
    in the views that are averaged.

    Parameters
    ----------
    model, of_crops : keras.Model
        A classifier and the same network for crops; they stay unchanged.
    images : ndarray of uint8, shape (n, size, size)
    seed : int
        Of the composition of the batches.

    Returns
    -------
    ndarray of float, shape (n, classes), range [0, 1]
    """
    crops = embeddings.five_crops(images, of_crops.input_shape[1])
    whole, on_crops = (
        adapted(own, [*views, *(view[:, :, ::-1] for view in views)], seed=seed)
        for own, views in ((model, [images]), (of_crops, crops))
    )
    return recipes.predict(whole, images, of_crops=on_crops)


def adapted(model: keras.Model, views: Sequence[np.ndarray], *, seed: int = 0) -> keras.Model:
    """Return a copy of a network whose batch normalisation has the statistics of some images.

    Schneider et al. (2020), *Improving Robustness against Common Corruptions by Covariate Shift
    Adaptation*, NeurIPS; with the statistics of these images alone, none of the training images' is
    mixed in (their N is 0), which suits a hundred images and more. Mean and variance are those over
    all views; the features of a layer are those behind layers that were normalised batch by batch.

    Parameters
    ----------
    model : keras.Model
        Layers of other kinds, such as a normalisation of each image, are not changed.
    views : sequence of ndarray of uint8, shape (n, side, side)
        Of equal size.
    seed : int
        Of the composition of the batches.
    """
    changed = keras.models.clone_model(model)
    changed.set_weights(model.get_weights())
    norms = [x for x in changed.layers if isinstance(x, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # what it keeps are the statistics of one batch
    step = tracing.traced(lambda batch: changed(batch, training=True))
    images = np.concatenate(views)
    order = np.random.default_rng(seed).permutation(len(images))
    sums = [[0.0, 0.0] for _ in norms]  # of the values and of their squares
    for batch, _ in training.batches(images, batch_size=BATCH, order=order):
        step(batch)
        for norm, own in zip(norms, sums, strict=True):
            mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
            own[0] += len(batch) * mean
            own[1] += len(batch) * (variance + mean**2)
    for norm, (first, second) in zip(norms, sums, strict=True):
        mean = first / len(images)
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(np.maximum(second / len(images) - mean**2, 0))
    return changed

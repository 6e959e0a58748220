"""Functions that are traced once."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_helpers.models import tracing

IMAGES = np.random.default_rng(0).random((7, 4, 4, 1), dtype=np.float32)


@pytest.fixture
def model():
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.9)]
    return keras.Sequential([*layers, keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("side", "expected"), [(48, 48), (73, 48), (128, 16), (224, 5), (512, 1), (2000, 1)]
)
def test_large_images_are_passed_through_a_network_in_smaller_batches(side, expected):
    assert tracing.batch_size(side) == expected


def test_function_is_traced_once_for_any_number_of_images():
    shapes = []

    def change(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        shapes.append((tuple(images.shape), tuple(seed.shape)))
        return images + tf.cast(seed[1], images.dtype)

    run = tracing.traced(change)
    for n in (7, 3, 1):
        np.testing.assert_allclose(run(IMAGES[:n], tf.constant([0, 2])), IMAGES[:n] + 2)
    assert shapes == [((None, 4, 4, 1), (2,))]


def test_images_of_another_size_are_traced_anew():
    traces = []
    run = tracing.traced(lambda images: (traces.append(images), images)[1])
    for size in (4, 3, 4):
        run(IMAGES[:, :size])
    assert len(traces) == 2


def test_inference_is_without_dropout(model):
    expected = model(IMAGES, training=False).numpy()
    assert not np.allclose(model(IMAGES, training=True), expected)
    for infer in (tracing.inference(model), tracing.inference_of(model)):
        np.testing.assert_allclose(infer(IMAGES).numpy(), expected, rtol=1e-6)


def test_weights_that_are_set_later_are_used(model):
    infer = tracing.inference_of(model)
    infer(IMAGES)
    model.set_weights([np.zeros_like(weights) for weights in model.get_weights()])
    assert tracing.inference_of(model) is infer and not infer(IMAGES).numpy().any()


def test_function_keeps_no_network_alive():
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    tracing.inference_of(network)(IMAGES)
    alive = weakref.ref(network)
    del network
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None

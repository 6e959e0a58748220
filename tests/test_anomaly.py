import keras
import numpy as np
from keras import layers

from cxr_helpers import anomaly


def constant(grey):
    """Return a model that draws every film in one grey."""
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Conv2D(1, 1, kernel_initializer="zeros")]
    )
    model.layers[-1].bias.assign([grey])
    return model


def test_error_is_the_mean_of_squared_differences():
    films = np.array([[[0, 0], [0, 0]], [[255, 255], [255, 255]], [[0, 255], [0, 0]]], np.uint8)
    error = anomaly.reconstruction_error(constant(0.5), films)
    assert np.allclose(error, 0.25, atol=1e-6)
    error = anomaly.reconstruction_error(constant(0.0), films)
    assert np.allclose(error, [0, 1, 0.25], atol=1e-6)


def test_parts_come_back_in_order():
    films = np.random.default_rng(0).integers(0, 256, (1100, 2, 2), dtype=np.uint8)
    error = anomaly.reconstruction_error(constant(0.0), films)
    assert np.allclose(error, np.mean((films / 255) ** 2, axis=(1, 2)), atol=1e-6)


def test_reconstructions_have_the_shape_of_the_films():
    films = np.zeros((3, 2, 2), np.uint8)
    assert np.allclose(anomaly.reconstruct(constant(0.5), films), np.full((3, 2, 2), 0.5))

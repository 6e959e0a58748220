"""A shift that batch normalisation can undo, planted in images and taken away again."""

import keras
import numpy as np
import pytest

from cxr_helpers.models import adaptation, architectures, recipes, training


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(60, 160, (100, 12, 12), dtype=np.uint8)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(4, 1, use_bias=False),
            keras.layers.BatchNormalization(epsilon=1e-6),
            keras.layers.ReLU(),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def test_statistics_are_those_of_all_views(images):
    model = network()
    found = adaptation.adapted(model, [images[:70], images[70:]])
    features = images[..., None] / np.float32(255) @ model.layers[0].get_weights()[0][0, 0]
    _, _, mean, variance = found.layers[1].get_weights()
    np.testing.assert_allclose(mean, features.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(variance, features.var(axis=(0, 1, 2)), rtol=1e-3)
    assert np.array_equal(model.layers[1].get_weights()[2], np.zeros(4))  # unchanged


def test_another_exposure_changes_no_adapted_prediction(images):
    model = network()
    darker = images // 2  # as far as integers can
    before, after = (training.predict(adaptation.adapted(model, [x]), x) for x in (images, darker))
    np.testing.assert_allclose(after, before, atol=0.03)
    unadapted = training.predict(model, darker) - training.predict(model, images)
    assert np.abs(unadapted).max() > 2 * np.abs(after - before).max()


def test_whole_images_and_crops_are_adapted_apart(images):
    keras.utils.set_random_seed(0)
    whole, crops = (architectures.residual_cnn(size, widths=(4, 8)) for size in (12, 8))
    crops.set_weights(whole.get_weights())
    found = adaptation.predict(whole, images, of_crops=crops)
    assert found.shape == (100, 3) and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert not np.allclose(found, recipes.predict(whole, images, of_crops=crops), atol=1e-3)
    again = adaptation.predict(whole, images[::-1], of_crops=crops)[::-1]
    assert np.abs(found - again).max() < 0.1  # the batches are composed of others

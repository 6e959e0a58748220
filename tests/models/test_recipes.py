"""Training on crops and prediction of whole images."""

from __future__ import annotations

import keras
import numpy as np

from cxr_helpers.models import architectures, recipes, training


def test_crop_sizes_share_the_epochs_equally_in_their_order():
    recipe = recipes.Recipe(epochs=7, crop_sizes=(16, 24, 32), crop_area=0.3, crop_style=0.5)
    sizes = [crop.size for crop in recipe.augmentation()]
    assert sizes == [16, 16, 16, 24, 24, 32, 32]
    assert {(crop.area, crop.style) for crop in recipe.augmentation()} == {(0.3, 0.5)}


def test_a_network_is_trained_on_crops_of_several_sizes():
    images = np.random.default_rng(0).integers(0, 255, (12, 40, 40)).astype(np.uint8)
    one_hot = keras.utils.to_categorical(np.arange(12) % 3)
    model = architectures.residual_cnn(None, widths=(4, 4))
    before = [weights.copy() for weights in model.get_weights()]
    recipe = recipes.Recipe(epochs=2, batch_size=6, crop_sizes=(16, 24), warmup=0)
    history = recipes.fit(model, images, one_hot, recipe, seed=0)
    assert np.isfinite(history["loss"]).all() and len(history) == 2
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_predictions_do_not_depend_on_the_side_and_name_pneumonia():
    images = np.random.default_rng(1).integers(0, 255, (3, 24, 24)).astype(np.uint8)
    model = architectures.residual_cnn(None, widths=(4, 4))
    both = recipes.predict(model, images)
    assert np.allclose(both, recipes.predict(model, images[:, :, ::-1]), atol=1e-6)
    assert np.allclose(
        recipes.pneumonia_probability(model, images, size=24, mirrored=True), 1 - both[:, 0]
    )
    binary = architectures.binary_cnn(24)
    expected = training.predict(binary, images)[:, 0]
    assert np.allclose(recipes.pneumonia_probability(binary, images, size=24), expected)


def test_half_of_a_prediction_is_the_mean_over_ten_crops():
    images = np.random.default_rng(2).integers(0, 255, (3, 24, 24)).astype(np.uint8)
    model = architectures.residual_cnn(None, widths=(4, 4))
    of_crops = architectures.residual_cnn(16, widths=(4, 4))
    of_crops.set_weights(model.get_weights())
    starts = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    each = [recipes.predict(model, images[:, y : y + 16, x : x + 16]) for y, x in starts]
    expected = (recipes.predict(model, images) + np.mean(each, axis=0)) / 2
    found = recipes.predict(model, images, of_crops=of_crops)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    pneumonia = recipes.pneumonia_probability(model, images, size=24, of_crops=of_crops)
    np.testing.assert_allclose(pneumonia, 1 - found[:, 0], atol=1e-6)

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from cxr_helpers.models import architectures, embeddings


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(2, 1, use_bias=False, name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="dense"),
        ]
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)


def test_layer_outputs_match_matrix_products(model, images):
    vectors = embeddings.embed(model, images, layers=["conv", "dense"], batch_size=2)
    kernel = model.get_layer("conv").get_weights()[0].reshape(2)
    conv = (images[..., None] / 255 * kernel).reshape(5, -1)
    weights, bias = model.get_layer("dense").get_weights()
    assert np.allclose(vectors["conv"], conv, atol=1e-6)
    assert np.allclose(vectors["dense"], conv @ weights + bias, atol=1e-5)


def test_large_feature_maps_are_average_pooled(model, images):
    vectors = embeddings.embed(model, images, layers=["conv"], pool=2)["conv"].reshape(5, 2, 2, 2)
    kernel = model.get_layer("conv").get_weights()[0].reshape(2)
    corner = (images[:, :2, :2].mean(axis=(1, 2)) / 255)[:, None] * kernel
    assert np.allclose(vectors[:, 0, 0], corner, atol=1e-6)


def test_rows_are_embedded_in_their_order(model, images):
    rows = np.array([4, 0, 2])
    vectors = embeddings.embed(model, images, layers=["dense", "conv"], batch_size=2, rows=rows)
    expected = embeddings.embed(model, images[rows], layers=["dense", "conv"], batch_size=2)
    for layer in ("dense", "conv"):
        assert np.array_equal(vectors[layer], expected[layer])


def test_unknown_layer_is_refused_with_known_names(model, images):
    with pytest.raises(ValueError, match=r"no layer \['cnv'\].*conv, flat, dense"):
        embeddings.embed(model, images, layers=["cnv"])


def test_layers_are_traced_once_and_with_weights_that_change_later():
    model = architectures.binary_cnn(44)
    images = np.random.default_rng(0).integers(0, 256, (3, 44, 44), dtype=np.uint8)
    first = embeddings.embed(model, images, layers=["conv1"])["conv1"]
    function = embeddings._inference(model, ("conv1",), None)
    model.get_layer("conv1").set_weights([2 * w for w in model.get_layer("conv1").get_weights()])
    again = embeddings.embed(model, images, layers=["conv1"])["conv1"]
    assert embeddings._inference(model, ("conv1",), None) is function
    assert np.allclose(again, 2 * first, atol=1e-5) and first.any()


def test_traced_layers_do_not_keep_their_network():
    model = architectures.binary_cnn(44)
    embeddings._inference(model, ("conv1",), 8)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_crops_are_those_of_the_corners_and_the_centre_and_their_mirror_images(images):
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1, use_bias=False, name="dense")]
    )
    weights = np.array([1.0, 2.0, 4.0, 8.0])  # as large a difference for every order of the pixels
    model.layers[-1].set_weights([weights[:, None]])
    expected = 0
    for top, left in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1)):
        crop = images[:, top : top + 2, left : left + 2] / 255
        for view in (crop, crop[:, :, ::-1]):
            expected = expected + view.reshape(5, 4) @ weights / 10
    found = embeddings.over_crops(model, images, layers=["dense"])["dense"]
    assert found.shape == (5, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_images_of_the_size_of_the_crops_are_averaged_with_their_mirror_images(model, images):
    assert len(embeddings.five_crops(images, 4)) == 1
    each = [
        embeddings.embed(model, view, layers=["dense"])["dense"]
        for view in (images, images[:, :, ::-1])
    ]
    found = embeddings.over_crops(model, images, layers=["dense"])["dense"]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)

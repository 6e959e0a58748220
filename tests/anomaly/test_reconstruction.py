import keras
import numpy as np
from keras import layers

from cxr_helpers.anomaly import reconstruction


def constant(grey):
    """Return a model whose every reconstruction is one grey level."""
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Conv2D(1, 1, kernel_initializer="zeros")]
    )
    model.layers[-1].bias.assign([grey])
    return model


def test_reconstruction_error_is_the_mean_squared_difference():
    images = np.array([[[0, 0], [0, 0]], [[255, 255], [255, 255]], [[0, 255], [0, 0]]], np.uint8)
    error = reconstruction.reconstruction_error(constant(0.5), images)
    assert np.allclose(error, 0.25, atol=1e-6)
    error = reconstruction.reconstruction_error(constant(0.0), images)
    assert np.allclose(error, [0, 1, 0.25], atol=1e-6)


def test_batches_keep_the_order_of_images():
    images = np.random.default_rng(0).integers(0, 256, (1100, 2, 2), dtype=np.uint8)
    error = reconstruction.reconstruction_error(constant(0.0), images)
    assert np.allclose(error, np.mean((images / 255) ** 2, axis=(1, 2)), atol=1e-6)


def test_reconstructions_have_the_shape_of_the_images():
    images = np.zeros((3, 2, 2), np.uint8)
    assert np.allclose(reconstruction.reconstruct(constant(0.5), images), np.full((3, 2, 2), 0.5))


def model_of(layer):
    """Return a model of one layer for images of 48 pixels."""
    images = keras.Input((48, 48, 1))
    return keras.Model(images, layer(images))


def stripes(period, *, rows=slice(None)):
    """Return an image of vertical stripes over some rows of 48, grey elsewhere."""
    image = np.full((48, 48), 128, np.uint8)
    image[rows] = np.where(np.arange(48) % period < period // 2, 78, 178)
    return image


def test_perfect_reconstruction_loses_nothing_and_empty_one_all():
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    copy = reconstruction.error_and_detail(model_of(layers.Identity()), images)
    assert np.allclose(copy.filter(regex="error|lost"), 0)
    empty = reconstruction.error_and_detail(model_of(layers.Rescaling(0.0)), images)
    assert np.allclose(empty.filter(like="lost"), empty.filter(like="energy"))
    assert np.allclose(empty["error whole"], np.mean((images / 255) ** 2, axis=(1, 2)))
    assert np.allclose(empty.filter(like="detail"), copy.filter(like="detail"))


def test_blurring_network_loses_fine_stripes_and_keeps_coarse_ones():
    model = model_of(layers.AveragePooling2D(5, strides=1, padding="same"))
    fine, coarse = stripes(2), stripes(24)
    found = reconstruction.error_and_detail(model, np.stack([fine, coarse]))
    bands = found.filter(like="lost").to_numpy() / found.filter(like="energy").to_numpy()
    # a box of 5 leaves a fifth of the amplitude of the fine stripes, apart from edges
    assert np.isclose(bands[0, 0], (4 / 5) ** 2, atol=0.03)
    assert bands[1, 3] < 0.2  # coarsest band of the coarse stripes
    assert found["detail middle"][0] > 3 * found["detail middle"][1]
    assert found["error middle"][0] > 3 * found["error middle"][1]


def test_outer_region_is_the_outer_sixth_of_each_side():
    found = reconstruction.error_and_detail(
        model_of(layers.Rescaling(0.0, offset=128 / 255)),
        np.stack([stripes(2, rows=slice(0, 8)), stripes(2, rows=slice(8, 40))]),
    )
    square = (50 / 255) ** 2  # amplitude of the stripes
    assert np.allclose(found["error middle"], [0, square], atol=1e-7)
    # 8 × 48 and 32 × 16 of the 48 × 48 - 32 × 32 outer pixels
    assert np.allclose(found["error outer"], np.array([384, 512]) / 1280 * square, atol=1e-7)
    assert np.allclose(found["error whole"], np.array([384, 1536]) / 2304 * square, atol=1e-7)

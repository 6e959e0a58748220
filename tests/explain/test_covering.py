import functools

import keras
import numpy as np
import pytest
import small
from keras import layers

from cxr_helpers.explain import covering


@functools.cache
def published(size, categorical):
    return small.published(size, categorical=categorical)


@pytest.mark.parametrize("fill", covering.FILLS)
@pytest.mark.parametrize(
    ("categorical", "size"), [(False, 44), (False, 71), (True, 44), (True, 61)]
)
@pytest.mark.parametrize(("patch", "stride"), [(8, 4), (9, 5)])
def test_spliced_features_give_the_same_maps(fill, categorical, size, patch, stride):
    explained = published(size, categorical)
    prepared = explained.prepare(small.images(n=3, size=size))
    options = {"patch": patch, "stride": stride, "fill": fill}
    assert covering.Splice.of(explained) is not None
    found = covering.maps(explained, prepared, **options)
    expected = covering.maps(explained, prepared, spliced=False, **options)
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_splice_is_made_once_and_uses_weights_that_change_later():
    explained = small.published(44)
    prepared = explained.prepare(small.images(n=1, size=44))
    splice = covering.Splice.of(explained)
    assert covering.Splice.of(explained) is splice
    options = {"patch": 8, "stride": 8}
    before = covering.maps(explained, prepared, **options)
    explained.model.set_weights([2 * weights for weights in explained.model.get_weights()])
    found = covering.maps(explained, prepared, **options)
    expected = covering.maps(explained, prepared, spliced=False, **options)
    assert np.abs(found - before).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "first",
    [
        lambda: [layers.Conv2D(4, 5, strides=2), layers.Conv2D(4, 3)],
        lambda: [
            layers.Conv2D(4, 3),
            layers.MaxPooling2D(3, strides=2),
            layers.AveragePooling2D(2),
        ],
    ],
    ids=["strided", "overlapping"],
)
def test_other_sequences_are_spliced_exactly(first):
    keras.utils.set_random_seed(0)  # some networks without a bias answer nothing but zero
    explained = small.sequence(*first(), bias=False)
    prepared = explained.prepare(small.images(n=1, size=40))
    options = {"patch": 7, "stride": 5}
    assert covering.Splice.of(explained) is not None
    found = covering.maps(explained, prepared, **options)
    expected = covering.maps(explained, prepared, spliced=False, **options)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "first",
    [
        layers.Conv2D(4, 3, dilation_rate=2),
        layers.Conv2D(4, (3, 5)),
        layers.MaxPooling2D(2, strides=3),
        layers.Conv2DTranspose(4, 3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_first_layers_of_another_geometry_are_not_spliced(first):
    assert covering.Splice.of(small.sequence(first)) is None


def test_network_that_is_no_sequence_is_not_spliced():
    assert covering.Splice.of(small.corner()) is None


def test_network_with_padding_is_not_spliced():
    explained = small.residual()
    assert covering.Splice.of(explained) is None
    heat = covering.maps(explained, explained.prepare(small.images(size=32)), patch=8, stride=4)
    assert heat.shape == (3, 32, 32) and np.ptp(heat) > 0


@pytest.mark.parametrize(
    ("fill", "level"), [("black", lambda x: 0.0), ("mean", lambda x: x.mean())]
)
def test_fall_is_that_of_the_covered_corner(fill, level):
    """Log-odds are 8 times the mean of the corner; a patch on the corner replaces that mean."""
    explained = small.corner()
    prepared = explained.prepare(small.images(size=12))
    heat = covering.maps(explained, prepared, patch=4, stride=4, fill=fill)
    for one, image in zip(heat, prepared, strict=True):
        expected = 8 * (image[:4, :4].mean() - level(image))
        np.testing.assert_allclose(one[:4, :4], expected, atol=1e-4)
        assert np.abs(one[4:]).max() < 1e-5


def test_surroundings_are_the_pixels_around_the_patch():
    image = np.zeros((12, 12), np.float32)
    image[2:10, 2:10] = 1.0
    image[4:8, 4:8] = 5.0  # the patch
    options = {"fill": "surroundings"}
    assert covering._levels(image, [(4, 4)], patch=4, **options) == [1.0]
    assert covering._levels(image, [(0, 0)], patch=12, **options) == pytest.approx(image.mean())


def test_fall_of_the_probability_is_that_of_keras_predictions():
    explained = small.published(44)
    image = small.images(n=1, size=44)

    def score(copies):
        return explained.model.predict(copies, verbose=0)[:, 0]

    expected = small.fall_where_covered(score, image[0], patch=8, stride=4, fill=0.0)
    options = {"patch": 8, "stride": 4, "fill": "black", "of": "probability"}
    found = covering.maps(explained, explained.prepare(image), **options)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_unknown_fill_is_refused():
    explained = small.corner()
    with pytest.raises(ValueError, match="fill 'grey' is not one of black, mean, surroundings"):
        covering.maps(
            explained, explained.prepare(small.images(size=12)), patch=4, stride=4, fill="grey"
        )

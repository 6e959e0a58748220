import numpy as np
import pytest
import small


def test_log_odds_of_one_output_are_the_logit():
    explained, images = small.corner(), small.images(size=12)
    expected = 8 * images[:, :4, :4].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(explained.score(explained.prepare(images)), expected, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_log_odds_of_several_classes_compare_pneumonia_with_normal(classes):
    explained, images = small.residual(classes=classes), small.images(size=32)
    y_prob = explained.model.predict(images[..., None] / np.float32(255), verbose=0)
    expected = np.log(y_prob[:, 1:].sum(axis=1) / y_prob[:, 0])
    np.testing.assert_allclose(explained.score(explained.prepare(images)), expected, atol=1e-4)


@pytest.mark.parametrize("build", [small.published, small.residual])
def test_gradient_equals_central_differences(build):
    explained = build()
    prepared = explained.prepare(small.images(n=1, size=explained.size))
    gradient = explained.gradient(prepared)[0]
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(prepared.shape).astype(np.float32)
    step = 2e-4
    ahead, behind = (explained.score(prepared + s * direction)[0] for s in (step, -step))
    along = float((gradient * direction[0]).sum())
    assert (ahead - behind) / (2 * step) == pytest.approx(along, rel=0.03)


def test_standardised_network_is_explained_after_its_first_layer():
    """A cover then leaves the rest of the input as it is, and 0 is the mean grey level."""
    explained = small.residual()
    prepared = explained.prepare(small.images(size=32))
    assert explained.standardises
    np.testing.assert_allclose(prepared.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(prepared.std(axis=(1, 2)), 1, atol=0.02)


def test_images_of_another_size_are_resized():
    explained = small.published()
    assert explained.prepare(small.images(size=60)).shape == (3, 44, 44)


@pytest.mark.parametrize(("side", "images", "gradients"), [(48, 48, 16), (128, 16, 8), (512, 1, 1)])
def test_gradients_are_computed_for_fewer_images_at_once(side, images, gradients):
    explained = small.corner(size=side, side=side // 2)
    assert (explained.batch_size, explained.gradient_batch_size) == (images, gradients)


def test_more_images_than_a_batch():
    explained = small.corner()
    prepared = explained.prepare(small.images(n=150, size=12))
    one_by_one = np.concatenate([explained.score(image[None]) for image in prepared])
    np.testing.assert_allclose(explained.score(prepared), one_by_one, rtol=1e-5)


def test_weights_that_change_later_are_used():
    explained = small.residual()
    prepared = explained.prepare(small.images(size=32))
    before = explained.score(prepared)
    last = explained.model.layers[-1]
    last.set_weights([weights * 2 for weights in last.get_weights()])
    assert not np.allclose(explained.score(prepared), before)

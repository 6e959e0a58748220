import numpy as np
import pytest
import small

from cxr_helpers.explain import attributions


def test_gradient_lights_the_corner_that_the_network_reads():
    explained = small.corner()
    heat = attributions.absolute_gradient(explained, explained.prepare(small.images(size=12)))
    assert (heat[:, :4, :4] > 0).all()
    heat[:, :4, :4] = 0
    assert (heat == 0).all()


@pytest.mark.parametrize("build", [small.corner, small.published, small.residual])
def test_integrated_gradients_sum_to_the_difference_of_the_scores(build):
    explained = build()
    prepared = explained.prepare(small.images(size=explained.size))
    heat = attributions.integrated_gradients(explained, prepared, steps=256, tolerance=None)
    baseline = np.array(attributions.baseline(prepared))
    expected = explained.score(prepared) - explained.score(baseline)
    np.testing.assert_allclose(heat.sum(axis=(1, 2)), expected, rtol=0.01, atol=1e-4)


@pytest.fixture
def sure():
    """A network whose log-odds are many times those of an untrained one."""
    explained = small.published()
    last = explained.model.layers[-1]
    last.set_weights([100 * last.get_weights()[0], last.get_weights()[1]])
    return explained


def test_integrated_gradients_miss_the_difference_by_no_more_than_the_tolerance(sure):
    prepared = sure.prepare(small.images(size=sure.size, n=6))
    plain = attributions.integrated_gradients(sure, prepared, tolerance=None)
    assert attributions.shortfall(sure, prepared, plain).max() > 0.01  # else this shows nothing
    refined = attributions.integrated_gradients(sure, prepared)
    assert attributions.shortfall(sure, prepared, refined).max() <= 0.01


def test_intervals_are_divided_for_the_images_that_need_it_only(sure):
    prepared = sure.prepare(small.images(size=sure.size, n=6))
    plain = attributions.integrated_gradients(sure, prepared, steps=2, tolerance=None)
    missed = attributions.shortfall(sure, prepared, plain)
    tolerance = np.median(missed)
    refined = attributions.integrated_gradients(sure, prepared, steps=2, tolerance=tolerance)
    np.testing.assert_array_equal(refined[missed <= tolerance], plain[missed <= tolerance])
    shortfall = attributions.shortfall(sure, prepared, refined)
    assert (shortfall < missed)[missed > tolerance].all()


def test_divided_intervals_have_the_midpoints_of_as_many_equal_ones(sure, monkeypatch):
    prepared = sure.prepare(small.images(size=sure.size, n=3))
    monkeypatch.setattr(attributions, "REFINED", 2)
    divided = attributions.integrated_gradients(sure, prepared, steps=2, tolerance=-1)
    at_once = attributions.integrated_gradients(sure, prepared, steps=18, tolerance=None)
    np.testing.assert_allclose(divided, at_once, rtol=1e-3, atol=1e-6)


def test_shortfall_is_a_share_of_the_difference_or_of_one():
    explained = small.corner()
    prepared = explained.prepare(small.images(size=12))
    maps = attributions.integrated_gradients(explained, prepared)
    expected = explained.score(prepared) - explained.score(attributions.baseline(prepared))
    maps[:, 0, 0] += 0.5
    found = attributions.shortfall(explained, prepared, maps)
    np.testing.assert_allclose(found, 0.5 / np.maximum(np.abs(expected), 1), atol=1e-3)


@pytest.mark.parametrize("steps", [3, 8, 40])
def test_integrated_gradients_of_an_image_do_not_depend_on_the_others(steps):
    """Steps of several images share a batch."""
    explained = small.published()
    explained.batch_size = explained.gradient_batch_size = 16
    prepared = explained.prepare(small.images(size=explained.size, n=7))
    options = {"steps": steps, "tolerance": 1e-4}
    together = attributions.integrated_gradients(explained, prepared, **options)
    alone = [attributions.integrated_gradients(explained, x[None], **options) for x in prepared]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-6)


def test_class_activation_sums_to_the_logit_of_a_pooled_network():
    """Of two classes, with global average pooling and one dense layer: exactly, with the bias."""
    explained = small.residual(classes=2)
    last = explained.model.layers[-1]
    last.set_weights([last.get_weights()[0], np.array([0.3, -0.2], np.float32)])
    prepared = explained.prepare(small.images(size=32))
    ((features, gradients),) = explained.features(prepared)
    total = (features * gradients).sum(axis=(1, 2, 3)) - 0.5
    np.testing.assert_allclose(total, explained.score(prepared), atol=1e-4)


def test_hirescam_equals_gradcam_where_only_pooling_follows():
    explained = small.residual(classes=2)
    prepared = explained.prepare(small.images(size=32))
    maps = [m(explained, prepared) for m in (attributions.grad_cam, attributions.hires_cam)]
    assert maps[0].max() > 0
    np.testing.assert_allclose(*maps, atol=1e-6)


def test_hirescam_shows_only_what_a_flattening_network_uses():
    """The corner is used. Grad-CAM averages its gradient over the image, and lights all of it."""
    explained = small.corner()
    prepared = explained.prepare(small.images(size=12))
    by_position = attributions.hires_cam(explained, prepared)
    averaged = attributions.grad_cam(explained, prepared)
    assert by_position[:, 4:].max() == by_position[:, :, 4:].max() == 0 < by_position.max()
    assert (averaged[:, 4:] > 0).mean() > 0.9
    np.testing.assert_allclose(by_position[:, :4, :4], prepared[:, :4, :4] / 2, rtol=1e-5)

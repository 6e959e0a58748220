import numpy as np
import pytest

from cxr_helpers.explain import controls

IMAGES = np.zeros((4, 32, 32), np.uint8)


def test_noise_is_repeatable_and_differs_between_images():
    one, again, other = (controls.noise(IMAGES, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert one.shape == IMAGES.shape and one.min() == 0 and not np.array_equal(one[0], one[1])


def test_smoothed_noise_has_neighbours_that_resemble_each_other():
    def neighbours(maps):
        return np.corrcoef(maps[:, :, 1:].ravel(), maps[:, :, :-1].ravel())[0, 1]

    assert neighbours(controls.noise(IMAGES, seed=0)) < 0.2
    assert neighbours(controls.noise(IMAGES, seed=0, sigma=3)) > 0.9


def test_centred_map_is_highest_in_the_middle_and_symmetric():
    heat = controls.centred(IMAGES)
    assert heat[0, 15, 15] == heat.max() and np.allclose(heat, heat[:, ::-1, ::-1])


def test_edges_of_a_step():
    images = IMAGES.copy()
    images[:, :, 16:] = 100
    heat = controls.edges(images)
    assert (heat[:, :, 15:17] > 0).all() and heat[:, :, :15].max() == heat[:, :, 17:].max() == 0


def test_mean_of_the_others_leaves_the_own_map_out():
    maps = np.arange(3.0)[:, None, None] * np.ones((3, 2, 2))
    assert controls.of_other_images(maps)[:, 0, 0].tolist() == [1.5, 1.0, 0.5]
    with pytest.raises(ValueError, match="at least two"):
        controls.of_other_images(maps[:1])

"""Changes of image style."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cxr_helpers.phantoms import rendering
from cxr_helpers.shortcuts import style


@pytest.fixture(scope="module")
def phantoms():
    """Twelve phantoms of 64 pixels and their labels."""
    drawn = rendering.render(n=12, size=64, seed=3)
    return drawn.images, (drawn.index["class_name"] != "normal").to_numpy(dtype=int)


def test_every_change_changes_every_image_and_keeps_shape_and_type(phantoms):
    images, y_true = phantoms
    before = images.copy()
    names = []
    for name, changed in style.versions(images, y_true, seed=0):
        names.append(name)
        assert changed.shape == images.shape and changed.dtype == np.uint8
        assert (np.abs(changed.astype(int) - images).max(axis=(1, 2)) > 0).all(), name
    assert names == [*style.CHANGES, style.SWAPPED]
    assert np.array_equal(images, before)


def test_changes_are_the_same_at_every_call(phantoms):
    images, y_true = phantoms
    first, second = (dict(style.versions(images, y_true, seed=5)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_noise_of_many_images_is_drawn_as_if_at_once():
    images = np.full((130, 9, 7), 128, np.uint8)
    noise = 12.0 * np.random.default_rng(0).standard_normal(images.shape, dtype=np.float32)
    expected = np.clip(np.rint(images + noise), 0, 255)
    assert np.array_equal(style.noisy(images, 12.0), expected)


def test_tone_changes_move_the_mean_as_their_names_say(phantoms):
    images, _ = phantoms
    assert style.CHANGES["brighter"](images).mean() > images.mean()
    assert style.CHANGES["darker"](images).mean() < images.mean()
    assert style.CHANGES["low contrast"](images).std() == pytest.approx(images.std() / 2, rel=0.1)


def test_blur_lowers_and_sharpening_raises_the_differences_of_neighbouring_pixels(phantoms):
    images, _ = phantoms

    def differences(x):
        return np.abs(np.diff(x.astype(int), axis=2)).mean()

    assert differences(style.CHANGES["blurred"](images)) < differences(images)
    assert differences(style.CHANGES["sharpened"](images)) > differences(images)


def test_border_swap_keeps_the_centre_and_takes_the_border_of_the_donor():
    bars = np.tile(np.arange(100, dtype=np.uint8), (1, 100, 1))
    donor = bars.transpose(0, 2, 1)
    swapped = style.swapped_border(bars, donor)
    assert np.array_equal(swapped[0, 20:80, 20:80], bars[0, 20:80, 20:80])
    # along the upper border the grey level now follows the rows, as in the donor
    assert np.ptp(swapped[0, 2]) <= 2 and np.ptp(bars[0, 2]) == 99


def test_outside_of_a_region_is_that_of_another_image_in_the_tone_of_the_own_one():
    rng = np.random.default_rng(0)
    images = rng.integers(60, 120, (2, 48, 48), dtype=np.uint8)
    donors = rng.integers(150, 250, (2, 48, 48), dtype=np.uint8)
    masks = np.zeros((2, 48, 48), dtype=bool)
    masks[0, 10:30, 10:30] = masks[1, 20:44, 4:40] = True
    swapped = style.swapped_outside(images, donors, masks)
    for own, donor, new, mask in zip(images, donors, swapped, masks, strict=True):
        inner = ndimage.binary_erosion(mask, iterations=5)
        outer = ndimage.binary_erosion(~mask, iterations=5, border_value=1)
        assert np.abs(new[inner].astype(int) - own[inner]).max() <= 1
        assert np.corrcoef(new[outer], donor[outer])[0, 1] > 0.99
        assert abs(new[outer].mean() - own[outer].mean()) < 3
        assert abs(new[outer].std() - own[outer].std()) < 2


def test_images_of_one_class_get_no_border_of_the_other(phantoms):
    images, _ = phantoms
    names = [name for name, _ in style.versions(images[:2], np.ones(2, dtype=int), seed=0)]
    assert names == list(style.CHANGES)


def test_donors_are_of_the_other_class(phantoms):
    _, y_true = phantoms
    assert (y_true[style.donors(y_true, seed=1)] != y_true).all()


def test_black_margin_is_black_and_surrounds_the_whole_image(phantoms):
    images, _ = phantoms
    padded = style.padded(images, 0.5)
    assert padded[:, :15].max() == 0 and padded[:, :, -15:].max() == 0
    assert padded[:, 16:48, 16:48].mean() == pytest.approx(images.mean(), abs=2)


def test_close_collimation_is_the_enlarged_centre():
    disc = np.zeros((1, 60, 60), np.uint8)
    disc[:, 20:40, 20:40] = 255
    assert style.cropped(disc, 0.5).mean() == pytest.approx(4 * disc.mean(), rel=0.05)

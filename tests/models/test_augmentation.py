import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from cxr_helpers.models import augmentation
from cxr_helpers.models.augmentation import Augmentation, RandomResizedCrop, StrongAugmentation

OFF = dict.fromkeys(("rotation", "zoom", "aspect", "shift", "gamma", "contrast", "noise"), 0.0)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


def test_augmentation_without_changes_is_identity(images):
    change = Augmentation(rotation=0, shift=0, flip=False).draw(0)
    batch = images[..., None].astype("float32")
    assert np.array_equal(change(batch)[0], batch)


def test_flip_is_horizontal_only(images):
    batch = images[..., None].astype("float32")
    flipped = np.asarray(Augmentation(rotation=0, shift=0).draw(0)(batch)[0])
    same = (flipped == batch).all(axis=(1, 2, 3))
    mirrored = (flipped == batch[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all() and same.any() and mirrored.any()


def test_shift_stays_within_bound():
    dot = np.zeros((64, 20, 20, 1), "float32")
    dot[:, 10, 10] = 1
    shifted = np.asarray(Augmentation(rotation=0, flip=False, shift=0.2).draw(0)(dot)[0])
    rows, columns = np.nonzero(shifted.max(axis=0)[..., 0])
    assert 5 <= rows.min() < 10 < rows.max() <= 15 and 5 <= columns.min() < 10 < columns.max() <= 15


def test_rotation_is_about_the_centre_and_stays_within_bound():
    dot = np.zeros((64, 41, 41, 1), "float32")
    dot[:, 20, 36] = 1
    turned = np.asarray(Augmentation(rotation=30, flip=False, shift=0).draw(0)(dot)[0])[..., 0]
    rows, columns = np.indices(turned.shape[1:]) - 20
    total = turned.sum(axis=(1, 2))
    row, column = ((turned * at).sum(axis=(1, 2)) / total for at in (rows, columns))
    np.testing.assert_allclose(np.hypot(row, column), 16, atol=0.2)
    angle = np.degrees(np.arctan2(row, column))
    assert -30.5 < angle.min() < -20 and 20 < angle.max() < 30.5


@pytest.mark.parametrize(
    "kind", [Augmentation, StrongAugmentation, lambda: RandomResizedCrop(size=8)]
)
def test_draws_of_one_seed_are_equal_and_do_not_disturb_each_other(images, kind):
    batch, targets = images[..., None] / np.float32(255), np.eye(40, dtype=np.float32)
    one, two, other = kind().draw(5), kind().draw(5), kind().draw(6)
    first = one(batch, targets)[0]
    assert not np.array_equal(first, other(batch, targets)[0])
    assert np.array_equal(first, two(batch, targets)[0])
    assert np.array_equal(one(batch, targets)[0], two(batch, targets)[0])


@pytest.mark.parametrize(
    "kind", [Augmentation, StrongAugmentation, lambda: RandomResizedCrop(size=8)]
)
def test_augmentation_is_compiled_once_for_all_draws(images, kind, monkeypatch):
    batch, targets = images[..., None] / np.float32(255), np.eye(40, dtype=np.float32)
    kind().draw(0)(batch, targets)
    monkeypatch.setattr(tf, "function", None)
    kind().draw(1)(batch, targets)


def strong(images, seed=0, **changes):
    batch = images[..., None] / np.float32(255)
    targets = np.eye(3, dtype=np.float32)[np.arange(len(images)) % 3]
    changed, new_targets = StrongAugmentation(**(OFF | {"mixup": 0.0} | changes)).draw(seed)(
        batch, targets
    )
    return batch, np.asarray(changed), targets, np.asarray(new_targets)


def test_strong_augmentation_at_zero_strength_only_flips(images):
    batch, changed, targets, new_targets = strong(images)
    same = np.isclose(changed, batch, atol=1e-3).all(axis=(1, 2, 3))
    mirrored = np.isclose(changed, batch[:, :, ::-1], atol=1e-3).all(axis=(1, 2, 3))
    assert (same | mirrored).all() and same.any() and mirrored.any()
    assert np.array_equal(targets, new_targets)


def test_strong_augmentation_is_reproducible(images):
    changes = {"rotation": 8.0, "noise": 0.03, "mixup": 0.2, "gamma": 0.3}
    one, two = strong(images, **changes), strong(images, **changes)
    assert np.array_equal(one[1], two[1]) and np.array_equal(one[3], two[3])
    assert not np.array_equal(one[1], strong(images, seed=1, **changes)[1])


def test_calls_draw_independently(images):
    change = StrongAugmentation().draw(0)
    batch, targets = images[..., None] / np.float32(255), np.eye(3, dtype=np.float32)[[0] * 40]
    assert not np.array_equal(change(batch, targets)[0], change(batch, targets)[0])


def test_mixup_blends_labels_and_images_alike():
    images = np.zeros((2, 8, 8), np.uint8)
    images[1] = 255
    change = StrongAugmentation(**OFF, mixup=1.0).draw(0)
    targets = np.eye(2, dtype=np.float32)
    for _ in range(5):  # white images are the second class: the grey level equals the label
        mixed, new_targets = change(images[..., None] / np.float32(255), targets)
        assert np.allclose(np.asarray(mixed).mean(axis=(1, 2, 3)), new_targets[:, 1], atol=1e-3)
        assert np.allclose(new_targets.sum(axis=1), 1)


def test_strong_zoom_and_shift_stay_within_bounds():
    dot = np.zeros((64, 41, 41), np.uint8)
    dot[:, 20, 20] = 255  # the centre is a fixed point of zoom and rotation
    *_, changed, _, _ = strong(dot, rotation=8.0, zoom=0.2)
    assert (changed[:, 20, 20, 0] > 0.5).all()
    _, changed, _, _ = strong(dot, shift=0.1)
    rows, columns = np.nonzero(changed.max(axis=0)[..., 0] > 0.2)
    for axis in (rows, columns):
        assert 15 <= axis.min() < 19 and 21 < axis.max() <= 25


def test_exposure_changes_preserve_order_and_range_of_greys():
    ramp = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (12, 16, 1))
    _, changed, _, _ = strong(ramp, gamma=0.5, contrast=0.3)
    steps = np.diff(changed[:, 8, :, 0], axis=1)
    assert ((steps >= -1e-6).all(axis=1) | (steps <= 1e-6).all(axis=1)).all()
    assert changed.min() >= 0 and changed.max() <= 1


def crops(images, seed=0, **options):
    """Return random resized crops of (n, side, side) floats in [0, 1]."""
    changed, targets = RandomResizedCrop(**({"tone": 0.0} | options)).draw(seed)(
        images[..., None].astype(np.float32), np.arange(len(images))
    )
    assert np.array_equal(targets, np.arange(len(images)))
    return np.asarray(changed)[..., 0]


def test_crop_of_the_whole_area_is_the_image_or_its_mirror_image():
    ramp = np.tile(np.linspace(0.1, 0.9, 16), (40, 16, 1))
    found = crops(ramp, size=16, area=1.0, aspect=1.0)
    same = np.isclose(found, ramp, atol=1e-5).all(axis=(1, 2))
    mirrored = np.isclose(found, ramp[:, :, ::-1], atol=1e-5).all(axis=(1, 2))
    assert (same | mirrored).all() and same.any() and mirrored.any()


def test_crop_shows_between_the_smallest_area_and_all_of_the_image():
    """On a ramp across, the range of grey levels of a crop is its width."""
    ramp = np.tile(np.linspace(0, 1, 101), (400, 101, 1))
    found = crops(ramp, size=32, area=0.25, aspect=1.0)
    width = found.max(axis=(1, 2)) - found.min(axis=(1, 2))
    assert 0.48 < width.min() < 0.56 and 0.95 < width.max() <= 1.0
    assert (width**2).mean() == pytest.approx(0.625, abs=0.04)  # the area is uniform
    assert found.min() >= 0 and found.max() <= 1


def test_crop_keeps_its_aspect_within_bounds():
    across = np.tile(np.linspace(0, 1, 101), (300, 101, 1))
    down = across.transpose(0, 2, 1)
    options = {"size": 32, "area": 0.1, "aspect": 4 / 3}
    widths, heights = (np.ptp(crops(x, **options), axis=(1, 2)) for x in (across, down))
    small = (widths < 0.9) & (heights < 0.9)  # none was clipped at the image's edge
    ratio = widths[small] / heights[small]
    assert 0.7 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.4


def test_crop_tone_changes_grey_levels_only():
    flat = np.full((60, 8, 8), 0.5)
    found = crops(flat, size=8, tone=0.35)
    assert np.ptp(found, axis=(1, 2)).max() < 1e-6  # a flat image stays flat
    levels = found[:, 0, 0]
    assert levels.std() > 0.03 and levels.min() > 0.1 and levels.max() < 1


def test_crops_depend_on_the_seed_and_on_the_call():
    images = np.random.default_rng(0).random((6, 20, 20))
    change = RandomResizedCrop(size=12).draw(3)
    first, second = (np.asarray(change(images[..., None].astype("f4"), None)[0]) for _ in "ab")
    again = np.asarray(RandomResizedCrop(size=12).draw(3)(images[..., None].astype("f4"), None)[0])
    assert np.array_equal(first, again) and not np.allclose(first, second)


def test_style_keeps_the_crops_and_the_range():
    rng = np.random.default_rng(0)
    images = rng.random((40, 16, 16))
    plain = crops(images, size=12)
    styled = crops(images, size=12, style=1.0)
    assert styled.min() >= 0 and styled.max() <= 1
    similar = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(plain, styled, strict=True)]
    assert min(similar) > 0.5 and np.abs(plain - styled).max(axis=(1, 2)).min() > 1e-3
    weaker = crops(images, size=12, style=0.1)
    assert np.abs(weaker - plain).mean() < 0.3 * np.abs(styled - plain).mean()


def test_equalised_levels_are_the_shares_of_pixels_not_brighter():
    image = np.float32([[0.1, 0.5], [0.9, 0.5]])[None, ..., None]
    found = np.asarray(augmentation._equalised(tf.constant(image)))[0, ..., 0]
    np.testing.assert_allclose(found, [[0.25, 0.75], [1.0, 0.75]])


def test_blur_is_that_of_scipy():
    images = np.random.default_rng(0).random((2, 11, 11)).astype(np.float32)
    found = np.asarray(augmentation._blurred(tf.constant(images[..., None])))[..., 0]
    options = {"sigma": (0, 1, 1), "truncate": 2, "mode": "nearest"}
    np.testing.assert_allclose(found, ndimage.gaussian_filter(images, **options), atol=1e-6)

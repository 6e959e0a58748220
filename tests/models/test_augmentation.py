import numpy as np
import pytest

from cxr_helpers.models.augmentation import Augmentation, StrongAugmentation

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

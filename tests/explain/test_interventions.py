import numpy as np
import pytest
import small

from cxr_helpers.explain import interventions
from cxr_helpers.system import blocks


def mask(rows, columns, size=12, n=1):
    masks = np.zeros((n, size, size), dtype=bool)
    masks[:, rows, columns] = True
    return masks


def test_effect_of_a_brighter_corner_by_hand():
    """Log-odds are 8 times the mean of the corner, minus 4 by the bias."""
    explained = small.corner()
    last = explained.model.layers[-1]
    last.set_weights([last.get_weights()[0], np.array([-4.0], np.float32)])
    before = np.full((2, 12, 12), 51, np.uint8)
    after = before.copy()
    after[1, :4, :4] = 204
    found = interventions.effect(explained, before, after)
    np.testing.assert_allclose(found.change, [0, 8 * 0.6], atol=1e-5)
    assert found.flipped.tolist() == [False, True]


def test_right_calls_by_hand():
    """Log-odds are 8 times the mean of the corner, minus 4 by the bias."""
    explained = small.corner()
    last = explained.model.layers[-1]
    last.set_weights([last.get_weights()[0], np.array([-4.0], np.float32)])
    images = np.stack([np.full((12, 12), grey, np.uint8) for grey in (0, 51, 204)])
    assert interventions.right(explained, images, np.array([0, 1, 1])).tolist() == [1, 0, 1]


def test_experiments_give_the_effect_of_each_on_its_images():
    explained = small.corner()
    originals = np.random.default_rng(0).integers(0, 256, (5, 12, 12)).astype(np.uint8)
    darker, where = originals // 2, np.array([True, False, True, True, False])
    experiments = {
        "darkened": (where, originals, darker),
        "darkened further": (~where, darker, darker // 2),
    }
    found = interventions.effects(explained, originals, experiments)
    for name, (rows, before, after) in experiments.items():
        alone = interventions.effect(explained, before[rows], after[rows])
        np.testing.assert_allclose(found[name].change, alone.change, atol=1e-5)
        assert np.array_equal(found[name].flipped, alone.flipped)
    assert found["darkened"].change.max() < 0


def test_images_are_erased_alike_alone_and_among_many():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 12, 12)).astype(np.uint8)
    masks = rng.random(images.shape) < 0.2
    together = interventions.erased(images, masks)
    alone = [interventions.erased(images[[i]], masks[[i]])[0] for i in range(40)]
    assert np.array_equal(together, alone)


def test_erased_letter_leaves_its_surroundings():
    images = np.full((1, 12, 12), 90, np.uint8)
    letter = mask(slice(4, 7), slice(4, 7))
    images[letter] = 250
    assert (interventions.erased(images, letter, margin=1) == 90).all()


def test_widened_by_one_pixel_and_not_around_the_edge():
    wide = interventions.widened(mask(slice(0, 2), slice(4, 6)), 1)
    assert np.array_equal(wide, mask(slice(0, 3), slice(3, 7)))


def test_placebo_is_mirrored_and_touches_no_marker():
    markers = np.concatenate([mask(slice(1, 3), slice(1, 3)), mask(slice(1, 3), slice(5, 7))])
    markers = np.concatenate([markers, np.zeros((1, 12, 12), dtype=bool)])
    mirrored, usable = interventions.placebo(markers, markers)
    assert np.array_equal(mirrored[0], mask(slice(1, 3), slice(9, 11))[0])
    assert usable.tolist() == [True, False, False]  # the second one is its own mirror image


@pytest.mark.parametrize("at_once", [64, 1])  # the donor is in another block
def test_transplanted_letter_keeps_place_and_brightness(monkeypatch, at_once):
    monkeypatch.setattr(blocks, "SIZE", at_once)
    images = np.full((2, 12, 12), 40, np.uint8)
    images[1] = 80
    masks = np.concatenate([mask(slice(2, 4), slice(2, 4)), mask(slice(7, 9), slice(2, 4))])
    images[0, 2:4, 2:4] += 100
    images[1, 7:9, 2:4] += 60
    found = interventions.transplanted(images, masks, np.array([1, 0]))
    assert (found[0, 7:9, 2:4] == 100).all() and (found[0, 2:4, 2:4] == 40).all()
    assert (found[1, 2:4, 2:4] == 180).all() and (found[1, 7:9, 2:4] == 80).all()


@pytest.mark.parametrize("other", [True, False])
def test_donors_are_of_another_patient_and_of_the_class_that_was_asked(other):
    y_true = np.array([0, 0, 0, 1, 1, 1])
    groups = np.array(["a", "a", "b", "c", "c", "d"])
    usable = np.array([True, True, True, True, True, True])
    for seed in range(5):
        found = interventions.donors(y_true, groups, usable, other=other, seed=seed)
        assert ((y_true[found] != y_true) == other).all() and (groups[found] != groups).all()
    only = np.array([True, False, False, False, False, False])
    found = interventions.donors(y_true, groups, only, other=False, seed=0)
    assert found.tolist() == [-1, -1, 0, -1, -1, -1]

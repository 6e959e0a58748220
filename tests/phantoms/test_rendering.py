"""Phantoms: planted properties of the images, and invariants of the patient list."""

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.phantoms import rendering
from cxr_helpers.phantoms.rendering import SHARES, redraw, render

BOX = ["marker_x0", "marker_y0", "marker_x1", "marker_y1"]
COLUMNS = ["file", "split", "class_name", "patient", "severity", *BOX]


@pytest.fixture(scope="module")
def images():
    return render(n=100, size=64, seed=5)


@pytest.fixture(scope="module")
def without_lesions():
    return render(n=100, size=64, seed=5, lesion_contrast=0)


def rows(images, name):
    return np.flatnonzero(images.index["class_name"] == name)


def box_of(images, i):
    x0, y0, x1, y1 = images.index.loc[i, BOX]
    return np.s_[y0:y1, x0:x1]


def auroc(values, index):
    """Return the probability that a random pneumonia has a larger value than a random normal."""
    positive = index["class_name"] != "normal"
    above = values[positive].to_numpy()[:, None] - values[~positive].to_numpy()
    return np.mean((above > 0) + 0.5 * (above == 0))


@pytest.mark.parametrize("size", [32, 50, 128, 160])
def test_shapes_types_and_ranges(size):
    images = render(n=5, size=size)
    assert images.images.shape == images.lesion_masks.shape == images.lung_masks.shape
    assert images.images.shape == (5, size, size)
    assert images.images.dtype == np.uint8
    assert images.lesion_masks.dtype == images.lung_masks.dtype == bool
    assert list(images.index.columns) == COLUMNS
    assert len(images.index) == 5
    box = images.index[BOX].to_numpy()
    assert (0 <= box).all() and (box <= size).all() and (box[:, :2] < box[:, 2:]).all()


def test_images_do_not_depend_on_the_number_of_threads(images):
    again = render(n=100, size=64, seed=5, threads=1)
    assert np.array_equal(images.images, again.images)
    assert np.array_equal(images.lesion_masks, again.lesion_masks)
    assert images.index.equals(again.index)


def test_global_random_state_is_neither_read_nor_changed():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    one = render(n=2, size=32).images
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(2)
    assert np.array_equal(one, render(n=2, size=32).images)


def test_another_seed_gives_other_images():
    one, two = (render(n=4, size=32, seed=seed).images for seed in (0, 1))
    assert (one != two).any(axis=(1, 2)).all()


def test_image_is_the_same_at_two_sizes(images):
    large = render(n=100, size=128, seed=5)
    reduced = large.images.reshape(100, 64, 2, 64, 2).mean(axis=(2, 4))
    outside = np.ones((100, 64, 64), bool)
    outside[:, :, :12] = False  # the letter snaps to pixels
    assert np.abs(reduced - images.images)[outside].mean() < 3
    assert np.array_equal(large.index["file"], images.index["file"])


def test_lesions_lie_in_the_lungs_and_only_in_pneumonia(images):
    assert not images.lesion_masks[rows(images, "normal")].any()
    for name in ("bacterial", "viral"):
        assert images.lesion_masks[rows(images, name)].any(axis=(1, 2)).all()
    inside = images.lesion_masks & images.lung_masks
    assert inside.sum() > 0.97 * images.lesion_masks.sum()
    share = images.lung_masks.mean(axis=(1, 2))
    assert share.min() > 0.12 and share.max() < 0.55


def test_viral_lesions_are_bilateral_and_bacterial_mostly_unilateral(images):
    def bilateral(name):
        masks = images.lesion_masks[rows(images, name)]
        return np.mean(masks[..., :32].any(axis=(1, 2)) & masks[..., 32:].any(axis=(1, 2)))

    assert bilateral("viral") == 1
    assert bilateral("bacterial") < 0.6


def test_lesion_contrast_brightens_the_lesion_only(images, without_lesions):
    assert np.array_equal(images.lesion_masks, without_lesions.lesion_masks)
    change = images.images.astype(int) - without_lesions.images
    assert not change[rows(images, "normal")].any()
    assert not change[:, :4].any() and not change[:, -3:].any()
    for i in np.flatnonzero(images.index["severity"] > 0.3):
        lesion, lungs = images.lesion_masks[i], images.lung_masks[i]
        assert change[i][lesion].mean() > 3
        assert change[i][lesion].mean() > 2 * change[i][lungs & ~lesion].mean()
        assert change[i][lesion].mean() > 10 * np.abs(change[i][~lungs]).mean()


def test_lesions_are_brighter_with_higher_contrast(images, without_lesions):
    stark = render(n=100, size=64, seed=5, lesion_contrast=2)
    lesion = images.lesion_masks
    means = [f.images[lesion].mean() for f in (without_lesions, images, stark)]
    assert means[0] < means[1] < means[2]


def test_heart_is_on_the_viewers_right_and_lungs_are_dark(images):
    for image, lungs in zip(images.images, images.lung_masks, strict=True):
        assert image[lungs].mean() + 30 < image[20:44, 30:34].mean()
    normal = images.lung_masks[rows(images, "normal")]
    assert normal[..., :32].sum() > 1.1 * normal[..., 32:].sum()
    average = images.images[rows(images, "normal")].mean(axis=0)
    assert average[34:42, 40:44].mean() > average[34:42, 20:24].mean() + 20


def test_right_dome_of_the_diaphragm_is_higher(images):
    depth = np.where(images.lung_masks, np.arange(64)[:, None], 0)
    right, left = (depth[..., side].max(axis=(1, 2)) for side in np.s_[:32, 32:])
    assert left.mean() > right.mean() + 0.5


def test_marker_box_holds_the_letter():
    images = render(n=30, size=128, seed=5)
    for i, image in enumerate(images.images):
        rows, columns = box = box_of(images, i)
        letter = np.zeros(image.shape, bool)
        letter[box] = True
        around = np.zeros(image.shape, bool)
        around[max(rows.start - 3, 0) : rows.stop + 3, : columns.stop + 3] = True
        assert np.percentile(image[letter], 95) > np.percentile(image[around & ~letter], 95) + 10


def test_marker_is_independent_of_class_unless_biased():
    free, biased = (render(n=100, size=32, marker_bias=bias).index for bias in (0.0, 1.0))
    assert free["class_name"].equals(biased["class_name"])
    for index, low, high in ((free, 0.3, 0.7), (biased, 1, 1)):
        height = -index["marker_y0"]
        assert low <= auroc(height, index) <= high
    tall = biased["marker_y1"] - biased["marker_y0"]
    assert auroc(tall, biased) > 0.75


def test_mean_brightness_is_independent_of_class():
    images = render(n=150, size=32, seed=1)
    mean = pd.Series(images.images.mean(axis=(1, 2)))
    assert 0.3 < auroc(mean, images.index) < 0.7


def test_patient_list_keeps_patients_in_one_split():
    index = render(n=150, size=32, seed=2).index
    patients = index.groupby(["class_name", "patient"])
    assert patients["split"].nunique().max() == 1
    assert set(patients.size()) == {1, 2, 3}
    assert index["file"].is_unique
    assert index["file"].str.fullmatch(r"phantom-\d{6}-(normal|bacterial|viral)-\d\d\.png").all()


def test_classes_and_splits_have_their_shares():
    index = render(n=100, size=32).index
    assert index["split"].value_counts().to_dict() == {"train": 73, "test": 27}
    for _, split in index.groupby("split"):
        counts = split["class_name"].value_counts()
        for name, share in SHARES.items():
            assert abs(counts[name] - share * len(split)) < 1


def test_shares_of_given_splits_are_met():
    index = render(n=20, size=32, splits={"train": 0.5, "validation": 0.25, "test": 0.25}).index
    assert index["split"].value_counts().to_dict() == {"train": 10, "validation": 5, "test": 5}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n is 0; expected an integer from 1"),
        ({"n": 2.0}, "n is 2.0"),
        ({"size": 16}, "size is 16; expected an integer from 32 to 512"),
        ({"size": 513}, "size is 513"),
        ({"seed": -1}, "seed is -1"),
        ({"lesion_contrast": -0.1}, "lesion_contrast is -0.1"),
        ({"lesion_contrast": float("nan")}, "lesion_contrast is nan"),
        ({"marker_bias": 1.5}, "marker_bias is 1.5; expected a finite number from 0 to 1"),
        ({"splits": {"train": 0.5, "test": 0.6}}, "splits is .* sum to 1"),
        ({"splits": {}}, "splits is {}"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        render(**{"n": 2, "size": 32} | wrong)


@pytest.fixture(scope="module")
def first():
    return render(n=12, size=48, seed=4, marker_bias=0.5)


def again(first, **changes):
    return redraw(first.index, n=12, size=48, seed=4, marker_bias=0.5, changes=changes)


def test_redrawn_without_a_change_is_the_same(first):
    assert np.array_equal(again(first), first.images)
    some = redraw(first.index.iloc[[7, 2]], n=12, size=48, seed=4, marker_bias=0.5)
    assert np.array_equal(some, first.images[[7, 2]])


def test_redrawn_without_severity_is_as_without_contrast(first):
    invisible = render(n=12, size=48, seed=4, marker_bias=0.5, lesion_contrast=0.0)
    assert np.array_equal(again(first, severity=0.0), invisible.images)


def test_redrawn_marker_changes_nothing_but_the_marker(first):
    without, high = again(first, marker=None), again(first, marker=1.0)
    for i, row in enumerate(first.index.itertuples()):
        changed = np.argwhere(without[i] != first.images[i])
        assert changed[:, 1].max() <= row.marker_x1 + 2 and len(
            changed
        )  # blurred by a pixel or two
    assert (high != without).any(axis=(1, 2)).all()
    rows = [np.argwhere(h != w)[:, 0].max() for h, w in zip(high, without, strict=True)]
    assert max(rows) < 48 / 3  # at the top


def test_body_is_drawn_once_for_all_markers_and_anew_for_another_lesion(first, monkeypatch):
    drawn, draw = [], rendering._draw_body
    monkeypatch.setattr(rendering, "_draw_body", lambda *key: (drawn.append(key), draw(*key))[1])
    rendering._bodies.cache_clear()
    for changes in ({}, {"marker": None}, {"marker": 0.2}):
        redraw(first.index, n=12, size=48, seed=4, changes=changes)
    assert len(drawn) == len(set(drawn)) == 12
    redraw(first.index, n=12, size=48, seed=4, changes={"severity": 0.0})
    assert len(drawn) == 24
    rendering._bodies.cache_clear()


def test_lesion_of_another_class_appears_in_a_normal_image(first):
    normal = (first.index["class_name"] == "normal").to_numpy()
    found = again(first, lesion="bacterial", severity=1.0)
    changed = (found != first.images).mean(axis=(1, 2))
    assert (changed[normal] > 0.02).all()
    none = again(first, lesion="normal")
    assert np.array_equal(none[normal], first.images[normal])


def test_redrawn_image_of_another_run_is_refused(first):
    with pytest.raises(ValueError, match="is not one of 12 phantoms of the seed 4"):
        redraw(first.index.assign(file="x.png"), n=12, size=48, seed=4)


def test_each_image_can_have_a_change_of_its_own(first):
    changes = [{"marker": None}] + [{}] * 11
    found = redraw(first.index, n=12, size=48, seed=4, marker_bias=0.5, changes=changes)
    assert not np.array_equal(found[0], first.images[0])
    assert np.array_equal(found[1:], first.images[1:])

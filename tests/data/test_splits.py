import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import splits
from cxr_helpers.system.errors import DataError


def images(groups=60, seed=0):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 6, groups)
    names = np.array([f"g{i}" for i in range(groups)])
    classes = np.array(["normal", "bacterial", "viral"])[np.arange(groups) % 3]
    return np.repeat(names, sizes), np.repeat(classes, sizes)


def test_validation_keeps_groups_together():
    groups, classes = images()
    mask = splits.validation_mask(groups, classes, fraction=0.2, seed=0)
    assert set(groups[mask]).isdisjoint(groups[~mask])


def test_validation_has_the_target_share_of_each_class():
    groups, classes = images(300)
    mask = splits.validation_mask(groups, classes, fraction=0.2, seed=0)
    assert mask.mean() == pytest.approx(0.2, abs=0.02)
    for name in np.unique(classes):
        assert mask[classes == name].mean() == pytest.approx(0.2, abs=0.04)


def test_split_depends_on_the_seed_only():
    groups, classes = images()
    one, two, three = (
        splits.validation_mask(groups, classes, fraction=0.2, seed=s) for s in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, three)


def test_fraction_zero_selects_no_image():
    assert not splits.validation_mask(*images(), fraction=0, seed=0).any()


@pytest.mark.parametrize("fraction", [-0.1, 0.6])
def test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"expected 0 to 0\.5"):
        splits.validation_mask(*images(), fraction=fraction, seed=0)


def test_rare_class_stays_in_train():
    groups, classes = images(60)
    groups, classes = np.append(groups, "x"), np.append(classes, "unknown subtype")
    mask = splits.validation_mask(groups, classes, fraction=0.2, seed=0)
    assert mask.any() and not mask[-1]


@pytest.mark.parametrize("kind", ["normal", "one kind of pneumonia"])
def test_too_few_groups_are_refused_by_class(kind):
    classes = np.repeat(["normal", "viral"], [2, 9] if kind == "normal" else [9, 2])
    groups = [f"g{i}" for i in range(11)]
    with pytest.raises(
        DataError,
        match=f"too few images of {kind}: train needs at least 3 patient groups and has 2",
    ):
        splits.validation_mask(groups, classes, fraction=0.1, seed=0)


@pytest.mark.parametrize(("normal", "pneumonia"), [(0, 9), (1, 9), (9, 1)])
def test_test_images_of_one_class_are_refused(normal, pneumonia):
    classes = np.repeat(["normal", "viral"], [normal, pneumonia])
    message = f"test has {normal} normal images and {pneumonia} with pneumonia"
    with pytest.raises(DataError, match=message):
        splits.check_test(classes)
    splits.check_test(np.repeat(["normal", "viral", "bacterial"], [2, 1, 1]))


def test_few_groups_still_give_normal_and_pneumonia_on_both_sides():
    """Three normal, nine bacterial and three viral patients."""
    classes = np.repeat(["normal", "bacterial", "viral"], [3, 9, 3])
    groups = np.array([f"g{i}" for i in range(15)])
    for seed in range(20):
        mask = splits.validation_mask(groups, classes, fraction=0.1, seed=seed)
        for side in (mask, ~mask):
            assert "normal" in classes[side] and len(set(classes[side])) > 1


OPTIONS = {"validation": 0.1, "contiguous": 0.1, "selection": "validation", "seed": 0}


def test_splits_keep_groups_together_and_both_classes_in_train():
    groups = series()
    classes = np.array([group.split()[0] for group in groups])
    split = splits.validation_splits(groups, classes, **OPTIONS)
    assert sorted(set(split)) == ["contiguous", "train", "validation"]
    assert all(len(set(split[groups == group])) == 1 for group in set(groups))
    assert {*classes[split == "train"]} == {*classes[split == "validation"]} == {"normal", "viral"}
    unsplit = splits.validation_splits(
        groups, classes, **OPTIONS | {"validation": 0, "contiguous": 0}
    )
    assert (unsplit == "train").all()


def test_selection_split_needs_normal_and_pneumonia():
    groups = np.array([*(f"normal {i}" for i in range(40)), *(f"x/{i}.png" for i in range(40))])
    classes = np.repeat(["normal", "viral"], 40)
    assert (splits.validation_splits(groups, classes, **OPTIONS) == "contiguous").sum() == 4
    with pytest.raises(
        DataError, match="too few images of one kind of pneumonia: contiguous after splitting"
    ):
        splits.validation_splits(groups, classes, **OPTIONS | {"selection": "contiguous"})


def series(n=40, per=3):
    return np.repeat([f"{name} {i}" for name in ("normal", "viral") for i in range(n)], per)


def test_block_is_contiguous_in_each_series():
    groups = series()
    mask = splits.contiguous_mask(groups, fraction=0.2, seed=0)
    for name in ("normal", "viral"):
        here = np.array([g.startswith(name) for g in groups])
        numbers = sorted({int(g.split()[1]) for g in groups[mask & here]})
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert mask[here].mean() == pytest.approx(0.2, abs=0.06)


def test_block_keeps_groups_together():
    groups = series()
    mask = splits.contiguous_mask(groups, fraction=0.13, seed=3)
    assert set(groups[mask]).isdisjoint(groups[~mask])


def test_images_without_patient_number_are_in_no_block():
    """Their group is named after the file, or the row of an array, which may end in a number too."""
    groups = np.array(
        [f"normal train/{i:05d}" for i in range(40)] + [f"viral {i}" for i in range(9)]
    )
    mask = splits.contiguous_mask(groups, fraction=0.2, seed=0)
    assert mask.sum() == 2 and not mask[:40].any()


def test_blocks_are_ordered_by_number_not_by_text():
    groups = np.array([f"viral {i}" for i in (9, 10, 11, 100, 101)])
    mask = splits.contiguous_mask(groups, fraction=0.4, seed=0)
    chosen = [int(g.split()[1]) for g in groups[mask]]
    assert chosen in ([9, 10], [10, 11], [11, 100], [100, 101])


def test_groups_without_a_number_are_not_in_blocks():
    groups = np.array([*series(), *(["normal train/a.jpeg"] * 50)])
    assert not splits.contiguous_mask(groups, fraction=0.5, seed=0)[-50:].any()
    assert not splits.contiguous_mask(groups, fraction=0, seed=0).any()


def test_contiguous_fraction_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"contiguous fraction 0\.9"):
        splits.contiguous_mask(series(), fraction=0.9, seed=0)


def test_groups_that_share_a_duplicate_form_one_cluster():
    """b and d share images 2 and 5, d and e images 4 and 6."""
    groups = np.array(["a", "b", "b", "c", "d", "d", "e"])
    clusters = splits.clusters(groups, pd.DataFrame({"first": [2, 4], "second": [5, 6]}))
    assert [clusters[0], clusters[1], clusters[3]] == list(dict.fromkeys(clusters))
    assert (clusters == clusters[1]).tolist() == [False, True, True, False, True, True, True]


def test_clusters_are_groups_without_duplicates():
    groups, _ = images()
    clusters = splits.clusters(groups, pd.DataFrame({"first": [], "second": []}))
    assert len(set(zip(clusters, groups, strict=True))) == len(set(groups)) == len(set(clusters))


def test_rare_class_stays_with_its_group():
    """A group of two classes, one of them too rare for stratification."""
    groups, classes = images(60)
    groups, classes = np.append(groups, "rare"), np.append(classes, "unknown subtype")
    for name in np.unique(groups[:-1]):
        groups[-1] = name
        mask = splits.validation_mask(groups, classes, fraction=0.2, seed=0)
        assert mask[-1] == mask[:-1][groups[:-1] == name].all()


def test_duplicates_join_the_block():
    groups = series()
    block = splits.contiguous_mask(groups, fraction=0.2, seed=0)
    pairs = pd.DataFrame({"first": np.flatnonzero(block)[:2], "second": np.flatnonzero(~block)[:2]})
    together = splits.clusters(groups, pairs)
    mask = splits.contiguous_mask(groups, together=together, fraction=0.2, seed=0)
    assert mask[block].all() and mask.sum() > block.sum()
    assert set(together[mask]).isdisjoint(together[~mask])


def test_folds_hold_out_whole_groups_of_every_class_in_equal_shares():
    groups = np.repeat(np.arange(60), 2)
    classes = np.repeat(["normal", "bacterial", "viral"], 40)
    folds = list(splits.stratified_folds(classes, groups, folds=4, seed=0))
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(120))
    for train, held_out in folds:
        assert not set(groups[train]) & set(groups[held_out])
        assert [np.sum(classes[held_out] == name) for name in np.unique(classes)] == [10, 10, 10]
    (_, again), *_ = splits.stratified_folds(classes, groups, folds=4, seed=0)
    (_, other), *_ = splits.stratified_folds(classes, groups, folds=4, seed=1)
    assert np.array_equal(again, folds[0][1]) and not np.array_equal(other, folds[0][1])

import numpy as np
import pytest

from cxr_helpers import splits


def films(groups=60, seed=0):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 6, groups)
    names = np.array([f"g{i}" for i in range(groups)])
    classes = np.array(["normal", "bacterial", "viral"])[np.arange(groups) % 3]
    return np.repeat(names, sizes), np.repeat(classes, sizes)


def test_no_group_is_parted():
    groups, classes = films()
    mask = splits.validation_mask(groups, classes, fraction=0.2, seed=0)
    assert set(groups[mask]).isdisjoint(groups[~mask])


def test_share_is_met_and_classes_are_balanced_alike():
    groups, classes = films(300)
    mask = splits.validation_mask(groups, classes, fraction=0.2, seed=0)
    assert mask.mean() == pytest.approx(0.2, abs=0.02)
    for name in np.unique(classes):
        assert mask[classes == name].mean() == pytest.approx(0.2, abs=0.04)


def test_same_seed_same_split_and_another_seed_another():
    groups, classes = films()
    one, two, three = (
        splits.validation_mask(groups, classes, fraction=0.2, seed=s) for s in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, three)


def test_zero_means_no_validation():
    assert not splits.validation_mask(*films(), fraction=0, seed=0).any()


@pytest.mark.parametrize("fraction", [-0.1, 0.6])
def test_impossible_share_is_refused(fraction):
    with pytest.raises(ValueError, match=r"expected 0 to 0\.5"):
        splits.validation_mask(*films(), fraction=fraction, seed=0)


def test_too_few_groups_are_named():
    with pytest.raises(ValueError, match="class 'viral' has 1 patient groups"):
        splits.validation_mask(["a", "b", "c"], ["normal", "normal", "viral"], fraction=0.5, seed=0)

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.shortcuts import metadata


def test_size_baseline_finds_a_planted_association():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 300)
    sizes = pd.DataFrame({"width": 1000 + 500 * labels + draw.integers(0, 300, 300)})
    sizes["height"] = 900
    probabilities = metadata.size_baseline(
        sizes[:200], labels[:200], sizes[200:], classes=2, seed=0
    )
    assert ((probabilities[:, 1] > 0.5) == labels[200:]).mean() > 0.98
    assert np.allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("present", [[0, 2], [1, 2], [1]])
def test_class_missing_from_train_has_probability_zero(present):
    labels = np.tile(present, 100)
    sizes = pd.DataFrame({"width": 1000 + 300 * labels + np.arange(len(labels)) % 7, "height": 900})
    probabilities = metadata.size_baseline(sizes, labels, sizes, classes=3, seed=0)
    assert np.array_equal(probabilities.argmax(axis=1), labels) and np.allclose(
        probabilities.sum(axis=1), 1
    )
    assert (np.delete(probabilities, present, axis=1) == 0).all()


def test_equal_sizes_give_no_baseline():
    sizes = pd.DataFrame({"width": [224] * 6, "height": [224] * 6})
    assert metadata.size_baseline(sizes, np.array([0, 1] * 3), sizes, classes=2, seed=0) is None


def test_size_features_equal_hand_arithmetic():
    features = metadata.size_features(pd.DataFrame({"width": [100], "height": [50]}))
    assert features == pytest.approx(np.array([[np.log(100), np.log(50), 2.0]]))

import numpy as np
import pytest

from cxr_helpers.models import sampling

CATEGORY = np.array([0, 1, 1, 2, 2, 2])


def test_balanced_draws_every_class_equally_often():
    probability = sampling.balanced(CATEGORY)
    assert np.allclose([probability[CATEGORY == c].sum() for c in range(3)], 1 / 3)
    assert np.allclose(probability, [1 / 3, 1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9])


def test_balanced_keeps_relative_weights_within_a_class():
    probability = sampling.balanced(CATEGORY, np.array([1, 1, 3, 1, 1, 1]))
    assert np.allclose(probability[1:3], [1 / 12, 3 / 12])
    assert probability.sum() == pytest.approx(1)


def test_balanced_ignores_classes_without_images():
    assert np.allclose(sampling.balanced(np.array([0, 2, 2])), [1 / 2, 1 / 4, 1 / 4])


@pytest.mark.parametrize(("n", "of"), [(15_000, sampling.MANY), (sampling.REFERENCES, 10**6)])
def test_all_are_used_up_to_the_limits(n, of):
    assert sampling.subsample(n, of=of, seed=0).all()


def test_of_many_images_the_seed_determines_a_sample():
    first, same, other = (sampling.subsample(40_000, of=60_000, seed=s) for s in (0, 0, 1))
    assert first.shape == (40_000,) and first.sum() == other.sum() == sampling.REFERENCES
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    few = sampling.subsample(40_000, of=60_000, seed=0, most=7)
    assert few.sum() == 7 and sampling.subsample(7, of=60_000, seed=0, most=7).all()
    assert first[:20_000].mean() == pytest.approx(1 / 4, abs=0.02)

from functools import partial

import numpy as np
import pytest
from scipy import stats

from cxr_helpers.evaluation import bootstrap, metrics

RNG = np.random.default_rng(0)


def test_groups_are_resampled_whole_within_their_class():
    groups = np.array(["b", "a", "b", "c", "d", "d", "d"])
    classes = np.array([0, 0, 0, 1, 1, 1, 1])
    times = bootstrap.resamples(groups, classes, draws=200, seed=3)
    assert times.shape == (200, 7)
    assert (times[:, 0] == times[:, 2]).all() and (times[:, 4] == times[:, 6]).all()
    # two groups per class: the counts of one image of each add up to two
    assert (times[:, [0, 1]].sum(axis=1) == 2).all() and (times[:, [3, 4]].sum(axis=1) == 2).all()
    assert set(times[:, 1]) == {0, 1, 2}


def test_group_of_two_classes_belongs_to_the_class_of_its_first_image():
    times = bootstrap.resamples([5, 7, 5], [0, 1, 1], draws=50, seed=0)
    assert (times == 1).all()  # each class has one group


def test_resampling_is_with_replacement():
    times = bootstrap.resamples(np.arange(50), np.zeros(50), draws=4000, seed=0)
    assert times.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert (times == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


def test_seed_determines_the_resamples():
    first, same, other = (
        bootstrap.resamples(np.arange(9), np.arange(9) % 2, draws=20, seed=s) for s in (1, 1, 2)
    )
    assert np.array_equal(first, same) and not np.array_equal(first, other)


@pytest.fixture
def many(monkeypatch):
    """Take more than 2,000 weights as many, and 600 of them at a time."""
    monkeypatch.setattr(bootstrap, "AT_ONCE", 2000)
    monkeypatch.setattr(bootstrap, "BLOCK", 600)


GROUPS, CLASSES = RNG.integers(0, 60, 90), np.arange(90) % 3


def test_many_resamples_are_the_same_in_a_byte_each(request):
    at_once = bootstrap.resamples(GROUPS, CLASSES, draws=70, seed=4)
    request.getfixturevalue("many")
    in_blocks = bootstrap.resamples(GROUPS, CLASSES, draws=70, seed=4)
    assert at_once.dtype == int and in_blocks.dtype == np.uint8
    assert np.array_equal(at_once, in_blocks)


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.balanced_accuracy, metrics.auroc])
def test_intervals_in_blocks_are_the_same(request, metric):
    y_true, y_score = CLASSES > 0, np.random.default_rng(1).random(90).round(1)
    predictions = y_score if metric is metrics.auroc else (y_score > 0.4).astype(int)
    weights = bootstrap.resamples(GROUPS, CLASSES, draws=70, seed=4)
    expected = bootstrap.estimate(metric, y_true, predictions, weights=weights)
    request.getfixturevalue("many")
    sizes = []

    def noted(y_true, predictions, weights):
        sizes.append(weights.size)
        return metric(y_true, predictions, weights)

    weights = bootstrap.resamples(GROUPS, CLASSES, draws=70, seed=4)
    assert bootstrap.estimate(noted, y_true, predictions, weights=weights) == expected
    assert (
        max(sizes) <= bootstrap.BLOCK and sum(sizes) == 71 * 90
    )  # the estimate, and each draw once


def test_mean_of_many_weights_does_not_overflow(many):
    weights = bootstrap.resamples(np.arange(900), np.zeros(900), draws=10, seed=0)
    assert bootstrap.mean(np.ones(900), weights=weights) == (1, 1, 1)


def test_resamples_of_the_published_test_images_are_made_at_once():
    assert 2000 * 5856 <= bootstrap.AT_ONCE


def test_interval_agrees_with_scipy_where_each_image_is_a_group():
    right = RNG.random(150) < 0.8
    weights = bootstrap.resamples(np.arange(150), np.ones(150), draws=5000, seed=0)
    _, low, high = bootstrap.estimate(metrics.accuracy, np.ones(150), right, weights=weights)
    expected = stats.bootstrap(
        (right,), np.mean, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_copies_within_a_group_do_not_narrow_the_interval():
    y_true = np.arange(60) % 2
    y_score = y_true + RNG.normal(0, 1.5, 60)
    copies = np.repeat(np.arange(60), 4)
    single = bootstrap.resamples(np.arange(60), y_true, draws=500, seed=0)
    grouped = bootstrap.resamples(copies, y_true[copies], draws=500, seed=0)
    ungrouped = bootstrap.resamples(np.arange(240), y_true[copies], draws=500, seed=0)
    expected = bootstrap.estimate(metrics.auroc, y_true, y_score, weights=single)
    copied = metrics.auroc, y_true[copies], y_score[copies]
    assert bootstrap.estimate(*copied, weights=grouped) == pytest.approx(expected)
    _, low, high = bootstrap.estimate(*copied, weights=ungrouped)
    assert high - low < 0.7 * (expected[2] - expected[1])


def test_grouped_intervals_cover_the_planted_accuracy_at_the_nominal_rate():
    rng, covered = np.random.default_rng(7), {"grouped": 0, "ungrouped": 0}
    groups = np.repeat(np.arange(40), 3)
    for seed in range(200):
        right = (rng.random(40) < 0.7)[groups]  # the same for all images of a patient
        for name, units in (("grouped", groups), ("ungrouped", np.arange(120))):
            weights = bootstrap.resamples(units, np.ones(120), draws=300, seed=seed)
            low, high = bootstrap.percentile(weights @ right / weights.sum(axis=1))
            covered[name] += low <= 0.7 <= high
    assert 0.88 <= covered["grouped"] / 200 <= 0.99
    assert covered["ungrouped"] / 200 < 0.85


def test_percentiles_by_hand_ignore_undefined_resamples():
    assert bootstrap.percentile([*range(101), np.nan]) == pytest.approx((2.5, 97.5))
    assert np.isnan(bootstrap.percentile([np.nan])).all()


def test_estimate_without_weights_has_no_interval():
    value, low, high = bootstrap.estimate(metrics.accuracy, [0, 1, 1, 1], [0, 1, 1, 0])
    assert value == 0.75 and np.isnan(low) and np.isnan(high)


def test_difference_is_paired_by_image():
    y_true = np.arange(400) % 2
    second = np.where(RNG.random(400) < 0.3, 1 - y_true, y_true)
    first, wrong = second.copy(), np.flatnonzero(second != y_true)
    first[wrong[:20]] = y_true[wrong[:20]]
    weights = bootstrap.resamples(np.arange(400), y_true, draws=500, seed=0)
    gap, low, high = bootstrap.difference(metrics.accuracy, y_true, first, second, weights=weights)
    assert gap == pytest.approx(20 / 400) and 0 < low < gap < high
    # separate intervals overlap: they vary with the images that both rows get wrong
    _, low_first, _ = bootstrap.estimate(metrics.accuracy, y_true, first, weights=weights)
    _, _, high_second = bootstrap.estimate(metrics.accuracy, y_true, second, weights=weights)
    assert low_first < high_second
    same = bootstrap.difference(metrics.accuracy, y_true, first, first, weights=weights)
    assert same == (0, 0, 0)


def test_mcnemar_by_hand():
    # a alone is right on eight images, b alone on one: 2 (1 + 9) / 2 ** 9
    right_a = np.array([1] * 8 + [0] + [1] * 5)
    right_b = np.array([0] * 8 + [1] + [1] * 5)
    assert bootstrap.mcnemar(right_a, right_b) == pytest.approx(20 / 512)
    assert bootstrap.mcnemar(right_b, right_a) == pytest.approx(20 / 512)
    assert bootstrap.mcnemar(right_a, right_a) == 1


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        bootstrap.mcnemar([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="2 groups and 3 classes"):
        bootstrap.resamples([1, 2], [0, 0, 1], seed=0)
    with pytest.raises(ValueError, match="draws 0"):
        bootstrap.resamples([1, 2], [0, 1], draws=0, seed=0)


def test_paired_comparison_is_the_difference_of_accuracies_with_mcnemars_p():
    """Of 40 images, the first row is right on 30, the second on those and 6 more."""
    y_true = np.arange(40) % 2
    first = np.where(np.arange(40) < 30, y_true, 1 - y_true)
    second = np.where(np.arange(40) < 36, y_true, 1 - y_true)
    compared = bootstrap.paired(y_true, second, first, groups=np.arange(40), seed=0)
    assert compared.difference == pytest.approx(6 / 40)
    assert 0 < compared.low < 6 / 40 < compared.high < 0.5
    assert compared.p == pytest.approx(2 * 0.5**6)


def test_mean_of_values_leaves_the_unknown_out():
    weights = bootstrap.resamples(np.arange(50), np.zeros(50), draws=400, seed=0)
    values = np.where(np.arange(50) % 5, np.linspace(0, 1, 50), np.nan)
    value, low, high = bootstrap.mean(values, weights=weights)
    assert value == pytest.approx(np.nanmean(values)) and low < value < high


def test_mean_of_too_few_values_has_no_interval():
    values = np.array([1.0, 2.0, 3.0, np.nan])
    weights = bootstrap.resamples(np.arange(4), np.ones(4), seed=0)
    value, *interval = bootstrap.mean(values, weights=weights, fewest=4)
    assert value == 2 and np.isnan(interval).all()
    assert not np.isnan(bootstrap.mean(values, weights=weights, fewest=3)).any()


def test_images_of_one_patient_count_once_for_an_interval():
    groups = np.repeat(["a", "b", "c"], 4)
    weights = bootstrap.resamples(groups, np.repeat([0, 0, 1], 4), seed=0)
    assert bootstrap.n_groups(weights) == 3
    values = np.arange(12.0)
    assert np.isnan(bootstrap.mean(values, weights=weights, fewest=4)[1:]).all()
    assert np.isfinite(bootstrap.mean(values, weights=weights, fewest=3)).all()
    y_true = np.repeat([0, 0, 1], 4)
    for estimate in (
        partial(bootstrap.estimate, metrics.auroc, y_true, values),
        partial(bootstrap.difference, metrics.auroc, y_true, values, -values),
    ):
        value, *interval = estimate(weights=weights, fewest=4)
        assert value == 1 and np.isnan(interval).all()
        assert np.isfinite(estimate(weights=weights, fewest=3)).all()

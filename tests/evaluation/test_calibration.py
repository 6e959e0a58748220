import numpy as np
import pytest
from scipy import special
from sklearn import calibration as reference
from sklearn import metrics

from cxr_helpers.evaluation import calibration

RNG = np.random.default_rng(0)


def test_most_accurate_threshold_by_hand():
    # at 0.5 only the negative at 0.7 is wrong; no threshold does better
    y_true, y_score = [0, 0, 1, 0, 1, 1], [0.1, 0.3, 0.7, 0.7, 0.8, 0.9]
    assert calibration.threshold(y_true, y_score) == pytest.approx(0.5)


def test_threshold_ties_are_broken_by_gap_then_by_value():
    # 1.5 and 4.5 both classify three of four correctly
    assert calibration.threshold([0, 1, 0, 1], [1, 2, 3, 6]) == pytest.approx(4.5)
    # gaps of equal width: the lowest
    assert calibration.threshold([0, 1, 0, 1], [1, 2, 3, 4]) == pytest.approx(1.5)


def test_no_threshold_is_more_accurate_than_the_chosen_one():
    y_true = (RNG.random(300) < 0.6).astype(int)
    y_score = (y_true + RNG.normal(0, 1, 300)).round(1)
    chosen = calibration.threshold(y_true, y_score)
    accuracies = [metrics.accuracy_score(y_true, y_score >= t) for t in [*y_score, np.inf]]
    assert metrics.accuracy_score(y_true, y_score >= chosen) == max(accuracies)


@pytest.mark.parametrize("at_least", [0.8, 0.95, 1.0])
def test_threshold_for_a_sensitivity_is_the_highest_possible(at_least):
    y_true = (RNG.random(300) < 0.6).astype(int)
    y_score = y_true + RNG.normal(0, 1, 300)
    chosen = calibration.threshold(y_true, y_score, aim="sensitivity", at_least=at_least)
    assert metrics.recall_score(y_true, y_score >= chosen) >= at_least
    # the next positive to be missed
    above = y_score[(y_true == 1) & (y_score >= chosen)].min()
    assert metrics.recall_score(y_true, y_score > above) < at_least
    assert not ((y_score > chosen) & (y_score < above)).any()


def test_threshold_for_a_sensitivity_by_hand():
    y_true, y_score = [1, 0, 1, 1, 1], [1, 2, 3, 4, 5]
    thresholds = [
        calibration.threshold(y_true, y_score, aim="sensitivity", at_least=share)
        for share in (0.75, 0.76)
    ]
    assert thresholds == [2.5, 1]  # one positive may be missed; none may, and the lowest is one


def test_reversed_score_gets_a_threshold_beyond_all_scores():
    assert calibration.threshold([1, 1, 0, 0, 0], [0.1, 0.2, 0.6, 0.7, 0.8]) > 0.8
    assert calibration.threshold([1, 1, 1, 0, 0], [0.1, 0.2, 0.3, 0.7, 0.8]) < 0.1


def test_threshold_separates_adjacent_floating_point_numbers():
    y_score = np.array([1.0, np.nextafter(1.0, 2)])
    assert (y_score >= calibration.threshold([0, 1], y_score)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("y_true", "options", "message"),
    [
        ([1, 1], {}, r"classes \[1\]"),
        ([0, 2], {}, r"classes \[0, 2\]"),
        ([0, 1], {"aim": "luck"}, "'luck'"),
        ([0, 1], {"aim": "sensitivity", "at_least": 1.2}, "1.2"),
    ],
)
def test_threshold_refuses_invalid_arguments(y_true, options, message):
    with pytest.raises(ValueError, match=message):
        calibration.threshold(y_true, [0.1, 0.9], **options)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_temperature_recovers_a_planted_value(planted):
    calibrated = RNG.normal(0, 2, (20000, 3))
    cumulative = special.softmax(calibrated, axis=1).cumsum(axis=1)
    y_true = (RNG.random((20000, 1)) > cumulative).sum(axis=1)
    assert calibration.temperature(calibrated * planted, y_true) == pytest.approx(planted, rel=0.05)


def test_temperature_by_hand():
    # three of four correct at the same logit z: best probability 3/4, so z / T = log 3
    logits = np.tile([0.0, 5.0], (4, 1))
    found = calibration.temperature(logits, np.array([1, 1, 1, 0]))
    assert found == pytest.approx(5 / np.log(3), rel=1e-4)


@pytest.mark.parametrize("margin", [0.5, 8.0])
def test_temperature_is_not_determined_where_every_prediction_is_correct(margin):
    y_true = np.arange(60) % 2
    logits = np.column_stack([np.zeros(60), np.where(y_true, margin, -margin)])
    assert np.isnan(calibration.temperature(logits, y_true))
    assert calibration.temperature(logits, np.r_[1, y_true[1:]]) > 0.1
    assert calibration.temperature(0 * logits, y_true) > 0  # a tie is not correct


def test_temperature_lowers_the_loss_and_keeps_the_predicted_class():
    logits, y_true = RNG.normal(0, 4, (200, 3)), RNG.integers(0, 3, 200)
    scaled = special.softmax(logits / calibration.temperature(logits, y_true), axis=1)
    plain = special.softmax(logits, axis=1)
    assert metrics.log_loss(y_true, scaled) < metrics.log_loss(y_true, plain)
    assert np.array_equal(scaled.argmax(axis=1), plain.argmax(axis=1))


def test_temperature_refuses_invalid_arguments():
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        calibration.temperature(np.zeros((2, 1)), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        calibration.temperature(np.zeros((2, 2)), np.array([0, 2]))


def test_prior_shift_by_hand():
    # odds 1 : 1 at 3/4 pneumonia are odds 1 : 3 at one half
    found = calibration.prior_shift([0.5], trained=0.75, target=0.5)
    assert found == pytest.approx([0.25])
    two = calibration.prior_shift([[0.5, 0.5]], trained=[0.25, 0.75], target=[0.5, 0.5])
    assert two == pytest.approx(np.array([[0.75, 0.25]]))


def test_prior_shift_agrees_with_bayes_rule():
    feature = RNG.normal(0, 1, 50)
    likelihood = np.exp(-((feature[:, None] - [-1, 0, 1]) ** 2))
    old, new = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    before, expected = (
        likelihood * s / (likelihood * s).sum(axis=1, keepdims=True) for s in (old, new)
    )
    assert calibration.prior_shift(before, trained=old, target=new) == pytest.approx(expected)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [0.0, 1.0], [0.2, 0.3, 0.5]])
def test_prior_shift_refuses_invalid_shares(shares):
    with pytest.raises(ValueError, match=str(shares[1])):
        calibration.prior_shift([[0.5, 0.5]], trained=[0.5, 0.5], target=shares)


def test_reliability_by_hand():
    table = calibration.reliability([0, 1, 1, 1], [0.25, 0.5, 0.375, 1.0], bins=4)
    intervals = table[["share low", "share high"]].to_numpy()
    # Wilson's interval of k of n at z = 1.96, such as z² / (n + z²) above 0 of 1
    assert intervals == pytest.approx(np.array([[0, 0.7935], [0.3424, 1], [0.2065, 1]]), abs=1e-4)
    table = table.drop(columns=["share low", "share high"])
    assert table.to_numpy().tolist() == [
        [0.0, 0.25, 0.25, 0.0, 1],
        [0.25, 0.5, 0.4375, 1.0, 2],
        [0.75, 1.0, 1.0, 1.0, 1],
    ]
    assert list(table) == ["low", "high", "mean probability", "observed share", "n"]


def test_reliability_agrees_with_scikit_learn_and_with_the_error():
    y_prob = RNG.random(500)
    y_true = (RNG.random(500) < y_prob**2).astype(int)
    table = calibration.reliability(y_true, y_prob)
    share, mean = reference.calibration_curve(y_true, y_prob, n_bins=10)
    assert table["observed share"].to_numpy() == pytest.approx(share)
    assert table["mean probability"].to_numpy() == pytest.approx(mean)
    gaps = (table["observed share"] - table["mean probability"]).abs()
    assert calibration.calibration_error(y_true, y_prob) == pytest.approx(
        np.average(gaps, weights=table["n"])
    )


def test_calibrated_probabilities_have_a_smaller_error_than_sharpened_ones():
    y_prob = RNG.random(5000)
    y_true = (RNG.random(5000) < y_prob).astype(int)
    sharp = y_prob**3 / (y_prob**3 + (1 - y_prob) ** 3)
    assert calibration.calibration_error(y_true, y_prob) < 0.03
    assert calibration.calibration_error(y_true, sharp) > 0.08


def test_float32_probabilities_lie_on_the_side_of_the_threshold_that_was_promised():
    """NumPy rounds a Python float to float32 before it compares."""
    levels = [np.float32(1)]
    while len(levels) < 6:
        levels.append(np.nextafter(levels[-1], np.float32(0)))
    y_prob = np.array(levels[::-1])
    for n_negative in range(1, 6):
        y_true = (np.arange(6) >= n_negative).astype(int)
        found = calibration.thresholds(y_true, y_prob)["most accurate"]
        assert ((y_prob >= found) == y_true).all()
    none_positive = calibration.thresholds(np.array([0, 0, 1]), np.float32([1, 1, 0.5]))
    assert not (np.float32([1]) >= none_positive["most accurate"]).any()


def test_thresholds_are_chosen_only_where_both_classes_occur():
    y_true, y_score = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    found = calibration.thresholds(y_true, y_score, at_least=0.5)
    assert list(found) == ["0.5", "most accurate", "sensitivity 0.5"]
    assert found["0.5"] == 0.5 and 0.2 < found["most accurate"] < 0.3
    assert 0.3 < found["sensitivity 0.5"] <= 0.9
    assert calibration.thresholds(y_true[:2], y_score[:2]) == {"0.5": 0.5}


def test_threshold_that_keeps_every_positive_image_is_the_lowest_score():
    chosen = calibration.thresholds(np.array([1, 0, 1, 1]), np.array([0.5, 0.6, 0.5, 0.5]))
    assert chosen["sensitivity 0.95"] == 0.5


def test_thresholds_beyond_all_scores_are_clipped_to_the_unit_interval():
    all_positive = calibration.thresholds(np.array([1, 0, 1, 1]), np.array([0.5, 0.6, 0.5, 0.5]))
    assert all_positive["most accurate"] == 0
    none_positive = calibration.thresholds(np.array([0, 0, 0, 1]), np.array([0.5, 1.0, 0.5, 0.4]))
    assert 1 < none_positive["most accurate"] < 1.001

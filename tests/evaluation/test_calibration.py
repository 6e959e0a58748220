import numpy as np
import pytest
from scipy import special
from sklearn import calibration as reference
from sklearn import metrics

from cxr_helpers.evaluation import calibration

DRAW = np.random.default_rng(0)


def test_the_most_accurate_cut_by_hand():
    # 0.5 calls all but the 0 at 0.7 right; no cut does better
    y_true, score = [0, 0, 1, 0, 1, 1], [0.1, 0.3, 0.7, 0.7, 0.8, 0.9]
    assert calibration.threshold(y_true, score) == pytest.approx(0.5)


def test_of_cuts_as_good_the_one_in_the_widest_gap():
    # 1.5 and 4.5 both have three of four right
    assert calibration.threshold([0, 1, 0, 1], [1, 2, 3, 6]) == pytest.approx(4.5)
    # as wide: the lowest
    assert calibration.threshold([0, 1, 0, 1], [1, 2, 3, 4]) == pytest.approx(1.5)


def test_no_other_cut_is_more_accurate():
    y_true = (DRAW.random(300) < 0.6).astype(int)
    score = (y_true + DRAW.normal(0, 1, 300)).round(1)
    cut = calibration.threshold(y_true, score)
    tried = [metrics.accuracy_score(y_true, score >= c) for c in [*score, np.inf]]
    assert metrics.accuracy_score(y_true, score >= cut) == max(tried)


@pytest.mark.parametrize("at_least", [0.8, 0.95, 1.0])
def test_the_sensitive_cut_is_the_highest_that_finds_enough(at_least):
    y_true = (DRAW.random(300) < 0.6).astype(int)
    score = y_true + DRAW.normal(0, 1, 300)
    cut = calibration.threshold(y_true, score, aim="sensitivity", at_least=at_least)
    assert metrics.recall_score(y_true, score >= cut) >= at_least
    above = np.sort(score[(y_true == 1) & (score >= cut)])[0]  # the next image to be given up
    assert metrics.recall_score(y_true, score > above) < at_least
    assert not ((score > cut) & (score < above)).any()


def test_a_sensitive_cut_by_hand():
    y_true, score = [1, 0, 1, 1, 1], [1, 2, 3, 4, 5]
    found = [
        calibration.threshold(y_true, score, aim="sensitivity", at_least=share)
        for share in (0.75, 0.76)
    ]
    assert found == pytest.approx([2.5, 1 - 4])  # one image may be missed; none may


def test_a_score_the_wrong_way_round_gets_a_cut_that_calls_all_alike():
    assert calibration.threshold([1, 1, 0, 0, 0], [0.1, 0.2, 0.6, 0.7, 0.8]) > 0.8
    assert calibration.threshold([1, 1, 1, 0, 0], [0.1, 0.2, 0.3, 0.7, 0.8]) < 0.1


def test_neighbours_with_nothing_between_are_still_parted():
    score = np.array([1.0, np.nextafter(1.0, 2)])
    assert (score >= calibration.threshold([0, 1], score)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("y_true", "options", "words"),
    [
        ([1, 1], {}, r"classes \[1\]"),
        ([0, 2], {}, r"classes \[0, 2\]"),
        ([0, 1], {"aim": "luck"}, "'luck'"),
        ([0, 1], {"aim": "sensitivity", "at_least": 1.2}, "1.2"),
    ],
)
def test_a_cut_that_cannot_be_chosen(y_true, options, words):
    with pytest.raises(ValueError, match=words):
        calibration.threshold(y_true, [0.1, 0.9], **options)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(planted):
    honest = DRAW.normal(0, 2, (20000, 3))
    chances = special.softmax(honest, axis=1).cumsum(axis=1)
    y_true = (DRAW.random((20000, 1)) > chances).sum(axis=1)
    assert calibration.temperature(honest * planted, y_true) == pytest.approx(planted, rel=0.05)


def test_a_temperature_by_hand():
    # three of four right with the same logit z: best probability 3/4, so z / T = log 3
    logits = np.tile([0.0, 5.0], (4, 1))
    found = calibration.temperature(logits, np.array([1, 1, 1, 0]))
    assert found == pytest.approx(5 / np.log(3), rel=1e-4)


def test_a_temperature_worsens_no_loss_and_moves_no_class():
    logits, y_true = DRAW.normal(0, 4, (200, 3)), DRAW.integers(0, 3, 200)
    said = special.softmax(logits / calibration.temperature(logits, y_true), axis=1)
    plain = special.softmax(logits, axis=1)
    assert metrics.log_loss(y_true, said) < metrics.log_loss(y_true, plain)
    assert np.array_equal(said.argmax(axis=1), plain.argmax(axis=1))


def test_temperatures_that_cannot_be():
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        calibration.temperature(np.zeros((2, 1)), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        calibration.temperature(np.zeros((2, 2)), np.array([0, 2]))


def test_a_shift_of_the_shares_by_hand():
    # odds 1 : 1 at 3/4 pneumonia are odds 1 : 3 at one half
    found = calibration.prior_shift([0.5], trained=0.75, wanted=0.5)
    assert found == pytest.approx([0.25])
    two = calibration.prior_shift([[0.5, 0.5]], trained=[0.25, 0.75], wanted=[0.5, 0.5])
    assert two == pytest.approx(np.array([[0.75, 0.25]]))


def test_a_shift_gives_bayes_rule_at_the_other_shares():
    image = DRAW.normal(0, 1, 50)
    likelihood = np.exp(-((image[:, None] - [-1, 0, 1]) ** 2))
    old, new = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    before, wanted = (
        likelihood * s / (likelihood * s).sum(axis=1, keepdims=True) for s in (old, new)
    )
    assert calibration.prior_shift(before, trained=old, wanted=new) == pytest.approx(wanted)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [0.0, 1.0], [0.2, 0.3, 0.5]])
def test_shares_that_cannot_be(shares):
    with pytest.raises(ValueError, match=str(shares[1])):
        calibration.prior_shift([[0.5, 0.5]], trained=[0.5, 0.5], wanted=shares)


def test_reliability_by_hand():
    table = calibration.reliability([0, 1, 1, 1], [0.25, 0.5, 0.375, 1.0], bins=4)
    assert table.to_numpy().tolist() == [
        [0.0, 0.25, 0.25, 0.0, 1],
        [0.25, 0.5, 0.4375, 1.0, 2],
        [0.75, 1.0, 1.0, 1.0, 1],
    ]
    assert list(table) == ["low", "high", "mean y_pred", "observed share", "n"]


def test_reliability_agrees_with_scikit_learn_and_with_the_error():
    said = DRAW.random(500)
    y_true = (DRAW.random(500) < said**2).astype(int)
    table = calibration.reliability(y_true, said)
    share, mean = reference.calibration_curve(y_true, said, n_bins=10)
    assert table["observed share"].to_numpy() == pytest.approx(share)
    assert table["mean y_pred"].to_numpy() == pytest.approx(mean)
    gaps = (table["observed share"] - table["mean y_pred"]).abs()
    assert calibration.calibration_error(y_true, said) == pytest.approx(
        np.average(gaps, weights=table["n"])
    )


def test_honest_probabilities_have_a_smaller_error_than_sharpened_ones():
    said = DRAW.random(5000)
    y_true = (DRAW.random(5000) < said).astype(int)
    sharp = said**3 / (said**3 + (1 - said) ** 3)
    assert calibration.calibration_error(y_true, said) < 0.03
    assert calibration.calibration_error(y_true, sharp) > 0.08


def test_cuts_are_half_and_those_chosen_where_both_classes_are_seen():
    y_true, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    found = calibration.thresholds(y_true, score, at_least=0.5)
    assert list(found) == ["0.5", "most accurate", "sensitivity 0.5"]
    assert found["0.5"] == 0.5 and 0.2 < found["most accurate"] < 0.3
    assert 0.3 < found["sensitivity 0.5"] <= 0.9
    assert calibration.thresholds(y_true[:2], score[:2]) == {"0.5": 0.5}


def test_a_cut_that_calls_all_images_alike_is_a_probability_too():
    all_ill = calibration.thresholds(np.array([1, 0, 1, 1]), np.array([0.5, 0.6, 0.5, 0.5]))
    assert all_ill["most accurate"] == 0 and all_ill["sensitivity 0.95"] == 0
    none_ill = calibration.thresholds(np.array([0, 0, 0, 1]), np.array([0.5, 1.0, 0.5, 0.4]))
    assert 1 < none_ill["most accurate"] < 1.001

import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as sklearn_metrics

from cxr_helpers.evaluation import metrics

DRAW = np.random.default_rng(0)
N = 80
TRUTH = np.arange(N) % 3
ILL = (TRUTH > 0).astype(int)
# two decimals: many ties, and some between classes
PROBABILITY = np.clip(ILL * 0.2 + DRAW.random(N) * 0.8, 0, 1).round(1)
SAID = (PROBABILITY > 0.5).astype(int)
CHANCES = DRAW.dirichlet(np.ones(3), N)
WEIGHTS = DRAW.integers(0, 4, (25, N))


def one_by_one(reference, y_true, said, **options):
    return [reference(y_true, said, sample_weight=w, **options) for w in WEIGHTS]


@pytest.mark.parametrize(
    ("own", "reference", "said", "options"),
    [
        (metrics.accuracy, sklearn_metrics.accuracy_score, SAID, {}),
        (metrics.balanced_accuracy, sklearn_metrics.balanced_accuracy_score, SAID, {}),
        (metrics.sensitivity, sklearn_metrics.recall_score, SAID, {}),
        (metrics.specificity, sklearn_metrics.recall_score, SAID, {"pos_label": 0}),
        (metrics.auroc, sklearn_metrics.roc_auc_score, PROBABILITY, {}),
        (metrics.average_precision, sklearn_metrics.average_precision_score, PROBABILITY, {}),
        (metrics.brier, sklearn_metrics.brier_score_loss, PROBABILITY, {}),
    ],
)
def test_two_classes_agree_with_scikit_learn(own, reference, said, options):
    assert own(ILL, said, WEIGHTS) == pytest.approx(one_by_one(reference, ILL, said, **options))


@pytest.mark.parametrize(
    ("own", "reference", "said", "options"),
    [
        (metrics.accuracy, sklearn_metrics.accuracy_score, CHANCES.argmax(axis=1), {}),
        (
            metrics.balanced_accuracy,
            sklearn_metrics.balanced_accuracy_score,
            CHANCES.argmax(axis=1),
            {},
        ),
        (metrics.macro_auroc, sklearn_metrics.roc_auc_score, CHANCES, {"multi_class": "ovr"}),
    ],
)
def test_three_classes_agree_with_scikit_learn(own, reference, said, options):
    assert own(TRUTH, said, WEIGHTS) == pytest.approx(one_by_one(reference, TRUTH, said, **options))


def test_calibration_error_agrees_with_scikit_learns_curve():
    for weights, found in zip(
        WEIGHTS, metrics.calibration_error(ILL, PROBABILITY, WEIGHTS), strict=True
    ):
        y_true, said = np.repeat(ILL, weights), np.repeat(PROBABILITY, weights)
        share, mean = calibration.calibration_curve(y_true, said, n_bins=10)
        n = np.bincount(metrics.bin_index(said, bins=10))
        assert found == pytest.approx(np.sum(np.abs(share - mean) * n[n > 0]) / len(y_true))


def test_calibration_error_by_hand():
    # bin (0.1, 0.2]: mean 0.2 against 1/2; bin (0.8, 0.9]: 0.9 against 1, counted twice
    found = metrics.calibration_error([0, 1, 1], [0.2, 0.2, 0.9], [[1, 1, 2]])
    assert found == pytest.approx([(2 * 0.3 + 2 * 0.1) / 4])


def test_a_tie_counts_half():
    assert metrics.auroc([1, 0, 0], [0.5, 0.5, 0.1], [[1, 1, 1], [1, 3, 1]]) == pytest.approx(
        [(0.5 + 1) / 2, (3 * 0.5 + 1) / 4]
    )


def test_bins_hold_their_upper_edge():
    found = metrics.bin_index(np.array([0, 0.25, 0.26, 0.5, 1]), bins=4)
    assert found.tolist() == [0, 0, 1, 1, 3]


def test_a_draw_without_a_class_is_undefined_and_harms_no_other():
    y_true, score, weights = [0, 1], [0.2, 0.7], [[1, 1], [2, 0], [0, 2]]
    for metric in (metrics.auroc, metrics.average_precision, metrics.balanced_accuracy):
        assert np.isnan(metric(y_true, np.round(score), weights)).tolist() == [False, True, True]
    assert np.isnan(metrics.sensitivity(y_true, [0, 1], weights)).tolist() == [False, True, False]
    assert metrics.accuracy(y_true, [0, 1], weights).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("metric", "y_true", "said", "words"),
    [
        (metrics.brier, [0, 1], [0.5, 1.5], "1.5 is no probability"),
        (metrics.calibration_error, [0, 1], [0.5, np.nan], "nan is no probability"),
        (metrics.auroc, [0, 1], [0.5, np.inf], "score inf"),
        (metrics.accuracy, [0, 1], [1], "2 truths, 1 answers"),
    ],
)
def test_what_cannot_be_scored_is_named(metric, y_true, said, words):
    with pytest.raises(ValueError, match=words):
        metric(y_true, said, np.ones((1, 2)))


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        metrics.accuracy([], [], np.ones((1, 0)))

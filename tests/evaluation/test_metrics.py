import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as sklearn_metrics

from cxr_helpers.evaluation import metrics

RNG = np.random.default_rng(0)
N = 80
CLASSES = np.arange(N) % 3
Y_TRUE = (CLASSES > 0).astype(int)
# one decimal: many ties, some of them between classes
Y_PROB = np.clip(Y_TRUE * 0.2 + RNG.random(N) * 0.8, 0, 1).round(1)
Y_PRED = (Y_PROB > 0.5).astype(int)
CLASS_PROB = RNG.dirichlet(np.ones(3), N)
WEIGHTS = RNG.integers(0, 4, (25, N))


def one_by_one(reference, y_true, predictions, **options):
    """Return a metric of scikit-learn, one resample after the other."""
    return [reference(y_true, predictions, sample_weight=w, **options) for w in WEIGHTS]


@pytest.mark.parametrize(
    ("metric", "reference", "predictions", "options"),
    [
        (metrics.accuracy, sklearn_metrics.accuracy_score, Y_PRED, {}),
        (metrics.balanced_accuracy, sklearn_metrics.balanced_accuracy_score, Y_PRED, {}),
        (metrics.sensitivity, sklearn_metrics.recall_score, Y_PRED, {}),
        (metrics.specificity, sklearn_metrics.recall_score, Y_PRED, {"pos_label": 0}),
        (metrics.auroc, sklearn_metrics.roc_auc_score, Y_PROB, {}),
        (metrics.average_precision, sklearn_metrics.average_precision_score, Y_PROB, {}),
        (metrics.brier, sklearn_metrics.brier_score_loss, Y_PROB, {}),
    ],
)
def test_two_classes_agree_with_scikit_learn(metric, reference, predictions, options):
    assert metric(Y_TRUE, predictions, WEIGHTS) == pytest.approx(
        one_by_one(reference, Y_TRUE, predictions, **options)
    )


@pytest.mark.parametrize(
    ("metric", "reference", "predictions", "options"),
    [
        (metrics.accuracy, sklearn_metrics.accuracy_score, CLASS_PROB.argmax(axis=1), {}),
        (
            metrics.balanced_accuracy,
            sklearn_metrics.balanced_accuracy_score,
            CLASS_PROB.argmax(axis=1),
            {},
        ),
        (metrics.macro_auroc, sklearn_metrics.roc_auc_score, CLASS_PROB, {"multi_class": "ovr"}),
    ],
)
def test_three_classes_agree_with_scikit_learn(metric, reference, predictions, options):
    assert metric(CLASSES, predictions, WEIGHTS) == pytest.approx(
        one_by_one(reference, CLASSES, predictions, **options)
    )


def test_calibration_error_agrees_with_the_curve_of_scikit_learn():
    for weights, error in zip(
        WEIGHTS, metrics.calibration_error(Y_TRUE, Y_PROB, WEIGHTS), strict=True
    ):
        y_true, y_prob = np.repeat(Y_TRUE, weights), np.repeat(Y_PROB, weights)
        share, mean = calibration.calibration_curve(y_true, y_prob, n_bins=10)
        n = np.bincount(metrics.bin_index(y_prob, bins=10))
        assert error == pytest.approx(np.sum(np.abs(share - mean) * n[n > 0]) / len(y_true))


def test_calibration_error_by_hand():
    # bin (0.1, 0.2]: mean 0.2 against 1/2; bin (0.8, 0.9]: 0.9 against 1, counted twice
    found = metrics.calibration_error([0, 1, 1], [0.2, 0.2, 0.9], [[1, 1, 2]])
    assert found == pytest.approx([(2 * 0.3 + 2 * 0.1) / 4])


def test_auroc_counts_ties_half():
    assert metrics.auroc([1, 0, 0], [0.5, 0.5, 0.1], [[1, 1, 1], [1, 3, 1]]) == pytest.approx(
        [(0.5 + 1) / 2, (3 * 0.5 + 1) / 4]
    )


def test_bins_include_their_upper_edge():
    found = metrics.bin_index(np.array([0, 0.25, 0.26, 0.5, 1]), bins=4)
    assert found.tolist() == [0, 0, 1, 1, 3]


def test_resample_without_a_class_is_undefined_and_leaves_others_unchanged():
    y_true, score, weights = [0, 1], [0.2, 0.7], [[1, 1], [2, 0], [0, 2]]
    for metric in (metrics.auroc, metrics.average_precision, metrics.balanced_accuracy):
        assert np.isnan(metric(y_true, np.round(score), weights)).tolist() == [False, True, True]
    assert np.isnan(metrics.sensitivity(y_true, [0, 1], weights)).tolist() == [False, True, False]
    assert metrics.accuracy(y_true, [0, 1], weights).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("metric", "y_true", "predictions", "message"),
    [
        (metrics.brier, [0, 1], [0.5, 1.5], "1.5 is not a probability"),
        (metrics.calibration_error, [0, 1], [0.5, np.nan], "nan is not a probability"),
        (metrics.auroc, [0, 1], [0.5, np.inf], "score inf"),
        (metrics.accuracy, [0, 1], [1], "2 labels, 1 predictions"),
    ],
)
def test_invalid_input_is_named_in_the_message(metric, y_true, predictions, message):
    with pytest.raises(ValueError, match=message):
        metric(y_true, predictions, np.ones((1, 2)))


def test_empty_input_is_refused():
    with pytest.raises(ValueError, match="no images"):
        metrics.accuracy([], [], np.ones((1, 0)))


def test_mean_is_that_of_the_values_that_are_known():
    values = np.where(np.arange(N) % 7, RNG.random(N), np.nan)
    known = np.isfinite(values)
    expected = [np.average(values[known], weights=w[known]) for w in WEIGHTS]
    assert metrics.mean(None, values, WEIGHTS) == pytest.approx(expected)
    assert np.isnan(metrics.mean(None, np.full(N, np.nan), WEIGHTS)).all()


def test_residual_auroc_is_that_of_the_residuals_from_class_0_of_each_resample():
    rng = np.random.default_rng(0)
    y_true, x = np.repeat([0, 1], [30, 40]), rng.normal(5, 1, 70)
    y = 0.5 * x + 0.3 * rng.normal(size=70) + 0.1 * y_true
    weights = rng.multinomial(70, np.full(70, 1 / 70), size=5)
    found = metrics.residual_auroc(y_true, np.column_stack([y, x]), weights)
    zero = y_true == 0
    for auroc, draw in zip(found, weights, strict=True):
        line = np.polyfit(x[zero], y[zero], 1, w=np.sqrt(draw[zero]))
        assert auroc == pytest.approx(metrics.auroc(y_true, y - np.polyval(line, x), draw[None])[0])


def test_residual_auroc_without_class_0_or_with_one_covariate():
    values = np.column_stack([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    weights = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 0]])
    found = metrics.residual_auroc(np.array([0, 1, 0]), values, weights)
    assert found.tolist() == [0.5, 0.0, 1.0]
    assert np.isnan(metrics.residual_auroc(np.ones(3, int), values, weights)).all()


def test_explained_auroc_is_all_of_it_where_the_value_is_its_covariate():
    """Separated values are tied once what their covariate explains is taken away."""
    value, weights = np.array([1.0, 2.0, 3.0, 4.0]), np.ones((1, 4))
    both = np.column_stack([value, value])
    assert metrics.explained_auroc(np.array([0, 0, 1, 1]), both, weights).tolist() == [0.5]
    of_nothing = np.column_stack([value, np.ones(4)])
    assert metrics.explained_auroc(np.array([0, 0, 1, 1]), of_nothing, weights).tolist() == [0.0]
    assert metrics.explained_auroc(np.array([1, 1, 0, 0]), both, weights).tolist() == [-0.5]

import numpy as np
import pytest
from sklearn import metrics

from cxr_helpers import scores


def value(frame, metric):
    return frame.set_index("metric")["value"][metric]


def test_binary_hand_arithmetic():
    truth, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = scores.binary("r", "test", truth, predicted=predicted)
    assert value(found, "accuracy") == pytest.approx(3 / 5)
    assert value(found, "sensitivity") == pytest.approx(2 / 3)
    assert value(found, "specificity") == pytest.approx(1 / 2)
    assert value(found, "balanced_accuracy") == pytest.approx(7 / 12)
    assert set(found["row"]) == {"r"} and set(found["split"]) == {"test"} and set(found["n"]) == {5}
    assert "auroc" not in set(found["metric"])


def test_auroc_counts_pairs_in_the_right_order():
    truth, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    found = scores.binary("r", "test", truth, predicted=truth, score=score)
    assert value(found, "auroc") == pytest.approx(3 / 4)


def test_one_class_alone_gives_no_made_up_auroc():
    found = scores.binary("r", "t", np.ones(3, int), predicted=np.ones(3, int), score=np.ones(3))
    assert np.isnan(value(found, "auroc")) and np.isnan(value(found, "balanced_accuracy"))
    assert np.isnan(value(found, "specificity")) and value(found, "sensitivity") == 1


def test_categorical_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, 60)
    chances = draw.dirichlet(np.ones(3), 60)
    says = chances.argmax(axis=1)
    found = scores.categorical("r", "test", truth, predicted=says, probabilities=chances)
    assert value(found, "balanced_accuracy") == pytest.approx(
        metrics.balanced_accuracy_score(truth, says)
    )
    wanted = metrics.roc_auc_score(truth, chances, multi_class="ovr")
    assert value(found, "auroc") == pytest.approx(wanted)


def test_a_missing_class_is_no_error():
    chances = np.tile([0.2, 0.5, 0.3], (4, 1))
    found = scores.categorical(
        "r", "t", np.array([0, 1, 1, 1]), predicted=np.ones(4, int), probabilities=chances
    )
    assert np.isnan(value(found, "auroc"))
    assert value(found, "balanced_accuracy") == pytest.approx(0.5)


def test_an_interval_holds_the_value_and_narrows_with_more_films():
    draw = np.random.default_rng(0)

    def films(n):
        truth = np.arange(n) % 2
        return truth, truth + draw.normal(0, 1.5, n)

    widths = []
    for n in (60, 600):
        truth, score = films(n)
        low, high = scores.auroc_interval(truth, score, seed=0, draws=200)
        assert low < metrics.roc_auc_score(truth, score) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert scores.auroc_interval(*films(60), seed=0, draws=50)[1] <= 1

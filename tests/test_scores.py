import numpy as np
import pandas as pd
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


def test_probabilities_add_their_own_metrics_and_stand_in_for_the_score():
    truth, chance = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    found = scores.binary("r", "test", truth, predicted=truth, probability=chance)
    assert value(found, "auroc") == pytest.approx(3 / 4)
    assert value(found, "brier") == pytest.approx((0.01 + 0.16 + 0.49 + 0.01) / 4)
    assert value(found, "calibration_error") == pytest.approx((0.1 + 0.4 + 0.7 + 0.1) / 4)
    both = scores.binary("r", "t", truth, predicted=truth, score=-chance, probability=chance)
    assert value(both, "auroc") == pytest.approx(1 / 4) and value(both, "brier") < 0.2


def test_binary_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    truth, score = draw.integers(0, 2, 90), draw.random(90).round(1)
    found = scores.binary("r", "test", truth, predicted=score > 0.5, score=score)
    assert value(found, "average_precision") == pytest.approx(
        metrics.average_precision_score(truth, score)
    )
    assert value(found, "auroc") == pytest.approx(metrics.roc_auc_score(truth, score))


def test_groups_give_every_metric_its_interval_and_change_no_value():
    draw = np.random.default_rng(0)
    truth = np.arange(120) % 2
    chance = np.clip(truth * 0.4 + draw.random(120) * 0.6, 0, 1)
    said = {"predicted": (chance > 0.5).astype(int), "probability": chance}
    plain = scores.binary("r", "test", truth, **said)
    found = scores.binary("r", "test", truth, **said, groups=np.arange(120) // 4 * 2 + truth)
    assert list(found) == ["row", "split", "metric", "value", "low", "high", "n"]
    assert plain["low"].isna().all() and plain["high"].isna().all()
    assert found["value"].equals(plain["value"])
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()


@pytest.mark.parametrize("kind", ["binary", "categorical"])
def test_more_films_of_the_same_patients_narrow_no_interval(kind):
    truth = np.arange(60) % (2 if kind == "binary" else 3)
    said = np.where(np.arange(60) % 5, truth, 0)
    films = np.repeat(np.arange(60), 4)
    score = getattr(scores, kind)
    once = score("r", "t", truth, predicted=said, groups=np.arange(60))
    found = score("r", "t", truth[films], predicted=said[films], groups=films)
    ends = ["value", "low", "high"]
    assert found[ends].to_numpy() == pytest.approx(once[ends].to_numpy())


def test_three_classes_have_intervals_where_they_have_values():
    draw = np.random.default_rng(0)
    truth = np.arange(60) % 3
    chances = draw.dirichlet(np.ones(3), 60) * 0.6 + np.eye(3)[truth] * 0.4
    said = {"predicted": chances.argmax(axis=1), "probabilities": chances}
    found = scores.categorical("r", "test", truth, **said, groups=np.arange(60))
    assert (found["low"] <= found["value"]).all() and (found["low"] < found["high"]).all()
    two = truth < 2
    part = {name: array[two] for name, array in said.items()}
    found = scores.categorical("r", "test", truth[two], **part, groups=np.arange(two.sum()))
    auroc = found.set_index("metric").loc["auroc", ["value", "low", "high"]]
    assert auroc.isna().all() and found["low"].notna().sum() == 2


def test_the_seed_settles_the_draws():
    truth, chance = np.arange(40) % 2, np.linspace(0, 1, 40)
    said = {"predicted": truth, "probability": chance, "groups": np.arange(40)}
    first, same, other = (scores.binary("r", "t", truth, **said, seed=s) for s in (0, 0, 1))
    assert first.equals(same) and not first["low"].equals(other["low"])


def test_what_is_unavailable_has_the_same_columns():
    line = scores.unavailable("r", "test", 7)
    assert list(line) == list(scores.binary("r", "t", np.ones(2), predicted=np.ones(2)))
    assert line.loc[0, ["value", "low", "high"]].isna().all() and line.loc[0, "n"] == 7


def test_a_wide_table_shows_figures_with_their_intervals():
    truth = np.array([0, 1, 1, 0])
    found = scores.binary(
        "a_row", "test", truth, predicted=truth, probability=truth, groups=np.arange(4)
    )
    table = scores.wide(found, scores.METRICS)
    assert list(table) == ["row", "split", "n", *scores.METRICS[:8]]
    assert (
        table.loc[0, "row"] == "a row"
        and table.loc[0, "Brier"] == "0.000 [0.00,\N{NO-BREAK SPACE}0.00]"
    )
    assert list(scores.wide(found, ("AUROC",))) == ["row", "split", "n", "AUROC"]
    bare = scores.binary("a_row", "test", truth, predicted=truth)
    assert scores.wide(pd.concat([found.assign(row="b"), bare])).loc[1, "accuracy"] == "1.000"


def test_a_score_of_some_films_shows_their_number():
    truth = np.array([0, 1, 1, 0])
    found = scores.binary("a", "test", truth, predicted=truth)
    found.loc[len(found)] = ("a", "test", "worst_group_accuracy", 0.5, 0.25, 1.0, 2)
    table = scores.wide(found, ("accuracy", "worst group accuracy"))
    assert table["n"].tolist() == [4] and table["accuracy"].item() == "1.000"
    shown = table["worst group accuracy"].item().replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "0.500 [0.25, 1.00] (n = 2)"


def test_a_printed_interval_holds_its_printed_figure():
    assert scores.figure(0.625, 0.625, 0.625).replace("\xa0", " ") == "0.625 [0.62, 0.63]"
    assert scores.figure(0.29, 0.29, 0.57).replace("\xa0", " ") == "0.290 [0.29, 0.57]"

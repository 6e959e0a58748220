import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from cxr_helpers.evaluation import scorecard, tables


def value(frame, metric):
    return frame.set_index("metric")["value"][metric]


def test_binary_hand_arithmetic():
    y_true, y_pred = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = scorecard.score_binary("r", "test", y_true, y_pred=y_pred)
    assert value(found, "accuracy") == pytest.approx(3 / 5)
    assert value(found, "sensitivity") == pytest.approx(2 / 3)
    assert value(found, "specificity") == pytest.approx(1 / 2)
    assert value(found, "balanced_accuracy") == pytest.approx(7 / 12)
    assert set(found["row"]) == {"r"} and set(found["split"]) == {"test"} and set(found["n"]) == {5}
    assert "auroc" not in set(found["metric"])


def test_auroc_counts_pairs_in_the_right_order():
    y_true, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    found = scorecard.score_binary("r", "test", y_true, y_pred=y_true, y_score=score)
    assert value(found, "auroc") == pytest.approx(3 / 4)


def test_one_class_alone_gives_no_made_up_auroc():
    found = scorecard.score_binary(
        "r", "t", np.ones(3, int), y_pred=np.ones(3, int), y_score=np.ones(3)
    )
    assert np.isnan(value(found, "auroc")) and np.isnan(value(found, "balanced_accuracy"))
    assert np.isnan(value(found, "specificity")) and value(found, "sensitivity") == 1


def test_categorical_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    y_true = draw.integers(0, 3, 60)
    chances = draw.dirichlet(np.ones(3), 60)
    says = chances.argmax(axis=1)
    found = scorecard.score_categorical("r", "test", y_true, y_pred=says, y_prob=chances)
    assert value(found, "balanced_accuracy") == pytest.approx(
        metrics.balanced_accuracy_score(y_true, says)
    )
    wanted = metrics.roc_auc_score(y_true, chances, multi_class="ovr")
    assert value(found, "auroc") == pytest.approx(wanted)


def test_a_missing_class_is_no_error():
    chances = np.tile([0.2, 0.5, 0.3], (4, 1))
    found = scorecard.score_categorical(
        "r", "t", np.array([0, 1, 1, 1]), y_pred=np.ones(4, int), y_prob=chances
    )
    assert np.isnan(value(found, "auroc"))
    assert value(found, "balanced_accuracy") == pytest.approx(0.5)


def test_probabilities_add_their_own_metrics_and_stand_in_for_the_score():
    y_true, chance = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    found = scorecard.score_binary("r", "test", y_true, y_pred=y_true, y_prob=chance)
    assert value(found, "auroc") == pytest.approx(3 / 4)
    assert value(found, "brier") == pytest.approx((0.01 + 0.16 + 0.49 + 0.01) / 4)
    assert value(found, "calibration_error") == pytest.approx((0.1 + 0.4 + 0.7 + 0.1) / 4)
    both = scorecard.score_binary("r", "t", y_true, y_pred=y_true, y_score=-chance, y_prob=chance)
    assert value(both, "auroc") == pytest.approx(1 / 4) and value(both, "brier") < 0.2


def test_binary_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    y_true, score = draw.integers(0, 2, 90), draw.random(90).round(1)
    found = scorecard.score_binary("r", "test", y_true, y_pred=score > 0.5, y_score=score)
    assert value(found, "average_precision") == pytest.approx(
        metrics.average_precision_score(y_true, score)
    )
    assert value(found, "auroc") == pytest.approx(metrics.roc_auc_score(y_true, score))


def test_groups_give_every_metric_its_interval_and_change_no_value():
    draw = np.random.default_rng(0)
    y_true = np.arange(120) % 2
    chance = np.clip(y_true * 0.4 + draw.random(120) * 0.6, 0, 1)
    said = {"y_pred": (chance > 0.5).astype(int), "probability": chance}
    plain = scorecard.score_binary("r", "test", y_true, **said)
    found = scorecard.score_binary(
        "r", "test", y_true, **said, groups=np.arange(120) // 4 * 2 + y_true
    )
    assert list(found) == ["row", "split", "metric", "value", "low", "high", "n"]
    assert plain["low"].isna().all() and plain["high"].isna().all()
    assert found["value"].equals(plain["value"])
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()


@pytest.mark.parametrize("kind", ["binary", "categorical"])
def test_more_images_of_the_same_patients_narrow_no_interval(kind):
    y_true = np.arange(60) % (2 if kind == "binary" else 3)
    said = np.where(np.arange(60) % 5, y_true, 0)
    images = np.repeat(np.arange(60), 4)
    score = getattr(scores, kind)
    once = score("r", "t", y_true, y_pred=said, groups=np.arange(60))
    found = score("r", "t", y_true[images], y_pred=said[images], groups=images)
    ends = ["value", "low", "high"]
    assert found[ends].to_numpy() == pytest.approx(once[ends].to_numpy())


def test_three_classes_have_intervals_where_they_have_values():
    draw = np.random.default_rng(0)
    y_true = np.arange(60) % 3
    chances = draw.dirichlet(np.ones(3), 60) * 0.6 + np.eye(3)[y_true] * 0.4
    said = {"y_pred": chances.argmax(axis=1), "probabilities": chances}
    found = scorecard.score_categorical("r", "test", y_true, **said, groups=np.arange(60))
    assert (found["low"] <= found["value"]).all() and (found["low"] < found["high"]).all()
    two = y_true < 2
    part = {name: array[two] for name, array in said.items()}
    found = scorecard.score_categorical(
        "r", "test", y_true[two], **part, groups=np.arange(two.sum())
    )
    auroc = found.set_index("metric").loc["auroc", ["value", "low", "high"]]
    assert auroc.isna().all() and found["low"].notna().sum() == 2


def test_the_seed_settles_the_draws():
    y_true, chance = np.arange(40) % 2, np.linspace(0, 1, 40)
    said = {"y_pred": y_true, "probability": chance, "groups": np.arange(40)}
    first, same, other = (
        scorecard.score_binary("r", "t", y_true, **said, seed=s) for s in (0, 0, 1)
    )
    assert first.equals(same) and not first["low"].equals(other["low"])


def test_what_is_unavailable_has_the_same_columns():
    line = scorecard.unavailable("r", "test", 7)
    assert list(line) == list(scorecard.score_binary("r", "t", np.ones(2), y_pred=np.ones(2)))
    assert line.loc[0, ["value", "low", "high"]].isna().all() and line.loc[0, "n"] == 7


def test_a_wide_table_shows_figures_with_their_intervals():
    y_true = np.array([0, 1, 1, 0])
    found = scorecard.score_binary(
        "a_row", "test", y_true, y_pred=y_true, y_prob=y_true, groups=np.arange(4)
    )
    table = tables.as_text(found, tables.HEADINGS)
    assert list(table) == ["row", "split", "n", *tables.HEADINGS[:8]]
    assert (
        table.loc[0, "row"] == "a row"
        and table.loc[0, "Brier"] == "0.000 [0.00,\N{NO-BREAK SPACE}0.00]"
    )
    assert list(tables.as_text(found, ("AUROC",))) == ["row", "split", "n", "AUROC"]
    bare = scorecard.score_binary("a_row", "test", y_true, y_pred=y_true)
    assert tables.as_text(pd.concat([found.assign(row="b"), bare])).loc[1, "accuracy"] == "1.000"


def test_a_score_of_some_images_shows_their_number():
    y_true = np.array([0, 1, 1, 0])
    found = scorecard.score_binary("a", "test", y_true, y_pred=y_true)
    found.loc[len(found)] = ("a", "test", "worst_group_accuracy", 0.5, 0.25, 1.0, 2)
    table = tables.as_text(found, ("accuracy", "worst group accuracy"))
    assert table["n"].tolist() == [4] and table["accuracy"].item() == "1.000"
    shown = table["worst group accuracy"].item().replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "0.500 [0.25, 1.00] (n = 2)"


def test_a_printed_interval_holds_its_printed_figure():
    assert tables.with_interval(0.625, 0.625, 0.625).replace("\xa0", " ") == "0.625 [0.62, 0.63]"
    assert tables.with_interval(0.29, 0.29, 0.57).replace("\xa0", " ") == "0.290 [0.29, 0.57]"

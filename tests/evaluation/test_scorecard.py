import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from cxr_helpers.data.dataset import Dataset
from cxr_helpers.evaluation import scorecard, shortcut_groups
from cxr_helpers.evaluation.scorecard import Scorecard

N = 60  # images of each split
SCORED = ("validation", "test")


def value(scores, metric):
    return scores.set_index("metric")["value"][metric]


def test_binary_scores_by_hand():
    y_true, y_pred = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    scores = scorecard.score_binary("r", "test", y_true, y_pred=y_pred)
    assert value(scores, "accuracy") == pytest.approx(3 / 5)
    assert value(scores, "sensitivity") == pytest.approx(2 / 3)
    assert value(scores, "specificity") == pytest.approx(1 / 2)
    assert value(scores, "balanced_accuracy") == pytest.approx(7 / 12)
    assert set(scores["row"]) == {"r"} and set(scores["split"]) == {"test"}
    assert set(scores["n"]) == {5} and "auroc" not in set(scores["metric"])


def test_auroc_counts_correctly_ordered_pairs():
    y_true, y_score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    scores = scorecard.score_binary("r", "test", y_true, y_pred=y_true, y_score=y_score)
    assert value(scores, "auroc") == pytest.approx(3 / 4)


def test_one_class_leaves_auroc_undefined():
    ones = np.ones(3, int)
    scores = scorecard.score_binary("r", "t", ones, y_pred=ones, y_score=np.ones(3))
    assert np.isnan(value(scores, "auroc")) and np.isnan(value(scores, "balanced_accuracy"))
    assert np.isnan(value(scores, "specificity")) and value(scores, "sensitivity") == 1


def test_probabilities_add_their_metrics_and_serve_as_score():
    y_true, y_prob = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    scores = scorecard.score_binary("r", "test", y_true, y_pred=y_true, y_prob=y_prob)
    assert value(scores, "auroc") == pytest.approx(3 / 4)
    assert value(scores, "brier") == pytest.approx((0.01 + 0.16 + 0.49 + 0.01) / 4)
    assert value(scores, "calibration_error") == pytest.approx((0.1 + 0.4 + 0.7 + 0.1) / 4)
    both = scorecard.score_binary("r", "t", y_true, y_pred=y_true, y_score=-y_prob, y_prob=y_prob)
    assert value(both, "auroc") == pytest.approx(1 / 4) and value(both, "brier") < 0.2


def test_binary_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    y_true, y_score = rng.integers(0, 2, 90), rng.random(90).round(1)
    scores = scorecard.score_binary("r", "test", y_true, y_pred=y_score > 0.5, y_score=y_score)
    average_precision = metrics.average_precision_score(y_true, y_score)
    assert value(scores, "average_precision") == pytest.approx(average_precision)
    assert value(scores, "auroc") == pytest.approx(metrics.roc_auc_score(y_true, y_score))


def test_categorical_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 3, 60)
    y_prob = rng.dirichlet(np.ones(3), 60)
    y_pred = y_prob.argmax(axis=1)
    scores = scorecard.score_categorical("r", "test", y_true, y_pred=y_pred, y_prob=y_prob)
    balanced = metrics.balanced_accuracy_score(y_true, y_pred)
    assert value(scores, "balanced_accuracy") == pytest.approx(balanced)
    macro = metrics.roc_auc_score(y_true, y_prob, multi_class="ovr")
    assert value(scores, "auroc") == pytest.approx(macro)


def test_missing_class_leaves_macro_auroc_undefined():
    y_true, y_pred = np.array([0, 1, 1, 1]), np.ones(4, int)
    y_prob = np.tile([0.2, 0.5, 0.3], (4, 1))
    scores = scorecard.score_categorical("r", "t", y_true, y_pred=y_pred, y_prob=y_prob)
    assert np.isnan(value(scores, "auroc"))
    assert value(scores, "balanced_accuracy") == pytest.approx(0.5)


def test_groups_add_intervals_and_change_no_value():
    rng = np.random.default_rng(0)
    y_true = np.arange(120) % 2
    y_prob = np.clip(y_true * 0.4 + rng.random(120) * 0.6, 0, 1)
    predictions = {"y_pred": (y_prob > 0.5).astype(int), "y_prob": y_prob}
    groups = np.arange(120) // 4 * 2 + y_true
    without = scorecard.score_binary("r", "test", y_true, **predictions)
    scores = scorecard.score_binary("r", "test", y_true, **predictions, groups=groups)
    assert list(scores) == ["row", "split", "metric", "value", "low", "high", "n"]
    assert without["low"].isna().all() and without["high"].isna().all()
    assert scores["value"].equals(without["value"])
    assert (scores["low"] < scores["value"]).all() and (scores["value"] < scores["high"]).all()


@pytest.mark.parametrize(
    ("score", "classes"), [(scorecard.score_binary, 2), (scorecard.score_categorical, 3)]
)
def test_further_images_of_the_same_patients_narrow_no_interval(score, classes):
    y_true = np.arange(60) % classes
    y_pred = np.where(np.arange(60) % 5, y_true, 0)
    images = np.repeat(np.arange(60), 4)
    single = score("r", "t", y_true, y_pred=y_pred, groups=np.arange(60))
    fourfold = score("r", "t", y_true[images], y_pred=y_pred[images], groups=images)
    columns = ["value", "low", "high"]
    assert fourfold[columns].to_numpy() == pytest.approx(single[columns].to_numpy())


def test_three_classes_have_intervals_where_they_have_values():
    rng = np.random.default_rng(0)
    y_true = np.arange(60) % 3
    y_prob = rng.dirichlet(np.ones(3), 60) * 0.6 + np.eye(3)[y_true] * 0.4
    predictions = {"y_pred": y_prob.argmax(axis=1), "y_prob": y_prob, "groups": np.arange(60)}
    scores = scorecard.score_categorical("r", "test", y_true, **predictions)
    assert (scores["low"] <= scores["value"]).all() and (scores["low"] < scores["high"]).all()
    two = y_true < 2
    subset = {name: values[two] for name, values in predictions.items()}
    scores = scorecard.score_categorical("r", "test", y_true[two], **subset)
    auroc = scores.set_index("metric").loc["auroc", ["value", "low", "high"]]
    assert auroc.isna().all() and scores["low"].notna().sum() == 2


def test_seed_determines_the_resamples():
    y_true, y_prob = np.arange(40) % 2, np.linspace(0, 1, 40)
    predictions = {"y_pred": y_true, "y_prob": y_prob, "groups": np.arange(40)}
    first, same, other = (
        scorecard.score_binary("r", "t", y_true, **predictions, seed=s) for s in (0, 0, 1)
    )
    assert first.equals(same) and not first["low"].equals(other["low"])


def test_unavailable_row_has_the_columns_of_a_scored_one():
    line = scorecard.unavailable("r", "test", 7)
    assert list(line) == list(scorecard.score_binary("r", "t", np.ones(2), y_pred=np.ones(2)))
    assert line.loc[0, ["value", "low", "high"]].isna().all() and line.loc[0, "n"] == 7


@pytest.fixture
def radiographs():
    """Return three splits; in each, five images are of unknown subtype, twelve conflicting."""
    splits = np.repeat(["train", "validation", "test"], N)
    classes = (["normal"] * 30 + ["bacterial"] * 15 + ["viral"] * 10 + ["unknown"] * 5) * 3
    index = pd.DataFrame({"split": splits, "class_name": classes})
    index["group"] = [f"{c} {i}" for i, c in enumerate(classes)]
    border_is_normal = np.array([True] * 24 + [False] * 6 + [False] * 24 + [True] * 6)
    index["border_normal"] = np.tile(np.where(border_is_normal, 0.9, 0.1), 3)
    index["border_bacterial"] = index["border_viral"] = (1 - index["border_normal"]) / 2
    data = Dataset(np.zeros((3 * N, 4, 4), np.uint8), index, {"synthetic": True})
    with data.evaluation():
        yield data


def test_every_scored_split_has_scores_and_predictions(radiographs):
    card = Scorecard(radiographs)
    y_true = (radiographs.index["class_name"] != "normal").to_numpy(dtype=float)
    card.binary("a", y_pred=y_true >= 0.5, y_prob=y_true)
    card.categorical("b", y_pred=radiographs.category.clip(0))
    table = card.table.set_index(["row", "split", "metric"])["value"]
    assert set(card.table["split"]) == {"validation", "test"}
    assert table["a", "test", "accuracy"] == 1 == table["a", "test", "conflicting_auroc"]
    assert table["b", "validation", "worst_group_accuracy"] == 1
    assert list(card.table) == scorecard.COLUMNS
    predictions = card.predictions
    assert (predictions["row"] == "a").sum() == 2 * N
    assert (predictions["row"] == "b").sum() == 2 * (N - 5)  # unknown subtypes are left out
    of_test = predictions[predictions["split"] == "test"]
    assert set(of_test["image"]) == set(range(2 * N, 3 * N))
    assert card.of_test["a", "auroc"] == 1


def test_predictions_are_written_as_integers(radiographs, tmp_path):
    card = Scorecard(radiographs)
    card.binary("a", y_pred=np.tile([True, False], 90))
    card.categorical("b", y_pred=np.tile([2.0, 1.0], 90))
    card.predictions.to_csv(tmp_path / "predictions.csv", index=False)
    predictions = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    assert set(predictions["y_pred"]) == {"0", "1", "2"} == set(predictions["y_true"])


def test_rows_on_the_same_images_share_their_resamples(radiographs):
    card = Scorecard(radiographs, seed=5)
    y_pred = np.tile([0, 1], 90)
    card.binary("a", y_pred=y_pred, splits=["test"])
    card.binary("b", y_pred=y_pred, splits=["test"])
    a, b = (card.table[card.table["row"] == r].drop(columns="row") for r in "ab")
    assert a.reset_index(drop=True).equals(b.reset_index(drop=True))
    assert a["metric"].tolist()[-1] == "worst_group_accuracy" and a["low"].notna().all()


def test_scores_of_shortcut_groups_have_their_n_and_interval(radiographs):
    card = Scorecard(radiographs)
    y_prob = np.random.default_rng(0).random(3 * N)
    card.binary("a", y_pred=y_prob >= 0.5, y_prob=y_prob)
    card.categorical("b", y_pred=(y_prob * 3).astype(int))
    table = card.table.set_index(["row", "split", "metric"])
    assert (table["low"] < table["high"]).all() and table["value"].notna().all()
    of_groups = table[table.index.get_level_values("metric").isin(shortcut_groups.MEANING)]
    assert len(of_groups) == 6 and (of_groups["low"] < of_groups["value"]).all()
    assert (table.xs("conflicting_auroc", level="metric")["n"] == 12).all()
    assert (table.xs("worst_group_accuracy", level="metric")["n"] < 30).all()
    assert set(table.drop(of_groups.index)["n"]) == {N, N - 5}
    note = shortcut_groups.note({}, [*shortcut_groups.MEANING])
    assert card.note(*shortcut_groups.MEANING) == note
    index = radiographs.index
    border_is_normal, is_pneumonia = index["border_normal"] > 0.5, index["class_name"] != "normal"
    conflicting = (index["split"] == "test") & (border_is_normal == is_pneumonia)
    auroc = metrics.roc_auc_score(is_pneumonia[conflicting], y_prob[conflicting])
    assert table.loc["a", "test", "conflicting_auroc"]["value"] == pytest.approx(auroc)


def test_uninformative_border_gives_no_group_scores(radiographs):
    radiographs.index["border_normal"] = np.tile([0.2, 0.4, 0.6], N)
    card = Scorecard(radiographs)
    card.binary("a", y_pred=np.tile([0, 1], 90), y_score=np.linspace(0, 1, 3 * N))
    assert not set(card.table["metric"]) & set(shortcut_groups.MEANING)
    assert card.note("worst_group_accuracy") == shortcut_groups.note(
        {split: shortcut_groups.auroc(radiographs[split].index, seed=0) for split in SCORED}, []
    )


def test_border_rows_have_no_group_scores(radiographs):
    """The border network is wrong on conflicting images by definition."""
    card = Scorecard(radiographs)
    y_pred = np.tile([0, 1], 90)
    for row, groups in (("other", True), ("border", False)):
        card.binary(row, y_pred=y_pred, y_score=y_pred.astype(float), groups=groups)
        card.categorical(row, y_pred=y_pred, groups=groups)
    of_groups = card.table["metric"].isin(shortcut_groups.MEANING)
    assert set(card.table.loc[of_groups, "row"]) == {"other"}


def test_predictions_of_training_images_are_ignored(radiographs):
    card = Scorecard(radiographs)
    y_prob = np.where(radiographs.index["split"] == "train", np.nan, 0.5)
    card.binary("a", y_pred=np.zeros(3 * N, int), y_prob=y_prob)
    assert set(card.table["split"]) == {"validation", "test"}


def test_unavailable_row_is_recorded_with_n(radiographs):
    card = Scorecard(radiographs)
    card.unavailable("size_binary")
    assert card.table["value"].isna().all() and card.table["n"].item() == N


def test_two_class_data_have_no_categorical_scores(radiographs):
    radiographs.facts["two_class_reason"] = "file names carry no subtype"
    card = Scorecard(radiographs)
    card.binary("a", y_pred=np.zeros(len(radiographs.index), int))
    card.categorical("b", y_pred=np.zeros(len(radiographs.index), int))
    assert set(card.table["row"]) == {"a"}

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from cxr_helpers.data.dataset import Dataset
from cxr_helpers.evaluation import scorecard, shortcut_groups
from cxr_helpers.evaluation.scorecard import Scorecard

N = 60  # images of each split


@pytest.fixture
def radiographs():
    """Return images of three splits; five of each are of an unknown kind, twelve contradicted."""
    splits = np.repeat(["train", "validation", "test"], N)
    classes = (["normal"] * 30 + ["bacterial"] * 15 + ["viral"] * 10 + ["unknown"] * 5) * 3
    index = pd.DataFrame({"split": splits, "class_name": classes})
    index["group"] = [f"{c} {i}" for i, c in enumerate(classes)]
    says_normal = np.array([True] * 24 + [False] * 6 + [False] * 24 + [True] * 6)
    index["border_normal"] = np.tile(np.where(says_normal, 0.9, 0.1), 3)
    index["border_bacterial"] = index["border_viral"] = (1 - index["border_normal"]) / 2
    data = Dataset(np.zeros((3 * N, 4, 4), np.uint8), index, {"synthetic": True})
    with data.evaluation():
        yield data


def test_every_scored_split_has_its_lines_and_predictions(radiographs):
    card = Scorecard(radiographs)
    y_true = (radiographs.index["class_name"] != "normal").to_numpy(dtype=float)
    card.binary("a", y_pred=y_true >= 0.5, y_prob=y_true)
    card.categorical("b", y_pred=radiographs.category.clip(0))
    table = card.table.set_index(["row", "split", "metric"])["value"]
    assert set(card.table["split"]) == {"validation", "test"}
    assert table["a", "test", "accuracy"] == 1 == table["a", "test", "conflicting_auroc"]
    assert table["b", "validation", "worst_group_accuracy"] == 1
    assert list(card.table) == scorecard.COLUMNS
    said = card.predictions
    assert len(said[said["row"] == "a"]) == 2 * N
    assert len(said[said["row"] == "b"]) == 2 * (N - 5)  # the unknown kind has no third class
    assert set(said.loc[said["split"] == "test", "image"]) == set(range(2 * N, 3 * N))
    assert card.of_test["a", "auroc"] == 1


def test_predictions_are_whole_numbers_whatever_was_given(radiographs, tmp_path):
    card = Scorecard(radiographs)
    card.binary("a", y_pred=np.tile([True, False], 90))
    card.categorical("b", y_pred=np.tile([2.0, 1.0], 90))
    card.predictions.to_csv(tmp_path / "predictions.csv", index=False)
    said = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    assert set(said["y_pred"]) == {"0", "1", "2"} and set(said["y_true"]) == {"0", "1", "2"}


def test_rows_on_the_same_images_share_their_draws(radiographs):
    card = Scorecard(radiographs, seed=5)
    said = np.tile([0, 1], 90)
    card.binary("a", y_pred=said, splits=["test"])
    card.binary("b", y_pred=said, splits=["test"])
    a, b = (card.table[card.table["row"] == r].drop(columns="row") for r in "ab")
    assert a.reset_index(drop=True).equals(b.reset_index(drop=True))
    assert a["metric"].tolist()[-1] == "worst_group_accuracy" and a["low"].notna().all()


def test_scores_of_groups_have_their_own_images_and_interval(radiographs):
    card = Scorecard(radiographs)
    score = np.random.default_rng(0).random(3 * N)
    card.binary("a", y_pred=score >= 0.5, y_prob=score)
    card.categorical("b", y_pred=(score * 3).astype(int))
    table = card.table.set_index(["row", "split", "metric"])
    assert (table["low"] < table["high"]).all() and table["value"].notna().all()
    of_groups = table[table.index.get_level_values("metric").isin(shortcut_groups.MEANING)]
    assert len(of_groups) == 6 and (of_groups["low"] < of_groups["value"]).all()
    assert (table.xs("conflicting_auroc", level="metric")["n"] == 12).all()
    assert (table.xs("worst_group_accuracy", level="metric")["n"] < 30).all()
    assert set(table.drop(of_groups.index)["n"]) == {N, N - 5}
    index = radiographs.index
    assert card.note(*shortcut_groups.MEANING) == shortcut_groups.note(
        {}, [*shortcut_groups.MEANING]
    )
    against = (index["split"] == "test") & (
        (index["border_normal"] > 0.5) == (index["class_name"] != "normal")
    )
    y_true = index["class_name"][against] != "normal"
    found = table.loc["a", "test", "conflicting_auroc"]
    assert found["value"] == pytest.approx(metrics.roc_auc_score(y_true, score[against]))


def test_where_the_frame_knows_nothing_no_group_is_scored(radiographs):
    radiographs.index["border_normal"] = np.tile([0.2, 0.4, 0.6], N)
    card = Scorecard(radiographs)
    card.binary("a", y_pred=np.tile([0, 1], 90), y_score=np.linspace(0, 1, 3 * N))
    assert not set(card.table["metric"]) & set(shortcut_groups.MEANING)
    assert "nothing for a label to contradict" in card.note("worst_group_accuracy")


def test_the_frames_own_rows_have_no_groups(radiographs):
    """They are wrong on what the border contradicts by definition."""
    card = Scorecard(radiographs)
    said = np.tile([0, 1], 90)
    for own, groups in (("other", True), ("border", False)):
        card.binary(own, y_pred=said, y_score=said.astype(float), groups=groups)
        card.categorical(own, y_pred=said, groups=groups)
    by_group = card.table["metric"].isin(shortcut_groups.MEANING)
    assert set(card.table.loc[by_group, "row"]) == {"other"}


def test_training_images_are_not_looked_at(radiographs):
    card = Scorecard(radiographs)
    score = np.where(radiographs.index["split"] == "train", np.nan, 0.5)
    card.binary("a", y_pred=np.zeros(3 * N, int), y_prob=score)
    assert set(card.table["split"]) == {"validation", "test"}


def test_a_row_that_cannot_be_scored_is_noted(radiographs):
    card = Scorecard(radiographs)
    card.unavailable("size_binary")
    assert card.table["value"].isna().all() and card.table["n"].item() == N


def test_three_classes_are_scored_only_where_they_can_be_told_apart(radiographs):
    radiographs.facts["two_class_reason"] = "no name says so"
    card = Scorecard(radiographs)
    card.binary("a", y_pred=np.zeros(len(radiographs.index), int))
    card.categorical("b", y_pred=np.zeros(len(radiographs.index), int))
    assert set(card.table["row"]) == {"a"}

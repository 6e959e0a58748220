import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from cxr_helpers import frame_groups, scores
from cxr_helpers.dataset import Dataset
from cxr_helpers.scorecard import Scorecard

N = 60  # films of each split


@pytest.fixture
def radiographs():
    """Return films of three splits; five of each are of an unknown kind, twelve contradicted."""
    splits = np.repeat(["train", "validation", "test"], N)
    classes = (["normal"] * 30 + ["bacterial"] * 15 + ["viral"] * 10 + ["unknown"] * 5) * 3
    index = pd.DataFrame({"split": splits, "class_name": classes})
    index["group"] = [f"{c} {i}" for i, c in enumerate(classes)]
    says_normal = np.array([True] * 24 + [False] * 6 + [False] * 24 + [True] * 6)
    index["frame_normal"] = np.tile(np.where(says_normal, 0.9, 0.1), 3)
    index["frame_bacterial"] = index["frame_viral"] = (1 - index["frame_normal"]) / 2
    data = Dataset(np.zeros((3 * N, 4, 4), np.uint8), index, {"synthetic": True})
    with data.evaluation():
        yield data


def test_every_scored_split_has_its_lines_and_predictions(radiographs):
    card = Scorecard(radiographs)
    truth = (radiographs.index["class_name"] != "normal").to_numpy(dtype=float)
    card.binary("a", predicted=truth >= 0.5, probability=truth)
    card.categorical("b", predicted=radiographs.category.clip(0))
    table = card.table.set_index(["row", "split", "metric"])["value"]
    assert set(card.table["split"]) == {"validation", "test"}
    assert table["a", "test", "accuracy"] == 1 == table["a", "test", "contradicted_auroc"]
    assert table["b", "validation", "worst_group_accuracy"] == 1
    assert list(card.table) == scores.COLUMNS
    said = card.predictions
    assert len(said[said["row"] == "a"]) == 2 * N
    assert len(said[said["row"] == "b"]) == 2 * (N - 5)  # the unknown kind has no third class
    assert set(said.loc[said["split"] == "test", "film"]) == set(range(2 * N, 3 * N))
    assert card.of_test["a", "auroc"] == 1


def test_predictions_are_whole_numbers_whatever_was_given(radiographs, tmp_path):
    card = Scorecard(radiographs)
    card.binary("a", predicted=np.tile([True, False], 90))
    card.categorical("b", predicted=np.tile([2.0, 1.0], 90))
    card.predictions.to_csv(tmp_path / "predictions.csv", index=False)
    said = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    assert set(said["predicted"]) == {"0", "1", "2"} and set(said["truth"]) == {"0", "1", "2"}


def test_rows_on_the_same_films_share_their_draws(radiographs):
    card = Scorecard(radiographs, seed=5)
    said = np.tile([0, 1], 90)
    card.binary("a", predicted=said, splits=["test"])
    card.binary("b", predicted=said, splits=["test"])
    a, b = (card.table[card.table["row"] == r].drop(columns="row") for r in "ab")
    assert a.reset_index(drop=True).equals(b.reset_index(drop=True))
    assert a["metric"].tolist()[-1] == "worst_group_accuracy" and a["low"].notna().all()


def test_scores_of_groups_have_their_own_films_and_interval(radiographs):
    card = Scorecard(radiographs)
    score = np.random.default_rng(0).random(3 * N)
    card.binary("a", predicted=score >= 0.5, probability=score)
    card.categorical("b", predicted=(score * 3).astype(int))
    table = card.table.set_index(["row", "split", "metric"])
    assert (table["low"] < table["high"]).all() and table["value"].notna().all()
    of_groups = table[table.index.get_level_values("metric").isin(frame_groups.MEANING)]
    assert len(of_groups) == 6 and (of_groups["low"] < of_groups["value"]).all()
    assert (table.xs("contradicted_auroc", level="metric")["n"] == 12).all()
    assert (table.xs("worst_group_accuracy", level="metric")["n"] < 30).all()
    assert set(table.drop(of_groups.index)["n"]) == {N, N - 5}
    index = radiographs.index
    assert card.note(*frame_groups.MEANING) == frame_groups.note({}, [*frame_groups.MEANING])
    against = (index["split"] == "test") & (
        (index["frame_normal"] > 0.5) == (index["class_name"] != "normal")
    )
    truth = index["class_name"][against] != "normal"
    found = table.loc["a", "test", "contradicted_auroc"]
    assert found["value"] == pytest.approx(metrics.roc_auc_score(truth, score[against]))


def test_where_the_frame_knows_nothing_no_group_is_scored(radiographs):
    radiographs.index["frame_normal"] = np.tile([0.2, 0.4, 0.6], N)
    card = Scorecard(radiographs)
    card.binary("a", predicted=np.tile([0, 1], 90), score=np.linspace(0, 1, 3 * N))
    assert not set(card.table["metric"]) & set(frame_groups.MEANING)
    assert "nothing for a label to contradict" in card.note("worst_group_accuracy")


def test_the_frames_own_rows_have_no_groups(radiographs):
    """They are wrong on what the frame contradicts by definition."""
    card = Scorecard(radiographs)
    said = np.tile([0, 1], 90)
    for own, groups in (("other", True), ("frame", False)):
        card.binary(own, predicted=said, score=said.astype(float), groups=groups)
        card.categorical(own, predicted=said, groups=groups)
    by_group = card.table["metric"].isin(frame_groups.MEANING)
    assert set(card.table.loc[by_group, "row"]) == {"other"}


def test_training_films_are_not_looked_at(radiographs):
    card = Scorecard(radiographs)
    score = np.where(radiographs.index["split"] == "train", np.nan, 0.5)
    card.binary("a", predicted=np.zeros(3 * N, int), probability=score)
    assert set(card.table["split"]) == {"validation", "test"}


def test_a_row_that_cannot_be_scored_is_noted(radiographs):
    card = Scorecard(radiographs)
    card.unavailable("size_binary")
    assert card.table["value"].isna().all() and card.table["n"].item() == N


def test_three_classes_are_scored_only_where_they_can_be_told_apart(radiographs):
    radiographs.facts["why_two"] = "no name says so"
    card = Scorecard(radiographs)
    card.binary("a", predicted=np.zeros(len(radiographs.index), int))
    card.categorical("b", predicted=np.zeros(len(radiographs.index), int))
    assert set(card.table["row"]) == {"a"}

import numpy as np
import pandas as pd
import pytest

from cxr_helpers import scores
from cxr_helpers.dataset import Dataset
from cxr_helpers.scorecard import Scorecard


@pytest.fixture
def radiographs():
    """Return 24 films of each split; two of each are of an unknown kind."""
    splits = np.repeat(["train", "validation", "test"], 24)
    classes = (["normal"] * 12 + ["bacterial"] * 6 + ["viral"] * 4 + ["unknown"] * 2) * 3
    index = pd.DataFrame({"split": splits, "class_name": classes})
    index["group"] = [f"{c} {i}" for i, c in enumerate(classes)]
    index["frame_normal"] = np.tile([0.9, 0.1], 36)
    data = Dataset(np.zeros((72, 4, 4), np.uint8), index, {"synthetic": True})
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
    assert len(said[said["row"] == "a"]) == 48
    assert len(said[said["row"] == "b"]) == 44  # the unknown kind has no third class
    assert set(said.loc[said["split"] == "test", "film"]) == set(range(48, 72))
    assert card.of_test["a", "auroc"] == 1


def test_predictions_are_whole_numbers_whatever_was_given(radiographs, tmp_path):
    card = Scorecard(radiographs)
    card.binary("a", predicted=np.tile([True, False], 36))
    card.categorical("b", predicted=np.tile([2.0, 1.0], 36))
    card.predictions.to_csv(tmp_path / "predictions.csv", index=False)
    said = pd.read_csv(tmp_path / "predictions.csv", dtype=str)
    assert set(said["predicted"]) == {"0", "1", "2"} and set(said["truth"]) == {"0", "1", "2"}


def test_rows_on_the_same_films_share_their_draws(radiographs):
    card = Scorecard(radiographs, seed=5)
    said = np.tile([0, 1], 36)
    card.binary("a", predicted=said, splits=["test"])
    card.binary("b", predicted=said, splits=["test"])
    a, b = (card.table[card.table["row"] == r].drop(columns="row") for r in "ab")
    assert a.reset_index(drop=True).equals(b.reset_index(drop=True))
    assert a["low"].notna().sum() == 4


def test_training_films_are_not_looked_at(radiographs):
    card = Scorecard(radiographs)
    score = np.where(radiographs.index["split"] == "train", np.nan, 0.5)
    card.binary("a", predicted=np.zeros(72, int), probability=score)
    assert set(card.table["split"]) == {"validation", "test"}


def test_a_row_that_cannot_be_scored_is_noted(radiographs):
    card = Scorecard(radiographs)
    card.unavailable("size_binary")
    assert card.table["value"].isna().all() and card.table["n"].item() == 24

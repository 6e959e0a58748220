import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.evaluation import scorecard
from cxr_helpers.pipeline import results
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system.files import write_json


@pytest.fixture
def run(tmp_path):
    data = Stage("01_data", run_dir=tmp_path)
    data.save("dataset.json", write_json, {"name": "x", "synthetic": True})
    data.finish(facts={"images": 4})
    y_true = np.array([0, 0, 1, 1])
    lines = [
        scorecard.score_binary(
            "binary_cnn", s, y_true, y_pred=y_true[::k], y_score=y_true[::k], groups=np.arange(4)
        )
        for s, k in (("validation", 1), ("test", -1))
    ]
    lines.append(scorecard.score_binary("majority_binary", "test", y_true, y_pred=np.ones(4, int)))
    Stage("02_binary", run_dir=tmp_path).finish(scores=pd.concat(lines))
    return tmp_path


def test_published_figures_stand_beside_test_accuracies_only(run):
    table = results.collect(run)
    columns = ["row", "split", "metric", "value", "low", "high", "published", "n"]
    assert list(table.columns) == columns
    has = table[table["published"].notna()]
    assert has[["row", "split", "metric", "published"]].to_numpy().tolist() == [
        ["binary_cnn", "test", "accuracy", 0.85]
    ]


def test_table_one_has_the_test_scores(run):
    table = results.table_one(results.collect(run)).set_index("Row")
    line = table.loc["Binary CNN"]
    assert line["Published"] == 0.85 and line["n"] == 4
    assert (
        line["Accuracy"] == "0.000 [0.00,\N{NO-BREAK SPACE}0.00]"
        and line["AUROC"] == "0.000 [0.00,\N{NO-BREAK SPACE}0.00]"
    )
    majority = table.loc["Baseline: training images' majority class"]
    assert majority["Accuracy"] == "0.500" and majority["AUROC"] == "–"
    assert np.isnan(majority["Published"])


def test_the_six_published_rows_are_the_course_reports():
    published = {row.id: row.published for row in results.ROWS if row.published is not None}
    assert published == {
        "binary_cnn": 0.85,
        "categorical_cnn": 0.76,
        "knn_binary": 0.78,
        "knn_categorical": 0.70,
        "autoencoder": 0.33,
        "knn_autoencoder": 0.66,
    }


def test_files_hold_what_was_scored(run):
    table, content = results.write(run)
    assert pd.read_csv(run / "results.csv").equals(table.reset_index(drop=True))
    assert json.loads((run / "results.json").read_text()) == content
    assert content["facts"]["01_data"] == {"images": 4}
    row = next(r for r in content["rows"] if r["row"] == "binary_cnn" and r["split"] == "test")
    assert row["metrics"]["accuracy"] == 0.0 and row["published"] == 0.85
    assert set(row["intervals"]) == set(row["metrics"])
    assert row["intervals"]["accuracy"] == [0.0, 0.0]
    bare = next(r for r in content["rows"] if r["row"] == "majority_binary")
    assert bare["metrics"]["accuracy"] == 0.5 and bare["intervals"] == {}


def test_a_score_of_a_group_has_its_own_number_of_images(run):
    assert "Worst group" not in results.table_one(results.collect(run))
    path = run / "stages" / "02_binary" / "scores.csv"
    lines = pd.read_csv(path)
    lines.loc[len(lines)] = ("binary_cnn", "test", "worst_group_accuracy", 0.5, 0.25, 1.0, 2)
    lines.to_csv(path, index=False)
    table = results.table_one(results.collect(run)).set_index("Row")
    shown = table.loc["Binary CNN", "Worst group"].replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "0.500 [0.25, 1.00] (n = 2)" and table.loc["Binary CNN", "n"] == 4
    _, content = results.write(run)
    row = next(r for r in content["rows"] if r["row"] == "binary_cnn" and r["split"] == "test")
    assert row["n"] == 4 and row["group_n"] == {"worst_group_accuracy": 2}


def test_a_stage_without_intervals_is_read(run):
    path = run / "stages" / "02_binary" / "scores.csv"
    pd.read_csv(path).drop(columns=["low", "high"]).to_csv(path, index=False)
    table = results.collect(run)
    assert table["low"].isna().all() and table["high"].isna().all() and table["value"].notna().all()


def test_intervals_are_written_as_they_were_scored(run):
    draw = np.random.default_rng(0)
    y_true, score = np.arange(60) % 2, draw.random(60)
    said = {"y_pred": (score > 0.5).astype(int), "probability": score}
    lines = scorecard.score_binary("size_binary", "test", y_true, **said, groups=np.arange(60))
    data = Stage("01_data", run_dir=run)
    data.save("dataset.json", write_json, {})
    data.finish(scores=lines)
    table, content = results.write(run)
    row = next(r for r in content["rows"] if r["row"] == "size_binary")
    for line in lines.itertuples():
        assert row["intervals"][line.metric] == pytest.approx([line.low, line.high])
    assert pd.read_csv(run / "results.csv").equals(table.reset_index(drop=True))


def test_gaps_between_validation_and_test_by_hand(run):
    gaps = results.validation_gaps(results.collect(run))
    # validation: all right (1, 1, 1); test: all wrong (0, 0, 0)
    assert gaps == {"validation": 1.0}


def test_a_row_that_cannot_be_scored_is_shown_without_a_number():
    line = scorecard.unavailable("size_binary", "test", 9)
    table = results.table_one(line).iloc[0]
    assert table["Accuracy"] == "–" and table["n"] == 9


def test_the_second_table_has_the_other_scores(run):
    table = results.table_one(results.collect(run), results.MORE).set_index("Row")
    assert list(table.columns) == ["Classes", *results.MORE, "n"]
    assert table.loc["Binary CNN", "Specificity"] == "0.000 [0.00,\N{NO-BREAK SPACE}0.00]"
    assert table.loc["Baseline: training images' majority class", "Sensitivity"] == "1.000"


def test_other_seeds_give_mean_and_spread(run):
    y_true = np.array([0, 0, 1, 1])
    for seed, said in ((1, y_true), (2, 1 - y_true)):
        again = run / results.SEEDS / str(seed)
        Stage("01_data", run_dir=again).finish()
        line = scorecard.score_binary("binary_cnn", "test", y_true, y_pred=said)
        Stage("02_binary", run_dir=again).finish(scores=line)
    table = results.collect(run, seeds=[1, 2]).set_index(["row", "split", "metric"])
    line = table.loc[("binary_cnn", "test", "accuracy")]
    assert line["value"] == 0 and line["seeds"] == 3  # of 0, 1 and 0
    assert line["seeds_mean"] == pytest.approx(1 / 3)
    assert line["seeds_sd"] == pytest.approx(np.sqrt(1 / 3))
    shown = results.table_one(results.collect(run, seeds=[1, 2])).set_index("Row")
    assert shown.loc["Binary CNN", "Accuracy over seeds"] == "0.333 ± 0.577 (3)"
    assert "seeds" not in results.collect(run)  # what lies there was not asked for


def test_only_what_was_trained_again_has_a_spread(run):
    y_true = np.array([0, 0, 1, 1])
    line = scorecard.score_binary("border_binary", "test", y_true, y_pred=y_true)
    data = Stage("01_data", run_dir=run)
    data.save("dataset.json", write_json, {})
    data.finish(scores=line)
    again = run / results.SEEDS / "1"
    shutil.copytree(run / "stages", again / "stages")  # the runner makes hard links of 01_data
    table = results.collect(run, seeds=[1]).set_index(["row", "metric"])
    assert table.loc["binary_cnn", "seeds"].eq(2).all()
    for fixed in ("border_binary", "majority_binary"):  # of 01_data; executed again, not trained
        assert table.loc[fixed, "seeds"].eq(1).all() and table.loc[fixed, "seeds_sd"].isna().all()
    shown = results.table_one(results.collect(run, seeds=[1])).set_index("Row")
    over = shown["Accuracy over seeds"]
    assert over["Binary CNN"] == "0.000 ± 0.000 (2)"
    assert (over[[label for label in over.index if "Baseline" in label]] == "–").all()


def test_rows_are_compared_on_the_same_images(tmp_path):
    data = Stage("01_data", run_dir=tmp_path)
    groups = [f"normal {i}" for i in range(10)]
    data.save("index.csv", pd.DataFrame({"group": groups}).to_csv, index=False)
    data.finish()
    said = pd.DataFrame({"image": range(10), "split": "test", "y_true": [0, 1] * 5})
    first = said.assign(row="a", y_pred=said["y_true"])
    second = said.assign(row="b", y_pred=0)  # wrong in five images
    both = pd.concat([first, second.sample(frac=1, random_state=0)])
    Stage("02_binary", run_dir=tmp_path).finish(predictions=both)
    found = results.compare(tmp_path, "a", "b")
    assert found["gain"] == found["low"] == found["high"] == 0.5  # in every draw, by strata
    assert found["p"] == pytest.approx(2 * 0.5**5) and found["n"] == 10

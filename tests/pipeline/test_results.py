import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.evaluation import scorecard, tables
from cxr_helpers.pipeline import results
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system.files import write_json

Y_TRUE = np.array([0, 0, 1, 1])


def finish(run, stage, *, dataset=None, **options):
    """Finish a stage of a run, with ``dataset.json`` where one is given."""
    stage = Stage(stage, run_dir=run.folder)
    if dataset is not None:
        stage.save("dataset.json", write_json, dataset)
    stage.finish(**options)


@pytest.fixture
def run(tmp_path):
    """Return a run with a binary network, right on validation and wrong on test, and a baseline."""
    run = Run(tmp_path)
    finish(run, "01_data", dataset={"name": "x", "synthetic": True}, facts={"images": 4})
    lines = [
        scorecard.score_binary(
            "binary_cnn", split, Y_TRUE, y_pred=y_pred, y_score=y_pred, groups=np.arange(4)
        )
        for split, y_pred in (("validation", Y_TRUE), ("test", 1 - Y_TRUE))
    ]
    lines.append(scorecard.score_binary("majority_binary", "test", Y_TRUE, y_pred=np.ones(4, int)))
    finish(run, "02_binary", scores=pd.concat(lines))
    return run


def table_one(run, **options):
    """Return Table 1 of a run by row."""
    scores = results.collect(run, **options)
    return tables.table_one(scores, run.graph.rows).set_index("Row")


def row_of(content, row, split="test"):
    return next(r for r in content["rows"] if (r["row"], r["split"]) == (row, split))


def test_published_accuracies_stand_beside_test_accuracies_only(run):
    scores = results.collect(run)
    columns = ["row", "split", "metric", "value", "low", "high", "published", "n"]
    assert list(scores.columns) == columns
    published = scores[scores["published"].notna()]
    assert published[["row", "split", "metric", "published"]].to_numpy().tolist() == [
        ["binary_cnn", "test", "accuracy", 0.85]
    ]


def test_table_one_shows_the_test_scores(run):
    table = table_one(run)
    line, majority = table.loc["Binary CNN"], table.loc["Baseline: training images' majority class"]
    assert line["Published"] == 0.85 and line["n"] == 4
    zero = "0.000 [0.00,\N{NO-BREAK SPACE}0.00]"
    assert line["Accuracy"] == zero == line["AUROC"]
    assert majority["Accuracy"] == "0.500" and majority["AUROC"] == "–"
    assert np.isnan(majority["Published"])


def test_result_files_hold_the_scores(run):
    scores, content = results.write(run)
    assert pd.read_csv(run.folder / "results.csv").equals(scores.reset_index(drop=True))
    assert json.loads((run.folder / "results.json").read_text()) == content
    assert content["dataset"] == {"name": "x", "synthetic": True}
    assert content["facts"]["01_data"] == {"images": 4}
    row = row_of(content, "binary_cnn")
    assert row["metrics"]["accuracy"] == 0.0 and row["published"] == 0.85
    assert set(row["intervals"]) == set(row["metrics"])
    assert row["intervals"]["accuracy"] == [0.0, 0.0]
    majority = row_of(content, "majority_binary")
    assert majority["metrics"]["accuracy"] == 0.5 and majority["intervals"] == {}


def test_worst_group_accuracy_has_its_own_n(run):
    assert "Worst group" not in table_one(run)
    path = run.stage("02_binary") / "scores.csv"
    scores = pd.read_csv(path)
    scores.loc[len(scores)] = ("binary_cnn", "test", "worst_group_accuracy", 0.5, 0.25, 1.0, 2)
    scores.to_csv(path, index=False)
    shown = table_one(run).loc["Binary CNN", "Worst group"].replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "0.500 [0.25, 1.00] (n = 2)" and table_one(run).loc["Binary CNN", "n"] == 4
    _, content = results.write(run)
    row = row_of(content, "binary_cnn")
    assert row["n"] == 4 and row["group_n"] == {"worst_group_accuracy": 2}


def test_scores_without_intervals_are_read(run):
    path = run.stage("02_binary") / "scores.csv"
    pd.read_csv(path).drop(columns=["low", "high"]).to_csv(path, index=False)
    scores = results.collect(run)
    assert scores["value"].notna().all()
    assert scores["low"].isna().all() and scores["high"].isna().all()


def test_intervals_are_written_unchanged(run):
    rng = np.random.default_rng(0)
    y_true, y_prob = np.arange(60) % 2, rng.random(60)
    predictions = {"y_pred": (y_prob > 0.5).astype(int), "y_prob": y_prob}
    lines = scorecard.score_binary(
        "size_binary", "test", y_true, **predictions, groups=np.arange(60)
    )
    finish(run, "01_data", dataset={}, scores=lines)
    scores, content = results.write(run)
    row = row_of(content, "size_binary")
    for line in lines.itertuples():
        assert row["intervals"][line.metric] == pytest.approx([line.low, line.high])
    assert pd.read_csv(run.folder / "results.csv").equals(scores.reset_index(drop=True))


def test_other_seeds_give_mean_and_standard_deviation(run):
    for seed, y_pred in ((1, Y_TRUE), (2, 1 - Y_TRUE)):
        finish(run.seed(seed), "01_data")
        line = scorecard.score_binary("binary_cnn", "test", Y_TRUE, y_pred=y_pred)
        finish(run.seed(seed), "02_binary", scores=line)
    scores = results.collect(run, seeds=[1, 2]).set_index(["row", "split", "metric"])
    line = scores.loc[("binary_cnn", "test", "accuracy")]
    assert line["value"] == 0 and line["seeds"] == 3  # accuracies 0, 1 and 0
    assert line["seeds_mean"] == pytest.approx(1 / 3)
    assert line["seeds_sd"] == pytest.approx(np.sqrt(1 / 3))
    table = table_one(run, seeds=[1, 2])
    assert table.loc["Binary CNN", "Accuracy over seeds"] == "0.333 ± 0.577 (3)"
    assert "seeds" not in results.collect(run)  # seeds that were not requested are ignored


def test_only_retrained_rows_have_a_spread(run):
    line = scorecard.score_binary("border_binary", "test", Y_TRUE, y_pred=Y_TRUE)
    finish(run, "01_data", dataset={}, scores=line)
    # as the runner does, which makes hard links of 01_data
    shutil.copytree(run.folder / "stages", run.seed(1).folder / "stages")
    scores = results.collect(run, seeds=[1]).set_index(["row", "metric"])
    assert scores.loc["binary_cnn", "seeds"].eq(2).all()
    for row in ("border_binary", "majority_binary"):  # not trained again with another seed
        assert scores.loc[row, "seeds"].eq(1).all() and scores.loc[row, "seeds_sd"].isna().all()
    over = table_one(run, seeds=[1])["Accuracy over seeds"]
    assert over["Binary CNN"] == "0.000 ± 0.000 (2)"
    assert (over[[label for label in over.index if "Baseline" in label]] == "–").all()


def test_compare_pairs_rows_by_image(tmp_path):
    run = Run(tmp_path)
    data = Stage("01_data", run_dir=tmp_path)
    groups = [f"normal {i}" for i in range(10)]
    data.save("index.csv", pd.DataFrame({"group": groups}).to_csv, index=False)
    data.finish()
    images = pd.DataFrame({"image": range(10), "split": "test", "y_true": [0, 1] * 5})
    first = images.assign(row="a", y_pred=images["y_true"])
    second = images.assign(row="b", y_pred=0)  # wrong on five images
    shuffled = second.sample(frac=1, random_state=0)
    finish(run, "02_binary", predictions=pd.concat([first, shuffled]))
    difference = results.compare(run, "a", "b")
    # the same in every resample: classes are resampled separately
    assert difference["gain"] == difference["low"] == difference["high"] == 0.5
    assert difference["p"] == pytest.approx(2 * 0.5**5) and difference["n"] == 10

"""Scores under changes of style."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_helpers.evaluation import robustness

Y_TRUE = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def versions():
    """Return images whose single pixel is the probability, unchanged and changed twice."""
    clear = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    return [
        (robustness.UNCHANGED, clear),
        ("shifted", clear - 0.25),
        ("reversed", 1 - clear),
    ]


@pytest.fixture
def scores():
    """The scores of two networks: one returns the pixel, one a constant."""
    predictors = {"pixel": lambda images: images, "constant": lambda x: np.full(len(x), 0.7)}
    return robustness.scores(versions(), predictors, Y_TRUE, groups=np.arange(8), seed=0)


def test_scores_have_a_line_for_each_network_change_and_metric(scores):
    value = scores.set_index(["network", "change", "metric"])["value"]
    assert len(value) == 2 * 3 * 2
    assert value["pixel", "unchanged", "auroc"] == value["pixel", "shifted", "auroc"] == 1
    assert value["pixel", "shifted", "accuracy"] == 0.75  # 0.6 and 0.7 fall below 0.5
    assert value["pixel", "reversed", "auroc"] == 0
    assert (value["constant"].xs("auroc", level="metric") == 0.5).all()


def test_intervals_contain_the_values(scores):
    assert ((scores["low"] <= scores["value"]) & (scores["value"] <= scores["high"])).all()


def test_summary_names_the_worst_change(scores):
    summary = robustness.summary(scores)
    assert list(summary.index) == ["pixel", "constant"]
    assert summary.loc["pixel", "worst_change"] == "reversed"
    assert summary.loc["pixel", "mean"] == 0.5  # of 1 and 0, without the unchanged images
    assert summary.loc["pixel", "unchanged"] == 1
    (line,) = scores.query(
        "network == 'pixel' and change == 'reversed' and metric == 'auroc'"
    ).itertuples()
    worst = summary.loc["pixel", ["worst", "low", "high"]]
    assert worst.tolist() == [line.value, line.low, line.high]


def test_of_test_images_of_one_class_there_is_no_auroc(scores):
    scores.loc[scores["metric"] == "auroc", ["value", "low", "high"]] = np.nan
    assert robustness.summary(scores)["worst"].isna().all()
    assert robustness.summary(scores, "accuracy")["worst"].notna().all()


def test_text_table_keeps_the_order_of_changes_and_networks(scores):
    text = robustness.as_text(scores, "accuracy")
    assert list(text.columns) == ["change", "pixel", "constant"]
    assert list(text["change"]) == ["unchanged", "shifted", "reversed"]
    assert text.loc[1, "pixel"].startswith("0.750 [")

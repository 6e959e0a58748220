from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.evaluation import scorecard, tables


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def scored(row="a_row", split="test", *, right=True, **options):
    """Return the scores of four predictions, all right or all wrong."""
    y_true = np.array([0, 1, 1, 0])
    y_pred = y_true if right else 1 - y_true
    return scorecard.score_binary(row, split, y_true, y_pred=y_pred, y_prob=y_pred, **options)


def with_worst_group(scores, row):
    """Return scores with a worst-group accuracy of two images added."""
    scores.loc[len(scores)] = (row, "test", "worst_group_accuracy", 0.5, 0.25, 1.0, 2)
    return scores


ROWS = [
    SimpleNamespace(id="b", label="Second row", classes=2, published=None),
    SimpleNamespace(id="a_row", label="First row", classes=3, published=0.85),
    SimpleNamespace(id="c", label="Row without scores", classes=2, published=None),
]


def test_as_text_writes_values_with_intervals():
    with_intervals = scored(groups=np.arange(4))
    table = tables.as_text(with_intervals, tables.HEADINGS)
    assert list(table) == ["row", "split", "n", *tables.HEADINGS[:8]]
    assert table.loc[0, "row"] == "a row"
    assert plain(table.loc[0, "Brier"]) == "0.000 [0.00, 0.00]"
    without = scored()
    both = tables.as_text(pd.concat([with_intervals.assign(row="b"), without]))
    assert both.loc[1, "accuracy"] == "1.000"


def test_as_text_keeps_the_requested_metrics_and_the_order_of_rows():
    table = tables.as_text(pd.concat([scored("b"), scored("a")]), ("AUROC",))
    assert list(table) == ["row", "split", "n", "AUROC"] and table["row"].tolist() == ["b", "a"]


def test_as_text_shows_n_of_scores_on_a_subset():
    scores = with_worst_group(scored("a"), "a")
    table = tables.as_text(scores, ("accuracy", "worst group accuracy"))
    assert table["n"].tolist() == [4] and table["accuracy"].item() == "1.000"
    assert plain(table["worst group accuracy"].item()) == "0.500 [0.25, 1.00] (n = 2)"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.625, 0.625, 0.625), "0.625 [0.62, 0.63]"),
        ((0.29, 0.29, 0.57), "0.290 [0.29, 0.57]"),  # 100 * 0.29 is 28.999… in floating point
        ((0.5,), "0.500"),
        ((0.5, 0.25, 1.0, 2), "0.500 [0.25, 1.00] (n = 2)"),
        ((-0.0004, -0.05, -0.003), "0.000 [-0.05, 0.00]"),  # no minus before 0
        ((np.nan,), "–"),
    ],
)
def test_intervals_are_rounded_outwards(arguments, text):
    assert plain(tables.with_interval(*arguments)) == text


def test_table_one_has_one_line_for_each_scored_row_in_their_order():
    table = tables.table_one(pd.concat([scored(), scored("b", right=False)]), ROWS)
    assert table["Row"].tolist() == ["Second row", "First row"]
    assert table["Accuracy"].tolist() == ["0.000", "1.000"] and table["Classes"].tolist() == [2, 3]
    assert np.isnan(table["Published"]["b"]) and table["Published"].iloc[1] == 0.85
    assert "Worst group" not in table  # no row has one


def test_table_one_reads_one_split():
    scores = pd.concat([scored(), scored(split="validation", right=False)])
    assert tables.table_one(scores, ROWS)["Accuracy"].item() == "1.000"
    assert tables.table_one(scores, ROWS, split="validation")["Accuracy"].item() == "0.000"


def test_table_one_shows_n_of_the_worst_group():
    scores = pd.concat([with_worst_group(scored(), "a_row"), scored("b")])
    table = tables.table_one(scores, ROWS).set_index("Row")
    assert plain(table.loc["First row", "Worst group"]) == "0.500 [0.25, 1.00] (n = 2)"
    assert table.loc["Second row", "Worst group"] == "–" and table.loc["First row", "n"] == 4


def test_rows_have_their_labels_and_where_two_are_alike_their_classes():
    labels = (("a", "Ours", 2), ("b", "Ours", 3), ("c", "Border", 2))
    rows = [SimpleNamespace(id=id, label=label, classes=n) for id, label, n in labels]
    both = pd.concat([scored("b"), scored("a"), scored("c"), scored("x_y")])
    table = tables.as_text(both, ("AUROC",), rows=rows)
    assert table["row"].tolist() == ["Ours (3 classes)", "Ours (2 classes)", "Border", "x y"]
    alone = tables.as_text(scored("a"), ("AUROC",), rows=rows)
    assert alone["row"].unique().tolist() == ["Ours"]


def test_table_one_shows_a_dash_for_an_unavailable_row():
    line = tables.table_one(scorecard.unavailable("b", "test", 9), ROWS).iloc[0]
    assert line["Accuracy"] == "–" and line["n"] == 9


def test_table_one_shows_the_spread_over_seeds():
    scores = pd.concat([scored(), scored("b")])
    seeds = np.where(scores["row"] == "b", 1, 3)
    table = tables.table_one(scores.assign(seeds=seeds, seeds_mean=0.9, seeds_sd=0.05), ROWS)
    assert table["Accuracy over seeds"].tolist() == ["–", "0.900 ± 0.050 (3)"]


def test_further_table_has_the_remaining_metrics():
    table = tables.table_one(scored(), ROWS, tables.FURTHER)
    assert list(table) == ["Row", "Classes", *tables.FURTHER, "n"]
    assert table["Specificity"].item() == "1.000" and table["Brier"].item() == "0.000"


def test_validation_gap_by_hand():
    # validation all right, test all wrong: accuracy, balanced accuracy and AUROC each differ by 1
    scores = pd.concat([scored(split="validation"), scored(right=False)])
    assert tables.validation_gaps(scores) == {"validation": 1.0}

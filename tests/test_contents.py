"""What the report says around the notebooks, for scores that a test makes up."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from cxr_helpers import results, stages
from report import contents

FACTS = {
    "direction": "above",
    "drawn_more_often": 0,
    "held_auroc": 0.5,
    "held_interval": [0.4, 0.6],
    "percentile": 5,
    "pneumonia_lower_error": 0.5,
}
DATA = {"name": "x", "synthetic": True, "scored_only": False}


def lines():
    """Return test scores of all rows; the frame's AUROC may be one half."""
    found = [
        (row.id, "test", metric, 0.8, 0.7, 0.9, 200)
        for row in results.ROWS
        for metric in ("accuracy", "balanced_accuracy", "auroc")
    ]
    table = pd.DataFrame(found, columns=["row", "split", "metric", "value", "low", "high", "n"])
    is_frame = (table["row"] == "frame_binary") & (table["metric"] == "auroc")
    table.loc[is_frame, ["value", "low", "high"]] = 0.479, 0.42, 0.54
    return table


def with_groups(table):
    """Return scores with a worst group of twelve films for two rows."""
    more = [
        (row, "test", "worst_group_accuracy", 0.25, 0.1, 0.45, 12)
        for row in ("binary_cnn", "ours_binary")
    ]
    return pd.concat([table, pd.DataFrame(more, columns=table.columns)], ignore_index=True)


@pytest.fixture
def said(monkeypatch):
    """Return a function from scores to the abstract and the discussion."""
    gain = {"gain": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 1}
    monkeypatch.setattr(results, "compare", lambda *_: gain)

    def say(scores, **facts):
        known = defaultdict(str, FACTS | facts)
        monkeypatch.setattr(stages, "declared", lambda *_: {"facts": known})
        index = pd.DataFrame({"split": ["test"], "class_name": ["normal"]})
        lookup = contents._lookup(Path(), scores=scores, data=DATA, index=index)
        return [
            " ".join(contents._prose(name, lookup).split())
            for name in ("abstract.md", "discussion.md")
        ]

    return say


def table_one(scores):
    return contents._tables(scores, synthetic=True)[0]


def test_where_the_frame_knows_nothing_the_report_says_so_and_has_no_row_for_it(said):
    abstract, discussion = said(lines())
    reason = "does not tell normal from pneumonia here (AUROC: test 0.479 [0.42, 0.54])"
    assert reason in discussion and "drawn more often" not in abstract
    assert "no upper bound on what style gives" in discussion
    table = table_one(lines())
    assert reason in table.caption and "Worst group" not in table.caption
    assert "Worst group" not in [column["label"] for column in table.columns]


def test_a_worst_group_is_told_with_its_films_and_interval(said):
    abstract, discussion = said(with_groups(lines()), drawn_more_often=3)
    assert "25.0% (95% interval 10.0 to 45.0) with the published" in discussion
    assert "(n = 12)" in discussion and "drawn more often" in abstract
    table = table_one(with_groups(lines()))
    place = [column["label"] for column in table.columns].index("Worst group")
    shown = [row[place].replace("\N{NO-BREAK SPACE}", " ") for row in table.rows]
    assert shown[0] == "0.250 [0.10, 0.45] (n = 12)" and shown[1] == "–"
    assert "Worst group" in table.caption and "nothing for a label" not in table.caption
    (n,) = {row[[c["label"] for c in table.columns].index("n")] for row in table.rows}
    assert n == "200"

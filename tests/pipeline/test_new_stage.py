"""A new stage is one file: an eighth notebook runs, is scored and is in the report.

The only file that is added to the project is ``notebooks/08_extra.ipynb``; nothing else changes.
"""

import html
import re

import pandas as pd
import pytest
import tiny

from cxr_helpers.pipeline import graph

LABEL = "Ours: a threshold on the mean grey level"
DECLARED = {
    "reads": ["01_data", "05_knn"],
    "rows": [{"id": "mean_grey", "label": LABEL, "classes": 2, "group": "ours", "place": 4}],
    "presets": {"quick": {"number": 2}},
}
SCORES = """
stage.save("scores.csv", Path.write_text, "row,split,metric,value,n\\nmean_grey,test,accuracy,0.75,1\\n")
"""


@pytest.fixture
def extended(finished):
    """Return a tiny project with a finished run and one more notebook."""
    path = finished.root / "notebooks" / "08_extra.ipynb"
    tiny.write_notebook(path, more=SCORES, declared=DECLARED)
    return finished


def test_new_stage_runs_alone_and_its_row_is_in_results_and_table_1(extended):
    plan = extended.run("--dry-run").text
    assert plan.count("│ up to date ") == len(graph.default())
    assert "│ 08_extra          │ never finished" in plan
    done = extended.run("--no-pdf")
    assert done.code == 0, done.text
    assert extended.take_log() == ["08_extra"]
    value = (extended.stage("08_extra") / "value.txt").read_text()
    assert value.startswith("08_extra 1 ['01_data 1 []', ") and "05_knn 1" in value
    results = pd.read_csv(extended.run_dir / "results.csv").set_index(["row", "metric"])
    assert results.loc[("mean_grey", "accuracy"), "value"] == 0.75
    page = (extended.run_dir / "report.html").read_text()
    assert "Stage 08_extra" in page
    labels = [row[0] for row in table_one(page)]
    position = labels.index(LABEL)
    assert table_one(page)[position][1:] == ["2", "–", "0.750", "–", "1"]
    before = next(row.label for row in graph.default().rows if row.id == "knn_ours")
    assert labels[position - 1] == before  # place 4 follows place 3 of our rows


def table_one(page):
    """Return the cells of each line of Table 1."""
    (table,) = re.findall(r'id="tab-results".*?</table>', page, re.DOTALL)
    lines = table.split("<tr")[2:]
    return [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in cells]
        for cells in (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines)
    ]


def test_preset_and_settings_change_its_parameters(extended):
    done = extended.run("--preset", "quick", "--run", "phantom-standard", "--no-report")
    assert done.code == 0 and extended.take_log() == ["08_extra"]
    assert (extended.stage("08_extra") / "value.txt").read_text().startswith("08_extra 2 ")
    done = extended.run("--set", "8.number=3", "--only", "8", "--no-report")
    assert done.code == 0 and extended.take_log() == ["08_extra"]
    assert "08_extra: parameter changed: number 2 → 3" in done.text


def test_it_is_trained_again_with_other_seeds(extended):
    done = extended.run("--seeds", "0-1", "--no-report")
    assert done.code == 0, done.text
    assert extended.take_log() == sorted(["08_extra", *graph.default().retrained, "08_extra"])
    results = pd.read_csv(extended.run_dir / "results.csv").set_index(["row", "metric"])
    assert results.loc[("mean_grey", "accuracy"), "seeds"] == 2

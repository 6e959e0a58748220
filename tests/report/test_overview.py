"""The page and the table over several runs."""

import io

import pandas as pd
import pytest
from lxml import html

from report import overview

EVIL = '<img src=x onerror="alert(1)">'


def table(**columns):
    scores = pd.DataFrame(
        {
            "run": ["one", "one", "two", "two"],
            "data": [EVIL, EVIL, "phantom", "phantom"],
            "epochs": ["3", "3", "4", "4"],
            "row": ["cnn", "knn", "cnn", "cnn"],
            "split": ["test", "test", "test", "train"],
            "metric": ["accuracy"] * 4,
            "value": [0.75, float("nan"), 0.5, 1.0],
        }
    )
    return scores.assign(**columns)


def write(folder, scores):
    return overview.write(
        scores,
        folder=folder / "over",
        labels={"knn": "Neighbours", "cnn": "Network & more", "none": "No run has it"},
        changed=["epochs"],
        title="2 runs",
    )


def cells(page):
    """Return the text of the table's cells, row by row."""
    rows = html.fromstring(page.read_text()).xpath("//table//tr")
    return [[cell.text_content() for cell in row.xpath("./th | ./td")] for row in rows]


def test_page_shows_each_row_run_beside_run(tmp_path):
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "report.html").touch()
    page, _ = write(tmp_path, table())
    assert cells(page) == [
        ["Run", "one", "two"],
        ["data", EVIL, "phantom"],
        ["epochs", "3", "4"],
        ["Neighbours", "–", "–"],
        ["Network & more", "0.750", "0.500"],
    ]
    links = html.fromstring(page.read_text()).xpath("//table//a/@href")
    assert links == ["../one/report.html", "../two/report.html"]
    assert not html.fromstring(page.read_text()).xpath("//img")


def test_runs_without_a_report_are_named_and_not_linked(tmp_path):
    page, _ = write(tmp_path, table())
    assert cells(page)[0] == ["Run", "one", "two"]
    assert not html.fromstring(page.read_text()).xpath("//table//a")
    assert "link to their reports" not in page.read_text()


def test_page_shows_mean_and_spread_of_rows_that_were_trained_again(tmp_path):
    page, _ = write(
        tmp_path,
        table(seeds=[3, 1, 1, 3], seeds_mean=[0.7, 0.1, 0.5, 0.9], seeds_sd=[0.05, 0.1, 0.0, 0.1]),
    )
    assert cells(page)[-1] == ["Network & more", "0.700 ± 0.050", "0.500"]
    assert "mean ± standard deviation" in page.read_text()


@pytest.mark.parametrize("again", [False, True])
def test_table_has_all_numbers(tmp_path, again):
    if again:
        write(tmp_path, table(value=0.0))
    _, csv = write(tmp_path, table())
    read = pd.read_csv(io.StringIO(csv.read_text()), dtype={"epochs": str})
    pd.testing.assert_frame_equal(read, table(), check_dtype=False)

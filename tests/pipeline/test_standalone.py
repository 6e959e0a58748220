"""A notebook opened where its earlier stages were never made reads a quick run, made if need be."""

import shutil

import pytest
import tiny
from test_by_hand import run_by_hand

from cxr_helpers.pipeline.runs import Run

pytestmark = pytest.mark.usefixtures("by_hand")


def quick(project):
    return Run(project.root / "report" / "build" / "phantom-quick")


def test_earlier_stages_are_made_at_the_quick_setting(project):
    text = run_by_hand(project, "03_categorical")
    first, *rest = text.splitlines()
    assert first.startswith(
        "There is no run phantom-standard; 01_data, 02_binary will be made at the quick setting, in "
        "less than a minute. Reads phantom-quick."
    )
    assert [line.split(":")[0] for line in rest[:2]] == ["01_data", "02_binary"]
    assert (
        "Opened by hand: writes to phantom-quick/scratch and reads the run phantom-quick." in text
    )
    assert project.take_log() == ["01_data", "02_binary", "03_categorical"]
    assert quick(project).is_complete("02_binary") and not quick(project).declared("03_categorical")
    value = quick(project).scratch.stage("03_categorical") / "value.txt"
    assert "01_data 1" in value.read_text()

    text = run_by_hand(project, "02_binary")
    assert "There is no run phantom-standard. Reads phantom-quick." in text
    assert project.take_log() == ["02_binary"]

    shutil.rmtree(quick(project).stage("02_binary"))  # what is there is not made again
    text = run_by_hand(project, "03_categorical")
    assert "; 02_binary will be made at the quick setting" in text
    assert project.take_log() == ["02_binary", "03_categorical"]


def test_finished_run_is_read_instead(finished):
    assert "quick" not in run_by_hand(finished, "03_categorical")
    assert not quick(finished).folder.exists()


def test_other_runs_that_have_the_stage_are_named(finished):
    finished.run_dir.rename(finished.run_dir.with_name("mine"))
    text = run_by_hand(finished, "02_binary")
    named = "(set `run_dir` to read another one: mine); 01_data will"
    assert f"There is no run phantom-standard {named}" in text
    finished.run_dir.mkdir()
    assert f"phantom-standard has no finished 01_data {named[:-14]}" in run_by_hand(
        finished, "02_binary"
    )


def test_failing_stage_is_one_line(project):
    path = project.root / "notebooks" / "01_data.ipynb"
    tiny.write_notebook(path, more="raise RuntimeError('planted')\n")
    with pytest.raises(Exception, match="Refused") as error:
        run_by_hand(project, "02_binary")
    last = str(error.value).strip().splitlines()[-1]
    assert "01_data" in last and "planted" in last and "error:" not in last

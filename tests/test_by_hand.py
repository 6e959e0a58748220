"""Notebooks opened by hand, in a kernel that the runner did not start, leave the run unchanged."""

import re

import nbformat
import papermill
import pytest
import tiny
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell

from cxr_helpers.pipeline import graph, runs
from cxr_helpers.system import files

pytestmark = pytest.mark.usefixtures("by_hand")


def run_by_hand(project, stage, *, number=1):
    """Run a stage's notebook as Jupyter does, with a changed parameter; return what it prints."""
    book = nbformat.read(project.root / "notebooks" / f"{stage}.ipynb", as_version=4)
    changed = f"number, run_dir = {number}, {str(project.run_dir)!r}"
    book.cells.insert(2, new_code_cell(changed))
    book.cells[3].source = "import os, sys; sys.path.insert(0, '..')\n" + book.cells[3].source
    kernel = {"kernel_name": "python3", "timeout": 60}
    place = {"metadata": {"path": project.root / "notebooks"}}
    NotebookClient(book, **kernel, resources=place).execute()
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    return "".join(out.get("text", "") for out in outputs)


def test_run_stays_up_to_date_whatever_is_run_by_hand(finished):
    before = finished.contents()
    for stage, number in (
        ("01_data", 3),
        ("02_binary", 4),
        ("01_data", 5),
        ("04_autoencoder", 6),
    ):
        text = run_by_hand(finished, stage, number=number)
        assert "Opened by hand: writes to phantom-standard/scratch" in text
    after = finished.contents()
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("scratch/") for name in set(after) - set(before))
    finished.take_log()
    plan = finished.run("--dry-run").text
    assert plan.count("│ up to date ") == len(graph.default())
    assert finished.run().code == 0 and finished.take_log() == []


@pytest.mark.parametrize(
    ("number", "message"),
    [(10, "number = 10 is out of range: 0 to 9"), ("'x'", "number = 'x' is not of type int")],
)
def test_value_that_a_parameter_does_not_allow_is_refused(finished, number, message):
    before = finished.contents()
    with pytest.raises(CellExecutionError, match=f"DataError.*{message}") as error:
        run_by_hand(finished, "02_binary", number=number)
    assert finished.contents() == before
    assert "Traceback" not in str(error.value) and "stages.py" not in str(error.value)


def test_misspelt_parameter_is_named(finished):
    place = repr(str(finished.run_dir))
    misspelt = f"1, {place}\nnumbr = number\ndel number\n_, run_dir = 1"
    message = "DataError: the parameter number has no value; did you mean 'numbr'?"
    with pytest.raises(CellExecutionError, match=re.escape(message)):
        run_by_hand(finished, "02_binary", number=misspelt)


def test_later_notebook_reads_what_an_earlier_one_wrote_by_hand(finished):
    run_by_hand(finished, "01_data", number=7)
    run_by_hand(finished, "02_binary")
    path = finished.run_dir / "scratch" / "stages" / "02_binary" / "value.txt"
    assert "01_data 7" in path.read_text()
    assert "01_data 1" in (finished.stage("02_binary") / "value.txt").read_text()


def test_open_notebook_and_run_in_progress_do_not_disturb_each_other(finished):
    """While the run is in 02, the notebooks 01 and 04 are run by hand and do not change it."""
    run = finished.start("--only", "02", planted={"02_binary": tiny.HOLD})
    child = finished.held()
    run_by_hand(finished, "01_data", number=8)
    assert "reads 01_data from there" in run_by_hand(finished, "04_autoencoder")
    with pytest.raises(Exception, match=r"02_binary \(process \d+ is running it\)"):
        run_by_hand(finished, "03_categorical")
    assert run.poll() is None and finished.partial()  # it is still writing
    child.kill()
    tiny.kill(run)
    tiny.wait_for(lambda: not list(finished.run_dir.rglob("child.txt")))
    assert finished.run("--no-report").code == 0
    value = (finished.stage("02_binary") / "value.txt").read_text()
    assert "01_data 1" in value and "01_data 8" not in value


def test_papermill_without_the_runner_is_by_hand_too(finished, tmp_path):
    before = finished.contents()
    papermill.execute_notebook(
        finished.root / "notebooks" / "01_data.ipynb",
        tmp_path / "out.ipynb",
        parameters={"run_dir": str(finished.run_dir), "number": 9},
        cwd=finished.root / "notebooks",
        kernel_name="python3",
        language="python",
        progress_bar=False,
    )
    after = finished.contents()
    assert {name: after[name] for name in before} == before


def test_run_of_another_version_is_refused_in_one_line(finished):
    """Planted: declarations without a format, as before the renaming."""
    for stage in graph.default():
        path = finished.stage(stage) / runs.DECLARED
        content = files.read_json(path)
        del content["format"]
        files.write_json(path, content)
    with pytest.raises(Exception, match="MissingArtifact") as error:
        run_by_hand(finished, "02_binary")
    last = str(error.value).strip().splitlines()[-1]
    assert last.endswith(
        ": 01_data of the run phantom-standard was made by another version of this "
        "project: run `run_all.py --run phantom-standard` again with its options"
    )

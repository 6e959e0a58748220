"""Notebooks opened by hand, in a kernel that the runner did not start: the run stays as it is."""

import nbformat
import papermill
import pytest
import tiny
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

pytestmark = pytest.mark.usefixtures("by_hand")


def play(project, stage, *, more="", number=1):
    """Run a stage's notebook as Jupyter does, with a changed parameter; return what it shows."""
    book = nbformat.read(project.root / "notebooks" / f"{stage}.ipynb", as_version=4)
    own = f"number, run_dir = {number}, {str(project.run_dir)!r}"
    book.cells.insert(2, new_code_cell(own))
    book.cells[3].source = "import os, sys; sys.path.insert(0, '..')\n" + book.cells[3].source
    book.cells[3].source += more
    kernel = {"kernel_name": "python3", "timeout": 60}
    place = {"metadata": {"path": project.root / "notebooks"}}
    NotebookClient(book, **kernel, resources=place).execute()
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    return "".join(out.get("text", "") for out in outputs)


def test_after_any_playing_everything_is_current(finished):
    before = finished.contents()
    for stage, number in (
        ("01_data", 3),
        ("02_binary", 4),
        ("01_data", 5),
        ("04_autoencoder", 6),
    ):
        said = play(finished, stage, number=number)
        assert "Opened by hand: " in said
        reads = "reads the run phantom-standard, which stays as it is, and writes to"
        assert (reads in said) == (stage != "01_data")
    after = finished.contents()
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("scratch/") for name in set(after) - set(before))
    finished.take_log()
    plan = finished.run("--dry-run").said
    assert plan.count("│ current ") == 7 and "would run" in plan
    assert finished.run().code == 0 and finished.take_log() == []


def test_a_later_notebook_sees_what_was_played_before(finished):
    play(finished, "01_data", number=7)
    play(finished, "02_binary")
    made = finished.run_dir / "scratch" / "stages" / "02_binary" / "value.txt"
    assert "01_data 7" in made.read_text()
    assert "01_data 1" in (finished.stage("02_binary") / "value.txt").read_text()


def test_an_open_notebook_and_a_run_in_progress_do_not_disturb_each_other(finished):
    """The run holds 02; meanwhile 01 and 04 are opened, run and leave the run alone."""
    run = finished.start("--only", "02", planted={"02_binary": tiny.HOLD})
    child = finished.held()
    play(finished, "01_data", number=8)
    assert "01_data from there too" in play(finished, "04_autoencoder")
    with pytest.raises(Exception, match=r"02_binary \(process \d+ is at it\)"):
        play(finished, "03_categorical")
    assert run.poll() is None and finished.partial()  # it still writes
    child.kill()
    tiny.kill(run)
    tiny.wait_for(lambda: not list(finished.run_dir.rglob("child.txt")))
    assert finished.run("--no-pdf").code == 0
    value = (finished.stage("02_binary") / "value.txt").read_text()
    assert "01_data 1" in value and "01_data 8" not in value


def test_papermill_alone_is_by_hand_too(finished, tmp_path):
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

"""Tiny fixture notebooks, really executed: what papermill calls completed is not believed."""

import os
import signal
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cxr_helpers.pipeline import notebooks
from cxr_helpers.pipeline.notebooks import NotebookFailed

BEGIN = """
from cxr_helpers.pipeline.stages import Stage
stage = Stage("01_data", run_dir=run_dir)
"""


def run(folder, *cells, timeout=None, kernel="python3"):
    parameters = new_code_cell('run_dir: str = ""', metadata={"tags": ["parameters"]})
    sources = [parameters, new_code_cell(BEGIN), *map(new_code_cell, cells)]
    book = new_notebook(cells=sources)
    book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    path = folder / "01_data.ipynb"
    nbformat.write(book, path)
    lines = []
    run_dir = folder / "run"
    try:
        done = notebooks.execute(
            path,
            run_dir=run_dir,
            parameters={"run_dir": str(run_dir)},
            tell=lines.append,
            timeout=timeout,
        )
    finally:
        left = sorted(p.name for p in (run_dir / "notebooks").iterdir() if p.suffix == ".ipynb")
    return done, lines, left


def failure(folder, *cells, **options):
    with pytest.raises(NotebookFailed) as error:
        run(folder, *cells, **options)
    left = sorted(p.name for p in (folder / "run" / "notebooks").glob("*.ipynb"))
    assert left == ["01_data.failed.ipynb"]
    return error.value


def test_a_good_notebook_leaves_its_executed_copy(tmp_path):
    done, lines, left = run(tmp_path, 'stage.log("epoch 1/1")\nprint("noise")', "stage.finish()")
    assert lines == ["epoch 1/1"]
    assert left == ["01_data.ipynb"]
    assert nbformat.read(done, as_version=4).cells[-1].execution_count


def test_it_runs_in_this_interpreter_whatever_kernel_is_named_and_wherever(tmp_path):
    path = tmp_path / "who"
    (tmp_path / f"a folder{os.pathsep}ü").mkdir()
    run(
        tmp_path / f"a folder{os.pathsep}ü",
        f"import sys; open({str(path)!r}, 'w').write(sys.executable); stage.finish()",
        kernel="no-such-kernel",
    )
    assert path.read_text() == sys.executable


def test_an_exception_names_notebook_and_cell(tmp_path):
    error = failure(tmp_path, "1 / 0", "stage.finish()")
    assert "01_data.ipynb, cell 3" in str(error) and "ZeroDivisionError" in str(error)
    assert error.error == "ZeroDivisionError"


def test_an_early_exit_is_no_success(tmp_path):
    error = failure(tmp_path, "import sys; sys.exit(0)", "stage.finish()")
    assert "cell 3" in str(error) and "SystemExit" in str(error)


def test_a_cell_that_was_never_reached_is_no_success(tmp_path):
    run(tmp_path, "x = 1", "stage.finish()")
    path = tmp_path / "run" / "notebooks" / "01_data.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells[3].execution_count = None
    nbformat.write(book, path)
    with pytest.raises(NotebookFailed, match="cell 3 was never run"):
        notebooks.check_complete(path, stage="01_data", run_dir=tmp_path / "run")


def test_a_notebook_that_declares_nothing_is_no_success(tmp_path):
    assert "without declaring" in str(failure(tmp_path, "x = 1"))


def test_a_dead_kernel_points_to_memory(tmp_path):
    error = failure(tmp_path, "import os; os.kill(os.getpid(), 9)", "stage.finish()")
    assert "lack of memory" in str(error) and "01_data.ipynb" in str(error)


def test_an_endless_cell_is_stopped(tmp_path):
    error = failure(tmp_path, "while True: pass", "stage.finish()", timeout=1)
    assert "longer than 1 s" in str(error)


def test_a_cell_that_asks_a_question_is_no_endless_wait(tmp_path):
    error = failure(tmp_path, "input('name?')", "stage.finish()")
    assert "StdinNotImplementedError" in str(error) and "cell 3" in str(error)


def test_the_children_of_a_cell_end_with_the_notebook(tmp_path):
    cell = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid); stage.finish()"
    done, *_ = run(tmp_path, cell)
    book = nbformat.read(done, as_version=4)
    child = int(book.cells[-1].outputs[0].text)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(child)


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on file sizes here")
def test_a_full_disk_is_no_fault_of_the_notebook(tmp_path):
    """OUT-02: the system's number comes through NumPy, a cause, the kernel and papermill."""
    write = "try:\n    stage.save('x.npy', np.save, np.zeros(10**5))"
    write += "\nexcept OSError as error:\n    raise ValueError('odd') from error"
    error = failure(tmp_path, "import numpy as np", LIMIT, write, "stage.finish()")
    assert error.code == 6
    assert str(error) == (
        "01_data.ipynb, cell 5: OSError: [Errno 27] File too large: raise the limit on file sizes"
    )


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("import no_such_package", 6),
        ("raise OSError('5 requested and 3 written')", 4),
        ("from cxr_helpers.data.folder import DataError\nraise DataError('no images')", 3),
    ],
)
def test_the_exit_code_goes_by_what_the_kernel_raised(tmp_path, cell, code):
    assert failure(tmp_path, cell).code == code


def test_a_notebook_whose_language_is_not_said(tmp_path):
    """Programs that strip outputs strip this too."""
    book = new_notebook(
        cells=[
            new_code_cell(BEGIN.replace("run_dir=run_dir", f"run_dir={str(tmp_path)!r}")),
            new_code_cell("stage.finish()"),
        ]
    )
    nbformat.write(book, tmp_path / "01_data.ipynb")
    done = notebooks.execute(
        tmp_path / "01_data.ipynb", run_dir=tmp_path, parameters={}, tell=lambda line: None
    )
    assert done == tmp_path / "notebooks" / "01_data.ipynb"


def test_the_kernel_has_the_helpers_of_this_process(tmp_path):
    """Not those of another checkout that happens to be installed."""
    _, lines, _ = run(
        tmp_path, "import cxr_helpers; stage.log(cxr_helpers.__file__)", "stage.finish()"
    )
    assert lines == [str(Path(notebooks.__file__).with_name("__init__.py"))]


def test_the_environment_is_left_as_it_was(tmp_path):
    before = dict(os.environ)
    run(tmp_path, "stage.finish()")
    assert dict(os.environ) == before


def test_other_markdown_is_copied_into_what_ran(tmp_path):
    done, _, _ = run(tmp_path, "stage.finish()", 'print("ran")')
    before = [cell for cell in nbformat.read(done, as_version=4).cells if cell.cell_type == "code"]
    source = tmp_path / "01_data.ipynb"
    book = nbformat.read(source, as_version=4)
    book.cells.insert(1, new_markdown_cell("Between, *with a comma*"))
    book.cells.append(new_markdown_cell("At the end"))
    nbformat.write(book, source)
    notebooks.update_markdown(source, done)
    cells = nbformat.read(done, as_version=4).cells
    kinds = [cell.cell_type for cell in cells]
    # the parameters that were injected stay below their cell
    assert kinds == ["code", "code", "markdown", *["code"] * 3, "markdown"]
    assert "injected-parameters" in cells[1].metadata.tags
    assert [cell for cell in cells if cell.cell_type == "code"] == before
    assert cells[-1].source == "At the end" and "with a comma" in cells[2].source

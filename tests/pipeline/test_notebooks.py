"""Small notebooks, really executed: papermill's own report of success is not enough."""

import logging
import os
import signal
from pathlib import Path

import nbformat
import pytest
from executed import BEGIN, execute, run_of, write_notebook
from nbformat.v4 import new_markdown_cell

from cxr_helpers.pipeline import notebooks
from cxr_helpers.pipeline.notebooks import NotebookFailed


def failure(folder, *cells, **options):
    with pytest.raises(NotebookFailed) as error:
        execute(folder, *cells, **options)
    left = sorted(p.name for p in (folder / "run" / "notebooks").glob("*.ipynb"))
    assert left == ["01_data.failed.ipynb"]
    return error.value


def test_complete_notebook_leaves_its_executed_copy(tmp_path):
    done, lines, left = execute(
        tmp_path, 'stage.log("epoch 1/1")\nprint("noise")', "stage.finish()"
    )
    assert lines == ["epoch 1/1"]
    assert left == ["01_data.ipynb"]
    assert nbformat.read(done, as_version=4).cells[-1].execution_count


def test_exception_names_notebook_and_cell(tmp_path):
    error = failure(tmp_path, "1 / 0", "stage.finish()")
    assert "01_data.ipynb, cell 3" in str(error) and "ZeroDivisionError" in str(error)
    assert error.error == "ZeroDivisionError"


def test_early_exit_is_a_failure(tmp_path):
    error = failure(tmp_path, "import sys; sys.exit(0)", "stage.finish()")
    assert "cell 3" in str(error) and "SystemExit" in str(error)


def test_cell_that_did_not_run_is_a_failure(tmp_path):
    path, _, _ = execute(tmp_path, "x = 1", "stage.finish()")
    book = nbformat.read(path, as_version=4)
    book.cells[3].execution_count = None
    nbformat.write(book, path)
    with pytest.raises(NotebookFailed, match="cell 3 did not run"):
        notebooks.check_complete(path, run_of(tmp_path), "01_data")


def test_notebook_that_does_not_declare_its_artifacts_is_a_failure(tmp_path):
    assert "did not declare its artifacts: its last cell must call stage.finish()" in str(
        failure(tmp_path, "x = 1")
    )


@pytest.mark.parametrize(
    ("says", "times", "starts"),
    [("Address already in use", 1, 2), ("Address already in use", 9, 3), ("no such file", 9, 1)],
)
def test_kernel_whose_port_was_taken_is_started_again(tmp_path, monkeypatch, says, times, starts):
    """Planted: as where another program takes the port between its choice and the kernel's start."""
    calls, real = [], notebooks.papermill.execute_notebook

    def execute_notebook(*args, **options):
        calls.append(args)
        if len(calls) <= times:
            log = tmp_path / "run" / "notebooks" / "01_data.log"
            log.write_text(f"zmq.error.ZMQError: {says}")
            raise RuntimeError("Kernel didn't respond in 60 seconds")
        return real(*args, **options)

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", execute_notebook)
    if times < notebooks.ATTEMPTS:
        _, lines, left = execute(tmp_path, "stage.finish()")
        assert left == ["01_data.ipynb"] and len(lines) == 1 and "port" in lines[0]
    else:
        with pytest.raises(
            NotebookFailed, match=f"01_data.ipynb: .* did not start: .*{says}"
        ) as error:
            execute(tmp_path, "stage.finish()")
        assert error.value.code == 6
    assert len(calls) == starts


def test_folder_with_braces_is_no_template(tmp_path):
    """papermill would look for parameters of these names in the paths."""
    (tmp_path / "{run_dir} {v2}").mkdir()
    _, _, left = execute(tmp_path / "{run_dir} {v2}", "stage.finish()")
    assert left == ["01_data.ipynb"]


def test_dead_kernel_points_to_memory(tmp_path):
    error = failure(tmp_path, "import os; os.kill(os.getpid(), 9)", "stage.finish()")
    assert "lack of memory" in str(error) and "01_data.ipynb" in str(error)


@pytest.mark.parametrize("fault", ["import os; os.kill(os.getpid(), 9)", "1 / 0"])
def test_cells_before_a_fault_are_kept_with_their_output(tmp_path, fault):
    failure(tmp_path, "print('so far')", fault)
    (copy,) = tmp_path.rglob("01_data.failed.ipynb")
    assert "so far" in str([cell.get("outputs") for cell in nbformat.read(copy, 4).cells])


def test_endless_cell_is_stopped(tmp_path):
    error = failure(tmp_path, "while True: pass", "stage.finish()", timeout=1)
    assert "longer than 1 s (--timeout)" in str(error)


def test_cell_that_reads_input_fails_at_once(tmp_path):
    error = failure(tmp_path, "input('name?')", "stage.finish()")
    assert "StdinNotImplementedError" in str(error) and "cell 3" in str(error)


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on file sizes here")
def test_full_disk_is_a_fault_of_the_machine(tmp_path):
    """The errno survives NumPy, a cause, the kernel and papermill (OUT-02)."""
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
        ("from cxr_helpers.system.errors import DataError\nraise DataError('no images')", 3),
    ],
)
def test_exit_code_follows_the_exception_in_the_kernel(tmp_path, cell, code):
    assert failure(tmp_path, cell).code == code


def test_lines_of_progress_are_passed_on_when_they_are_complete():
    lines = []
    stream = notebooks._Progress(lines.append)
    for part in ("noise\n» one", " two\n", "» three\nnoise »\n", "» half"):
        stream.write(part)
    assert lines == ["one two", "three"]


def test_execution_changes_no_state_that_another_one_shares(tmp_path):
    log = logging.getLogger("papermill")
    before, environment = (log.level, log.propagate, list(log.handlers)), dict(os.environ)
    seen = []
    folder = Path.cwd()
    write_notebook(tmp_path, BEGIN, "stage.log('1')", "stage.finish()", kernel=None)
    run = run_of(tmp_path)
    notebooks.execute(
        run,
        "01_data",
        parameters={"run_dir": str(run.folder)},
        log=lambda _: seen.append((log.level, log.propagate, list(log.handlers))),
    )
    assert seen == [before] and dict(os.environ) == environment and Path.cwd() == folder


def test_notebook_without_a_language_runs(tmp_path):
    """Programs that strip outputs strip this entry of the metadata too."""
    begin = BEGIN.replace("run_dir=run_dir", f"run_dir={str(tmp_path / 'run')!r}")
    write_notebook(tmp_path, begin, "stage.finish()", kernel=None, parameters=False)
    run = run_of(tmp_path)
    done = notebooks.execute(run, "01_data", parameters={}, log=lambda line: None)
    assert done == run.executed("01_data")


def test_stage_of_another_notebook_is_refused(tmp_path):
    """As in a copy of a notebook in which Stage(...) was not changed."""
    error = failure(tmp_path, 'Stage("02_binary", run_dir=run_dir)', "stage.finish()")
    assert "01_data.ipynb opens Stage('02_binary'): it must open '01_data'" in str(error)


def test_changed_markdown_is_copied_into_the_executed_notebook(tmp_path):
    done, _, _ = execute(tmp_path, "stage.finish()", 'print("ran")')
    before = [cell for cell in nbformat.read(done, as_version=4).cells if cell.cell_type == "code"]
    source = tmp_path / "01_data.ipynb"
    book = nbformat.read(source, as_version=4)
    book.cells.insert(1, new_markdown_cell("Between, *with a comma*"))
    book.cells.append(new_markdown_cell("At the end"))
    nbformat.write(book, source)
    notebooks.update_markdown(source, done)
    cells = nbformat.read(done, as_version=4).cells
    kinds = [cell.cell_type for cell in cells]
    # the injected parameters stay below their cell
    assert kinds == ["code", "code", "markdown", *["code"] * 3, "markdown"]
    assert "injected-parameters" in cells[1].metadata.tags
    assert [cell for cell in cells if cell.cell_type == "code"] == before
    assert cells[-1].source == "At the end" and "with a comma" in cells[2].source

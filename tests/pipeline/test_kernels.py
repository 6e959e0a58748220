"""The kernel of executed notebooks: this interpreter, with the package of this process."""

import os
import sys
import time
from pathlib import Path

import nbformat
import psutil
from executed import execute

import cxr_helpers


def test_kernel_is_this_interpreter_whichever_kernel_is_named(tmp_path):
    path = tmp_path / "executable"
    folder = tmp_path / f"a folder{os.pathsep}ü"
    folder.mkdir()
    execute(
        folder,
        f"import sys; open({str(path)!r}, 'w').write(sys.executable); stage.finish()",
        kernel="no-such-kernel",
    )
    assert path.read_text() == sys.executable


def test_children_of_a_cell_end_with_the_notebook(tmp_path):
    cell = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid); stage.finish()"
    done, *_ = execute(tmp_path, cell)
    notebook = nbformat.read(done, as_version=4)
    child = int(notebook.cells[-1].outputs[0].text)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(child)


def test_kernel_imports_the_package_of_this_process(tmp_path):
    """Not that of another checkout that happens to be installed."""
    _, lines, _ = execute(
        tmp_path, "import cxr_helpers; stage.log(cxr_helpers.__file__)", "stage.finish()"
    )
    assert lines == [str(Path(cxr_helpers.__file__))]


def test_environment_of_this_process_is_unchanged(tmp_path):
    before = dict(os.environ)
    execute(tmp_path, "stage.finish()")
    assert dict(os.environ) == before

"""Execute one notebook with papermill, repeat its progress, and believe only what it shows."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets import Unicode

from cxr_helpers.pipeline import stages
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import errors, files
from cxr_helpers.system.errors import Fault, Refused

KERNEL = "cxr-this-python"
# What native libraries write to the kernel's stderr goes to a file, not between our lines. A
# guard in a session of its own ends the kernel's process group once kernel or driver is gone:
# after a kill -9 of the driver nobody else would end the kernel's children.
_LAUNCH = """
import os, sys
log = os.open(os.environ["CXR_KERNEL_LOG"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.dup2(log, 2)
kernel, driver = os.getpid(), os.getppid()
open(os.environ["CXR_KERNEL_PID"], "w").write(str(kernel))
if hasattr(os, "fork") and os.fork() == 0:
    import signal, time
    os.setsid()
    os.closerange(0, 4096)
    try:
        while os.getppid() == kernel:
            time.sleep(0.2)
            os.kill(driver, 0)
    except OSError:
        pass
    try:
        os.killpg(kernel, signal.SIGKILL)
    finally:
        os._exit(0)
from cxr_helpers.system import errors
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
app.initialize()
app.shell.set_custom_exc((Exception,), errors.recorder(os.environ["CXR_KERNEL_FAULT"]))
app.start()
"""


class NotebookFailed(Refused):
    """A notebook did not run to its end.

    Its exit code is 3 where the data were at fault, 6 where the machine was, else 4.

    Attributes
    ----------
    error : str
        Name of the exception in the notebook, such as ``"DataError"``; empty if it was none.
    """

    def __init__(self, message: str, *, fault: Fault | None = None) -> None:
        super().__init__(fault.code if fault and fault.code != errors.BUG else 4, message)
        self.error = fault.name if fault else ""


def execute(
    run: Run,
    stage: str,
    *,
    parameters: Mapping[str, object],
    log: Callable[[str], None],
    store: Path | None = None,
    anew: bool = False,
    timeout: int | None = None,
) -> Path:
    """Execute a stage's notebook in a fresh kernel of this interpreter.

    Parameters
    ----------
    run : Run
        The executed copy is saved in its folder ``notebooks``; a failed one there as
        ``<stage>.failed.ipynb``.
    stage : str
    parameters : mapping
        Injected after the cell tagged ``parameters``.
    log : callable
        Gets each line of progress that the notebook prints.
    store : Path, optional
        Folder of the results that are computed once; beside the runs by default.
    anew : bool
        Whether they are computed again all the same.
    timeout : int, optional
        Seconds that a single cell may take.

    Returns
    -------
    Path
        The executed copy.

    Raises
    ------
    NotebookFailed
        If a cell raised, was not reached, or took too long, the kernel died, or the stage did
        not declare its artifacts. The message names notebook and cell.
    """
    source, done = run.graph[stage].notebook, run.executed(stage)
    folder = done.parent
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / f"{files.PARTIAL}{os.getpid()}-{source.name}"
    failed = folder / f"{stage}.failed.ipynb"
    failed.unlink(missing_ok=True)
    try:
        environment = {stages.RUNNER: str(store or run.folder.parent / stages.STORE)}
        environment |= {stages.ANEW: "1"} if anew else {}
        stderr = folder / f"{stage}.log"
        own = _own_kernel(folder, log=stderr, environment=environment)
        with own as (manager, record), _progress(log):
            try:
                papermill.execute_notebook(
                    source,
                    running,
                    parameters=dict(parameters),
                    kernel_name=KERNEL,
                    kernel_manager_class=manager,
                    language="python",
                    cwd=source.parent,
                    progress_bar=False,
                    log_output=True,
                    execution_timeout=timeout,
                    shutdown_kernel="immediate",
                )
            except papermill.PapermillExecutionError as error:
                fault = errors.recorded(record) or Fault(
                    errors.BUG, error.ename, f"{error.ename}: {error.evalue}"
                )
                where = f"{source.name}, cell {error.cell_index}"
                raise NotebookFailed(f"{where}: {fault.message}", fault=fault) from error
        check_complete(running, run, stage)
    except DeadKernelError as error:
        raise NotebookFailed(
            f"{source.name}: its kernel died, probably for lack of memory: "
            "try a smaller batch_size, image_size or --preset quick"
        ) from error
    except CellTimeoutError as error:
        raise NotebookFailed(f"{source.name}: a cell took longer than {timeout} s") from error
    else:
        os.replace(running, done)
    finally:
        if running.exists():
            os.replace(running, failed)
    return done


def check_complete(executed: Path, run: Run, stage: str) -> None:
    """Refuse an executed notebook in which a code cell did not run, or raised.

    papermill itself says "completed" after ``sys.exit(0)`` in a cell.

    Raises
    ------
    NotebookFailed
        Naming the cell, or what the stage did not declare.
    """
    notebook = nbformat.read(executed, as_version=4)
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        raised = [o for o in cell.outputs if o.output_type == "error"]
        if raised:
            reason = f"{raised[0].ename}: {raised[0].evalue}"
            raise NotebookFailed(f"{stage}.ipynb, cell {position}: {reason}")
        if cell.execution_count is None:
            raise NotebookFailed(
                f"{stage}.ipynb, cell {position} was never run: an earlier cell ended the kernel"
            )
    if run.declared(stage) is None:
        raise NotebookFailed(f"{stage}.ipynb ended without declaring its artifacts")


def update_markdown(source: Path, executed: Path) -> None:
    """Give an executed notebook the Markdown of its source; what ran stays as it is.

    Parameters
    ----------
    source : Path
        Its code cells must be those of the executed notebook.
    executed : Path
        Written anew, whole or not at all.
    """
    book = nbformat.read(executed, as_version=4)
    ran = [cell for cell in book.cells if cell.cell_type == "code"]
    cells = []
    for cell in nbformat.read(source, as_version=4).cells:
        cells.append(ran.pop(0) if cell.cell_type == "code" else cell)
        while ran and "injected-parameters" in ran[0].metadata.get("tags", []):
            cells.append(ran.pop(0))  # papermill's, below the cell of the parameters
    book.cells = cells
    files.write_text(executed, nbformat.writes(book))


@contextmanager
def _own_kernel(
    place: Path, *, log: Path, environment: Mapping[str, str]
) -> Iterator[tuple[type, Path]]:
    """Offer a kernel that is this interpreter, whatever kernels the machine has.

    Yields
    ------
    manager : type
        A class of kernel managers for nbclient.
    record : Path
        Where the kernel records the fault that ends it, see ``faults.recorded``.
    """
    with files.temporary_folder(place) as folder:
        record, pid = folder / "fault.json", folder / "pid"
        errors.prepare_record(record)
        helpers = [str(Path(__file__).resolve().parents[2])]  # those that this process imports
        if os.environ.get("PYTHONPATH"):
            helpers.append(os.environ["PYTHONPATH"])
        environment = {
            **environment,
            "CXR_KERNEL_LOG": str(log),
            "CXR_KERNEL_PID": str(pid),
            "CXR_KERNEL_FAULT": str(record),
            "PYTHONPATH": os.pathsep.join(helpers),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        command = [sys.executable, "-c", _LAUNCH, "-f", "{connection_file}"]
        spec = KernelSpec(argv=command, display_name="Python 3", language="python", env=environment)
        connection = Unicode(str(folder / "connection.json"))
        members = {"kernel_spec": spec, "connection_file": connection}
        try:
            yield type("OwnKernelManager", (AsyncKernelManager,), members), record
        finally:
            _end_group(pid)


def _end_group(pid_file: Path) -> None:
    """End what a kernel has left running, such as the workers of a cell."""
    if hasattr(os, "killpg") and pid_file.is_file():
        with suppress(OSError, ValueError):  # it has left nothing, or never began
            os.killpg(int(pid_file.read_text()), signal.SIGKILL)


@contextmanager
def _progress(write: Callable[[str], None]) -> Iterator[None]:
    """Pass on the progress lines among a notebook's outputs; papermill logs all of them."""

    class Repeat(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for line in record.getMessage().splitlines():
                if line.startswith(stages.PROGRESS):
                    write(line.removeprefix(stages.PROGRESS))

    log, handler = logging.getLogger("papermill"), Repeat()
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate

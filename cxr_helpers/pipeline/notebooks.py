"""Execute a notebook with papermill, log its progress, and check that every cell has run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import nbformat
import papermill
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill import engines

from cxr_helpers.pipeline import background, dependencies, kernels, stages
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import errors, files, portable
from cxr_helpers.system.errors import Fault, Refused

# papermill's messages are ours to show; nothing is changed for a single execution, so that several
# notebooks can run in one process
logging.getLogger("papermill").addHandler(logging.NullHandler())
logging.getLogger("papermill").propagate = False


START_TIMEOUT = 300  # seconds that a kernel may take to start, on a busy machine
ATTEMPTS = 3  # to start a kernel: its ports, where it has some, are chosen before it binds them


class _SavedOnce(engines.NBClientEngine):
    """papermill's engine without a copy of the notebook on disk before and after each cell.

    These took a fifth of the runner's own time; the one at the end, or after a fault, remains.
    """

    NAME = "cxr-saved-once"

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: engines.NotebookExecutionManager, *args: object, **options: object
    ) -> None:
        nb_man.save = lambda **_: None
        try:
            super().execute_managed_notebook(nb_man, *args, **options)
        finally:
            del nb_man.save


engines.papermill_engines.register(_SavedOnce.NAME, _SavedOnce)


class NotebookFailed(Refused):
    """A notebook did not run to its end.

    The exit code is 3 where the data are the cause, 6 where the machine is, else 4.

    Attributes
    ----------
    error : str
        Name of the exception in the notebook, such as ``"DataError"``; empty if there was none.
    """

    def __init__(self, message: str, *, fault: Fault | None = None) -> None:
        super().__init__(fault.code if fault and fault.code != errors.BUG else 4, message)
        self.error = fault.name if fault else ""
        self._fault = fault

    def __reduce__(self) -> tuple:
        return partial(NotebookFailed, fault=self._fault), (str(self),)


def execute(
    run: Run,
    stage: str,
    *,
    parameters: Mapping[str, object],
    log: Callable[[str], None],
    store: Path | None = None,
    recompute: bool = False,
    in_background: bool = False,
    timeout: int | None = None,
    fork_server: ForkServer | None = None,
    group: kernels.Group | None = None,
) -> Path:
    """Execute a stage's notebook in a fresh kernel of this interpreter.

    Parameters
    ----------
    run : Run
        The executed copy is saved in its folder ``notebooks``, a failed one as
        ``<stage>.failed.ipynb``.
    stage : str
    parameters : mapping
        Injected after the cell tagged ``parameters``.
    log : callable
        Called with each line of progress that the notebook prints.
    store : Path, optional
        Folder of the cached results; beside the runs by default.
    recompute : bool
        Whether cached results are computed again.
    in_background : bool
        Whether the kernel gets a second process, see ``background``.
    timeout : int, optional
        Seconds that a single cell may take.
    fork_server : ForkServer, optional
        Saves the kernel the imports of other projects' libraries.
    group : kernels.Group, optional
        The group that the kernel belongs to.

    Returns
    -------
    Path
        The executed copy.

    Raises
    ------
    NotebookFailed
        If a cell raised, was not run or took too long, the kernel died, or the stage did not
        declare its artifacts. The message names the notebook and the cell.
    """
    source, done = run.graph[stage].notebook, run.executed(stage)
    folder = done.parent
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / files.partial_name(source.name)
    failed = folder / f"{stage}.failed.ipynb"
    failed.unlink(missing_ok=True)
    try:
        environment = {
            stages.RUNNER: str(store or run.folder.parent / stages.STORE),
            stages.RUNNING: stage,
        }
        environment |= {stages.RECOMPUTE: "1"} if recompute else {}
        environment |= {background.WANTED: "1"} if in_background else {}
        stderr = folder / f"{stage}.log"
        cells = nbformat.read(source, as_version=4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        own_kernel = partial(
            kernels.this_interpreter,
            folder,
            log=stderr,
            environment=environment,
            fork_server=fork_server,
            imports=dependencies.library_imports(code) if fork_server else (),
            group=group,
        )
        for attempt in range(1, ATTEMPTS + 1):
            with own_kernel() as (manager, record):
                try:
                    papermill.execute_notebook(
                        _literally(source),
                        _literally(running),
                        parameters=dict(parameters),
                        engine_name=_SavedOnce.NAME,
                        kernel_name=kernels.NAME,
                        kernel_manager_class=manager,
                        language="python",
                        # the kernel's folder; papermill's cwd would be that of all threads
                        resources={"metadata": {"path": str(source.parent)}},
                        progress_bar=False,
                        stdout_file=_Progress(log),
                        execution_timeout=timeout,
                        start_timeout=START_TIMEOUT,
                        shutdown_kernel="immediate",
                    )
                    break
                except papermill.PapermillExecutionError as error:
                    fault = errors.recorded(record) or Fault(
                        errors.BUG, error.ename, f"{error.ename}: {error.evalue}"
                    )
                    where = f"{source.name}, cell {error.cell_index}"
                    raise NotebookFailed(f"{where}: {fault.message}", fault=fault) from error
                except RuntimeError as error:  # of nbclient
                    if isinstance(error, DeadKernelError):
                        raise
                    if attempt == ATTEMPTS or not _port_was_taken(stderr):
                        raise _not_started(source.name, stderr, error) from error
                    log("another program has just taken the kernel's port: the kernel starts again")
        check_complete(running, run, stage)
    except DeadKernelError as error:
        raise NotebookFailed(
            f"{source.name}: its kernel died, probably for lack of memory: "
            "try --jobs 1, a smaller batch_size or image_size, or --preset quick"
        ) from error
    except CellTimeoutError as error:
        raise NotebookFailed(
            f"{source.name}: a cell took longer than {timeout} s (--timeout)"
        ) from error
    else:
        portable.replace(running, done)
    finally:
        if running.exists():
            portable.replace(running, failed)
        if threading.current_thread() is not threading.main_thread():
            ensure_event_loop().close()  # Jupyter makes one for each thread, and leaves it open
    return done


def _not_started(name: str, stderr: Path, error: Exception) -> NotebookFailed:
    """Return the error of a kernel that died, or did not answer, before it ran a cell."""
    lines = []
    with suppress(OSError):
        lines = stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = lines[-1] if lines else str(error)
    fault = Fault(errors.MACHINE, type(error).__name__, reason)
    return NotebookFailed(f"{name}: its kernel did not start: {reason}", fault=fault)


def _port_was_taken(stderr: Path) -> bool:
    """Return whether a kernel's standard error says that it could not bind one of its ports."""
    with suppress(OSError):
        return "Address already in use" in stderr.read_text(encoding="utf-8", errors="replace")
    return False


def check_complete(executed: Path, run: Run, stage: str) -> None:
    """Refuse an executed notebook in which a code cell raised or did not run.

    papermill reports a notebook as completed even after ``sys.exit(0)`` in a cell.

    Raises
    ------
    NotebookFailed
        Naming the cell, or the stage that did not declare its artifacts.
    """
    notebook = nbformat.read(executed, as_version=4)
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        failures = [o for o in cell.outputs if o.output_type == "error"]
        if failures:
            reason = f"{failures[0].ename}: {failures[0].evalue}"
            raise NotebookFailed(f"{stage}.ipynb, cell {position}: {reason}")
        if cell.execution_count is None:
            raise NotebookFailed(
                f"{stage}.ipynb, cell {position} did not run: an earlier cell ended the kernel"
            )
    if run.declared(stage) is None:
        raise NotebookFailed(
            f"{stage}.ipynb did not declare its artifacts: its last cell must call stage.finish()"
        )


def update_markdown(source: Path, executed: Path) -> None:
    """Copy the Markdown of a notebook into its executed copy; code cells and outputs stay.

    Parameters
    ----------
    source : Path
        Its code cells are those of the executed notebook.
    executed : Path
        Replaced atomically.
    """
    notebook = nbformat.read(executed, as_version=4)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = []
    for cell in nbformat.read(source, as_version=4).cells:
        cells.append(ran.pop(0) if cell.cell_type == "code" else cell)
        while ran and "injected-parameters" in ran[0].metadata.get("tags", []):
            cells.append(ran.pop(0))  # papermill adds it below the parameters cell
    notebook.cells = cells
    files.write_text(executed, nbformat.writes(notebook))


def _literally(path: Path) -> str:
    """Return a path as papermill needs it, which replaces names in braces by parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


class _Progress:
    """Where papermill writes a notebook's output: passes on its progress lines."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._rest = log, ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith(stages.PROGRESS):
                self._log(line.removeprefix(stages.PROGRESS))

    def flush(self) -> None:
        """Do nothing: each line is passed on when it is complete."""

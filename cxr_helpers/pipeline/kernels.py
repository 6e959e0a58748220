"""A Jupyter kernel of this interpreter that ends with the runner and records its fault."""

from __future__ import annotations

import os
import signal
import socket
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import CaselessStrEnum, Unicode

from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.system import accelerators, errors, files

NAME = "cxr-this-python"
# Native libraries write to the kernel's standard error, which goes to a file, not to the terminal.
# A guard process in its own session ends the kernel's process group when the kernel or the runner
# has ended: after a kill -9 of the runner, nothing else would end the kernel's children.
_LAUNCH = """
import os, sys
log = os.open(os.environ["CXR_KERNEL_LOG"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.dup2(log, 2)
kernel, runner = os.getpid(), int(os.environ["CXR_KERNEL_RUNNER"])
open(os.environ["CXR_KERNEL_PID"], "w").write(str(kernel))
if hasattr(os, "fork") and os.fork() == 0:
    import signal, time
    os.setsid()
    os.closerange(0, 4096)
    try:
        while os.getppid() == kernel:
            time.sleep(0.2)
            os.kill(runner, 0)
    except OSError:
        pass
    try:
        os.killpg(kernel, signal.SIGKILL)
    finally:
        os._exit(0)
from cxr_helpers.pipeline import background
from cxr_helpers.system import errors
background.prepare()
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
app.initialize()
app.shell.set_custom_exc((Exception,), errors.recorder(os.environ["CXR_KERNEL_FAULT"]))
app.start()
"""


class Group:
    """Kernels that can be ended together.

    Attributes
    ----------
    ended : bool
        Whether that was done: no kernel starts any more.
    """

    def __init__(self) -> None:
        self.ended = False
        self._pid_files: set[Path] = set()

    @contextmanager
    def including(self, pid_file: Path) -> Iterator[None]:
        """Include a kernel in the group within the block."""
        self._pid_files.add(pid_file)
        try:
            yield
        finally:
            self._pid_files.discard(pid_file)

    def end(self) -> None:
        """Kill the kernels that run; what waits for one of them learns that it died."""
        self.ended = True
        for pid_file in list(self._pid_files):
            end_group(pid_file)


@contextmanager
def this_interpreter(
    parent: Path,
    *,
    log: Path,
    environment: Mapping[str, str],
    fork_server: ForkServer | None = None,
    imports: Iterable[str] = (),
    group: Group | None = None,
) -> Iterator[tuple[type, Path]]:
    """Offer a kernel that runs this interpreter, whichever kernels are installed.

    Parameters
    ----------
    parent : Path
        Folder for the kernel's temporary files.
    log : Path
        File for the kernel's standard error.
    environment : mapping of str to str
        Variables added to those of this process.
    fork_server : ForkServer, optional
        The kernel is forked from it where that is possible, and is a new process otherwise.
    imports : iterable of str
        Import statements that the fork server executes before.
    group : Group, optional
        The group that the kernel belongs to.

    Yields
    ------
    manager : type
        A class of kernel managers for nbclient.
    record : Path
        Where the kernel records the fault that ends it, see ``errors.recorded``.
    """
    with files.temporary_folder(parent) as folder:
        record, pid = folder / "fault.json", folder / "pid"
        errors.prepare_record(record)
        paths = [str(Path(__file__).resolve().parents[2])]  # the package that this process imports
        if os.environ.get("PYTHONPATH"):
            paths.append(os.environ["PYTHONPATH"])
        environment = {
            **environment,
            "CXR_KERNEL_LOG": str(log),
            "CXR_KERNEL_PID": str(pid),
            "CXR_KERNEL_FAULT": str(record),
            "CXR_KERNEL_RUNNER": str(os.getpid()),
            # ipykernel's default, set before the fork server imports matplotlib
            "MPLBACKEND": os.environ.get("MPLBACKEND")
            or "module://matplotlib_inline.backend_inline",
            "PYTHONPATH": os.pathsep.join(paths),
            **accelerators.variables(),
        }
        command = [sys.executable, "-c", _LAUNCH, "-f", "{connection_file}"]
        spec = KernelSpec(argv=command, display_name="Python 3", language="python", env=environment)
        connection = Unicode(str(folder / "connection.json"))
        members = {
            "kernel_spec": spec,
            "connection_file": connection,
            "fork_server": fork_server,
            "group": group,
            "imports": ["from ipykernel.kernelapp import IPKernelApp", *imports],
        }
        # another program may take a port before the kernel binds it
        if has_abstract_sockets():
            members["transport"] = CaselessStrEnum(["tcp", "ipc"], default_value="ipc")
            members["ip"] = Unicode(f"@{NAME}-{uuid.uuid4()}")
        try:
            with group.including(pid) if group else nullcontext():
                yield type("OwnKernelManager", (_Manager,), members), record
        finally:
            end_group(pid)


@cache
def has_abstract_sockets() -> bool:
    """Return whether there are Unix domain sockets without a file: on Linux, see unix(7)."""
    if sys.platform != "linux":
        return False
    address = f"\0{NAME}-{uuid.uuid4()}"
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(address)
            server.listen()
            client.connect(address)
    except OSError:  # refused by a sandbox
        return False
    return True


class _Manager(AsyncKernelManager):
    """Forks the kernel from a fork server where that is possible."""

    fork_server: ForkServer | None
    group: Group | None
    imports: list[str]

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options) -> None:
        forked = None
        if self.fork_server is not None:
            # ipykernel watches no parent, as it would be the server; the kernel's guard suffices
            environment = options["env"] | {"JPY_PARENT_PID": "1"}
            forked = self.fork_server.fork(
                _LAUNCH,
                kernel_cmd[3:],  # what follows the interpreter, -c and the program
                imports=self.imports,
                environment=environment,
                folder=options.get("cwd") or os.getcwd(),
            )
        if self.group is not None and self.group.ended:  # while the server was asked
            if forked is not None:
                forked.kill()
            raise RuntimeError("the run was stopped")
        if forked is None:
            await super()._async_launch_kernel(kernel_cmd, **options)
        else:  # as LocalProvisioner.launch_kernel does
            kernel = self.provisioner
            kernel.process, kernel.pid, kernel.pgid = forked, forked.pid, forked.pid


def end_group(pid_file: Path) -> None:
    """Kill a kernel, and the processes that it has left running, such as the workers of a cell."""
    try:
        kernel = int(pid_file.read_text(encoding="ascii"))
        written = pid_file.stat().st_mtime
    except (OSError, ValueError):  # it never started, or its folder is being removed
        return
    if hasattr(os, "killpg"):
        with suppress(OSError):  # there are none
            os.killpg(kernel, signal.SIGKILL)
    else:
        _end_children(kernel, since=written)
        with suppress(psutil.Error):
            process = psutil.Process(kernel)
            if process.create_time() <= written:  # else another one has its number now
                process.kill()


def _end_children(parent: int, *, since: float) -> None:
    """Kill the processes that one has started since a time, and theirs, where there are no groups.

    Windows keeps the number of a parent that has ended; it may be given to another process later.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if process.ppid() == parent and process.create_time() >= since:
                _end_children(process.pid, since=since)
                process.kill()

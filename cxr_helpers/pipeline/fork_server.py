"""A process that imports the stages' libraries once, and from which their kernels are forked.

Importing TensorFlow, Keras, scikit-learn and matplotlib takes several seconds of processor time. A
kernel that is forked from a process that has imported them has them at once, and shares their
memory. The server imports for each kernel what its notebook imports (so a notebook without
TensorFlow does not wait for it), but nothing of this project: a kernel reads the project's code
from disk, as it is at that moment.

Only a process with a single thread can be forked safely: in the copy, other threads would be
missing, with their locks held. The server runs no TensorFlow operation, and importing TensorFlow
starts no thread. OpenBLAS starts threads, but ends them before a fork (``pthread_atfork``). Where
other threads are left, where a CUDA driver has been loaded, where an import failed, or on systems
other than Linux, the server does not fork, and the kernel is started as a new process.

``multiprocessing.forkserver`` forks whichever threads there are, fixes its imports in advance, and
imports ``__main__`` of its parent in each process.

The environment variable ``CXR_NO_FORK`` turns this off, to compare the results.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

OFF = "CXR_NO_FORK"
# A request is one line of JSON, its answer the number of the new process. The end of the stream
# tells each side that the other has ended. The new process is not a child of the runner, so only
# its end can be awaited, not its exit code: the system removes it at once (SIGCHLD is ignored).
_SERVER = """
import ctypes, gc, importlib, json, os, signal, socket, sys, time

def n_threads():
    return len(os.listdir("/proc/self/task"))

def can_fork():
    if n_threads() > 1 and os.fork() == 0:  # OpenBLAS ends its threads now
        os._exit(0)
    deadline = time.monotonic() + 1  # a thread is listed for a moment after it has ended
    while n_threads() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    with open("/proc/self/maps") as maps:
        return n_threads() == 1 and "/libcuda.so" not in maps.read()

def become(request):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.enable()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["-c", *request["arguments"]]
    importlib.invalidate_caches()
    if "numpy.random" in sys.modules:  # Python itself reseeds only ``random``
        sys.modules["numpy.random"].seed()
    exec(request["program"], {"__name__": "__main__"})

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the runner
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
gc.disable()
connection = socket.socket(fileno=int(sys.argv[1]))
stream = connection.makefile("rw")
for line in stream:
    request = json.loads(line)
    exec("\\n".join(request["imports"]), {})
    gc.freeze()  # to collect garbage in the copies would write to the memory that they share
    if not can_fork():
        break
    copy = os.fork()
    if copy == 0:
        os.setsid()
        stream.close()
        connection.close()
        become(request)
        break
    print(copy, file=stream, flush=True)
"""


class Forked:
    """A process forked by the server, with those members of ``subprocess.Popen`` that are used.

    Its exit code is not known: ``poll`` and ``wait`` return 1.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:  # it has ended, or cannot be watched
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise
        self._ended = select.poll()
        self._ended.register(self._descriptor, select.POLLIN)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def poll(self) -> int | None:
        """Return None while it runs."""
        return 1 if self._ended.poll(0) else None

    def wait(self) -> int:
        """Wait for its end."""
        self._ended.poll()
        return 1

    def send_signal(self, number: int) -> None:
        """Send a signal to it, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A context in which kernels can be forked; the server starts with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._stream = None
        self._lock = threading.Lock()  # of requests from several threads
        # the server ends with the thread that starts it (PR_SET_PDEATHSIG): one that lives as long
        self._starter = ThreadPoolExecutor(1)
        self._usable = hasattr(os, "pidfd_open") and not os.environ.get(OFF)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_) -> None:
        self._close()
        self._starter.shutdown()

    def fork(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        imports: Iterable[str],
        environment: Mapping[str, str],
        folder: Path,
    ) -> Forked | None:
        """Run a program in a fork of the server.

        Parameters
        ----------
        program : str
            Python source.
        arguments : sequence of str
            Its ``sys.argv[1:]``.
        imports : iterable of str
            Import statements that the server executes before.
        environment : mapping of str to str
            The variables of the process. The server keeps those of the first process, in which the
            libraries are imported.
        folder : Path
            Working folder.

        Returns
        -------
        Forked or None
            The leader of a new session. None if the server cannot fork: nothing has run, and the
            caller starts a new process.
        """
        request = {
            "program": program,
            "arguments": list(arguments),
            "imports": list(imports),
            "environment": dict(environment),
            "folder": str(folder),
        }
        with self._lock:
            if not self._usable:
                return None
            try:
                if self._process is None:
                    self._start(environment, folder)
                print(json.dumps(request), file=self._stream, flush=True)
                return Forked(int(self._stream.readline()))
            except (OSError, ValueError):  # the server has ended, which makes its answer empty
                self._close()
                self._usable = False
                return None

    def _start(self, environment: Mapping[str, str], folder: Path) -> None:
        own, other = socket.socketpair()
        with own, other:
            self._process = self._starter.submit(
                subprocess.Popen,
                [sys.executable, "-c", _SERVER, str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ipykernel redirects it in each kernel
                stderr=subprocess.DEVNULL,  # a kernel's goes to a file, see ``kernels``
                cwd=folder,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C in the terminal is the runner's
            ).result()
            self._stream = own.makefile("rw")

    def end(self) -> None:
        """Kill the server, so that a thread that waits for its answer goes on; kernels are not affected."""
        if process := self._process:  # a thread may be about to forget it
            process.kill()

    def _close(self) -> None:
        """End the server; kernels that run are not affected."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._stream is not None:
            with suppress(OSError):  # of a request that was not sent
                self._stream.close()
            self._stream = None

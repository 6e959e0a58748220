"""Commands that are forked from a process that has imported their libraries, for tests.

A command of the tiny project takes a second, and the import of papermill, nbconvert and Dask several.
Nothing of this project is imported beforehand: each command reads its own copy.
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
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path

LIBRARIES = (
    "numpy pandas PIL.Image rich.console rich.table rich.live jinja2 filelock psutil nbformat "
    "nbclient papermill jupyter_client nbconvert matplotlib.pyplot typst scipy.stats distributed "
    "dask.cli"
)
# Requests and answers are JSON, one in a packet. A request comes with the descriptor of the command's
# standard error; its answer is the command's number and null, and, when it has ended, its exit code.
_SERVER = """
import gc, importlib, json, os, select, signal, socket, sys, time

sys.modules["rfc3987_syntax"] = None  # as in environment.skip_unused_grammar
for name in sys.argv[2].split():
    importlib.import_module(name)
gc.freeze()
if os.path.isdir("/proc/self/task"):
    if os.fork() == 0:  # OpenBLAS ends its threads now
        os._exit(0)
    os.wait()
    deadline = time.monotonic() + 5  # a thread is listed for a moment after it has ended
    while len(os.listdir("/proc/self/task")) > 1:
        assert time.monotonic() < deadline, "a library has started a thread"
        time.sleep(0.01)
connection = socket.socket(fileno=int(sys.argv[1]))
ended, wake = os.pipe()
os.set_blocking(ended, False)
os.set_blocking(wake, False)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(wake)
while True:
    ready = select.select([connection, ended], [], [])[0]
    if ended in ready:  # at once: a kernel's guard asks whether its runner is there
        os.read(ended, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            connection.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())
    if connection in ready:
        data, descriptors, *_ = socket.recv_fds(connection, 2**20, 1)
        if not data:
            break
        request = json.loads(data)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            os.close(ended)
            os.close(wake)
            os.dup2(descriptors[0], 2)
            os.close(descriptors[0])
            sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
            if request["session"]:
                os.setsid()
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            sys.argv = ["-c", *request["arguments"]]
            importlib.invalidate_caches()
            exec(request["code"], {"__name__": "__main__"})
            break
        os.close(descriptors[0])
        connection.send(json.dumps([pid, None]).encode())
"""


class Started:
    """A command that was forked, with the members of ``subprocess.Popen`` that tests use."""

    def __init__(self, server: Server, pid: int, stderr: int | None) -> None:
        self._server, self.pid = server, pid
        self.stderr = None if stderr is None else os.fdopen(stderr, encoding="utf-8")

    @property
    def returncode(self) -> int | None:
        """The exit code once it is known: of a signal, its negative number."""
        return self._server.codes.get(self.pid)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        self._server.receive(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        deadline = time.monotonic() + (1000 if timeout is None else timeout)
        while self.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired("a forked command", timeout)
            self._server.receive(left)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Read standard error, if any, to its end, and wait; kill it after the time."""
        limit = threading.Timer(timeout or 1000, self.kill)
        limit.start()
        try:
            with self.stderr or nullcontext():
                text = self.stderr.read() if self.stderr else ""
            self.wait()
        finally:
            limit.cancel()
        return None, text

    def send_signal(self, number: int) -> None:
        """Send a signal to it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Server:
    """The process from which commands are forked; it ends with this one."""

    def __init__(self) -> None:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(other.fileno()), LIBRARIES],
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k not in left_out},
            start_new_session=True,
        )
        other.close()
        self.pid = self._process.pid
        self._connection, self._lock = own, threading.Lock()
        self.codes: dict[int, int] = {}

    def start(
        self,
        code: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        folder: Path,
        session: bool = False,
        quiet: bool = False,
    ) -> Started:
        """Fork a command: Python code with ``sys.argv[1:]``, variables and a working folder.

        It is the leader of a session on request; ``quiet``, nobody reads its standard error.
        """
        reading, writing = (None, os.open(os.devnull, os.O_WRONLY)) if quiet else os.pipe()
        request = {"code": code, "arguments": list(arguments), "environment": dict(environment)}
        request |= {"folder": str(folder), "session": session}
        socket.send_fds(self._connection, [json.dumps(request).encode()], [writing])
        os.close(writing)
        pid = None
        while pid is None:
            pid = self.receive(60)
        return Started(self, pid, reading)

    def receive(self, timeout: float) -> int | None:
        """Read what there is within a time; return the number of a command that has started."""
        with self._lock:
            if not select.select([self._connection], [], [], timeout)[0]:
                return None
            data = self._connection.recv(2**16)
            assert data, "the process that forks commands has ended"
            pid, code = json.loads(data)
            if code is None:
                self.codes.pop(pid, None)  # of an earlier process of this number
                return pid
            self.codes[pid] = code
            return None


def is_server(pid: int) -> bool:
    """Return whether a process is the one from which this process forks commands."""
    return bool(server.cache_info().currsize) and server().pid == pid


@cache
def server() -> Server:
    """Return the one server of this process."""
    return Server()

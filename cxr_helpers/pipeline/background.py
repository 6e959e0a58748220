"""Compute results in a process of its own, on an idle core, while a notebook goes on.

The process gets calls through its standard input, one after another, stores each result in the file
that it is to have, and then writes a line. It ends with its standard input: whoever began it has
ended. If it fails, the notebook computes what is missing itself, and meets the error.

The standard library's ``ProcessPoolExecutor`` would go on with a call after the kernel was killed,
and imports TensorFlow before its messages can be hidden.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cxr_helpers.system import accelerators, environment

SHARED = "CXR_SHARED"  # set where other tasks use the other cores
MEMORY = 2 * 10**9  # bytes that must be free
LENGTH = struct.Struct("<Q")  # of the bytes that follow


class Background:
    """A process that computes results; it starts with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._begun = self._done = 0

    @property
    def is_possible(self) -> bool:
        """Whether a core is idle, with memory for the process, or the process is there."""
        if self._process is not None:
            return self._process.poll() is None
        idle = environment.cores() > environment.threads() and SHARED not in os.environ
        return idle and environment.free_memory() >= MEMORY and accelerators.gpu() is None

    def begin(self, compute: Callable, *args: object) -> Callable[[], None] | None:
        """Begin a call; return a function that waits for its end.

        Parameters
        ----------
        compute : callable
            A function of a module, or a method of an object that can be pickled.
        *args
            Can be pickled.

        Returns
        -------
        callable or None
            None where the call cannot be sent to another process. That it has ended does not mean
            that it succeeded.
        """
        call = io.BytesIO()
        try:
            _Pickler(call).dump((compute, args))
        except (pickle.PicklingError, AttributeError, TypeError):
            return None
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=Path(__file__).resolve().parents[2],
                env=os.environ | accelerators.variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        try:
            self._process.stdin.write(LENGTH.pack(call.tell()) + call.getvalue())
            self._process.stdin.flush()
        except OSError:  # it has ended
            return None
        self._begun += 1
        number = self._begun

        def wait() -> None:
            while self._done < number and self._process.stdout.readline():
                self._done += 1

        return wait


class _Pickler(pickle.Pickler):
    """Sends a network as its configuration and its weights.

    Keras would save and load it: the layers of a sequential network are then not connected by the
    tensors that heat maps are computed from.
    """

    def reducer_override(self, value: object) -> object:
        if not (hasattr(value, "get_config") and hasattr(value, "get_weights")):
            return NotImplemented
        return _rebuilt, (type(value), value.get_config(), value.get_weights())


def _rebuilt(kind: type, config: dict, weights: list) -> object:
    network = kind.from_config(config)
    network.set_weights(weights)
    return network


def main() -> None:
    """Carry out the calls on standard input; other output than their ends is left out."""
    ends = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(calls.put,), daemon=True).start()
    try:
        importlib.import_module("cxr_helpers.models.architectures")  # registers our networks' layers
        accelerators.prepare()
        while True:
            compute, args = pickle.loads(calls.get())
            compute(*args)
            print("done", file=ends, flush=True)
    finally:
        os._exit(1)  # the other thread holds the lock of standard input


def _receive(put: Callable[[bytes], None]) -> None:
    """Receive calls as they come, so that a notebook need not wait to send one; end with them."""
    stream = sys.stdin.buffer
    while len(length := stream.read(LENGTH.size)) == LENGTH.size:
        put(stream.read(*LENGTH.unpack(length)))
    os._exit(0)


if __name__ == "__main__":
    main()

"""Compute results on an idle core while a notebook goes on.

A kernel of a small run has a second process: a copy that is made before the kernel does anything, see
``prepare``, and has imported the libraries already (``fork_server``). It gets calls through a
pipe, one after another, and reports when one has ended. It ends with the kernel. If a call fails, so
does the process, and the notebook computes what is missing itself, and meets the error.

The standard library's ``ProcessPoolExecutor`` starts its processes when the first call is made: a
copy of the kernel would then lack its threads, and a new process imports TensorFlow for seconds.
"""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from cxr_helpers.system import accelerators, environment

WANTED = "CXR_BACKGROUND"  # set by the runner in the kernels that are to have a second process


class Background:
    """The second process of a kernel.

    Parameters
    ----------
    connection : Connection
        To it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begun = self._ended = 0

    def begin(
        self, function: Callable, *args: object, **kwargs: object
    ) -> Callable[[], None] | None:
        """Begin a call; return a function that waits for its end.

        Parameters
        ----------
        function : callable
            A function of a module, or a method of an object that can be sent.
        *args, **kwargs
            What ``multiprocessing`` can send, and Keras models.

        Returns
        -------
        callable or None
            None where the call cannot be sent. That it has ended does not mean that it succeeded.
        """
        call = function, [*map(sent, args)], {name: sent(arg) for name, arg in kwargs.items()}
        try:
            self._connection.send_bytes(ForkingPickler.dumps(call))
        except Exception:  # of any kind: it has ended, or an argument cannot be sent
            return None
        self._begun += 1
        number = self._begun

        def wait() -> None:
            try:
                while self._ended < number:
                    self._ended = int(self._connection.recv_bytes())
            except (EOFError, OSError):  # it has ended
                pass

        return wait


process: Background | None = None  # of this kernel


def is_wanted(*, jobs: int) -> bool:
    """Return whether kernels that are started now are to have a second process.

    On Linux, without a GPU, where there are more cores than threads, and one thread in each stage.

    Parameters
    ----------
    jobs : int
        How many stages may run at once; with one, memory or cores are scarce.
    """
    idle = jobs > 1 and environment.threads() == 1 < environment.cores()
    return idle and sys.platform == "linux" and accelerators.gpu() is None


def prepare() -> None:
    """Give this process a second one where the runner wants it, before any thread is started."""
    global process
    if WANTED not in os.environ or not hasattr(os, "fork"):  # which Windows has not
        return
    ours, theirs = Pipe()
    if os.fork() == 0:
        ours.close()
        try:
            _serve(theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    theirs.close()
    process = Background(ours)


def _serve(connection: Connection) -> None:
    """Carry out calls until the kernel ends; what they print goes to its standard error."""
    os.dup2(2, 1)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, calls.put), daemon=True).start()
    for number in itertools.count(1):
        _carry_out(calls.get())
        connection.send_bytes(str(number).encode())


def _carry_out(call: bytes) -> None:
    function, args, kwargs = ForkingPickler.loads(call)
    accelerators.prepare()  # now that TensorFlow has been imported
    function(*map(received, args), **{name: received(value) for name, value in kwargs.items()})


def _receive(connection: Connection, put: Callable[[bytes], None]) -> None:
    """Receive calls as they come, so that the notebook need not wait to send one; end with them."""
    try:
        while True:
            put(connection.recv_bytes())
    finally:
        os._exit(0)


def sent(value: object) -> object:
    """Return an argument as it is sent: of a Keras model, its configuration and its weights."""
    return _Network.of(value) if hasattr(value, "layers") else value


def received(value: object) -> object:
    """Return the argument of which ``sent`` made this."""
    return value.rebuilt() if isinstance(value, _Network) else value


@dataclass(frozen=True)
class _Network:
    """A Keras model as it is sent: Keras itself would save and load it."""

    kind: type
    config: dict
    layers: dict[str, type]
    weights: list

    @classmethod
    def of(cls, model: object) -> _Network:
        layers = {type(layer).__name__: type(layer) for layer in model.layers}
        return cls(type(model), model.get_config(), layers, model.get_weights())

    def rebuilt(self) -> object:
        import keras

        built = self.kind.from_config(self.config, custom_objects=self.layers)
        # a sequential model has then called its layers several times, and heat maps are computed from
        # the tensors of the first time, which lead nowhere
        model = keras.models.clone_model(built)
        model.set_weights(self.weights)
        return model

"""Compute results on an idle core while a notebook goes on.

A kernel of a small run has a second process: a copy that is made before the kernel does anything, see
``prepare``, and has imported the libraries already (``fork_server``). It gets calls through a
pipe, one after another, and writes a byte when one has ended. It ends with the kernel. If a call
fails, so does it, and the notebook computes what is missing itself, and meets the error.

The standard library's ``ProcessPoolExecutor`` starts its processes when the first call is made: a
copy of the kernel would then lack its threads, and a new process imports TensorFlow for seconds.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import struct
import threading
import traceback
from collections.abc import Callable

from cxr_helpers.system import accelerators

WANTED = "CXR_BACKGROUND"  # set by the runner in the kernels that are to have a second process
LENGTH = struct.Struct("<Q")  # of the bytes of a call


class Background:
    """The second process of a kernel.

    Parameters
    ----------
    calls, ends : binary files
        Pipes to and from it; the second one unbuffered.
    """

    def __init__(self, calls: io.BufferedWriter, ends: io.FileIO) -> None:
        self._calls, self._ends = calls, ends
        self._begun = self._ended = 0

    def begin(self, function: Callable, *args: object) -> Callable[[], None] | None:
        """Begin a call; return a function that waits for its end.

        Parameters
        ----------
        function : callable
            A function of a module, or a method of an object that can be pickled.
        *args
            Can be pickled; Keras models are rebuilt from their configuration.

        Returns
        -------
        callable or None
            None where the call cannot be sent. That it has ended does not mean that it succeeded.
        """
        call = io.BytesIO()
        try:
            _Pickler(call).dump((function, args))
        except (pickle.PicklingError, AttributeError, TypeError):
            return None
        try:
            self._calls.write(LENGTH.pack(call.tell()))
            self._calls.write(call.getbuffer())
            self._calls.flush()
        except OSError:  # it has ended
            return None
        self._begun += 1
        number = self._begun

        def wait() -> None:
            while self._ended < number and self._ends.read(1):
                self._ended += 1

        return wait


process: Background | None = None  # of this kernel


def prepare() -> None:
    """Give this process a second one where the runner wants it; before any thread is started."""
    global process
    if WANTED not in os.environ:
        return
    (theirs, calls), (ends, done) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(calls)
        os.close(ends)
        try:
            _serve(open(theirs, "rb"), open(done, "wb", buffering=0))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(theirs)
    os.close(done)
    process = Background(open(calls, "wb"), open(ends, "rb", buffering=0))


def _serve(calls: io.BufferedReader, done: io.FileIO) -> None:
    """Carry out calls until the kernel ends; what they print goes to its standard error."""
    os.dup2(2, 1)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(calls, received.put), daemon=True).start()
    while True:
        function, args = pickle.loads(received.get())
        accelerators.prepare()  # now that TensorFlow has been imported
        function(*args)
        done.write(b".")


def _receive(calls: io.BufferedReader, put: Callable[[bytes], None]) -> None:
    """Receive calls as they come, so that the notebook need not wait to send one; end with them."""
    while len(length := calls.read(LENGTH.size)) == LENGTH.size:
        put(calls.read(*LENGTH.unpack(length)))
    os._exit(0)


class _Pickler(pickle.Pickler):
    """Sends a network as its configuration and its weights.

    Keras itself would save and load it.
    """

    def reducer_override(self, value: object) -> object:
        kind = type(value)
        if kind is type or not (hasattr(kind, "layers") and hasattr(kind, "from_config")):
            return NotImplemented
        layers = {type(layer).__name__: type(layer) for layer in value.layers}
        return _rebuilt, (kind, value.get_config(), layers, value.get_weights())


def _rebuilt(kind: type, config: dict, layers: dict[str, type], weights: list) -> object:
    import keras

    # a sequential network calls its layers several times there: their outputs are not its tensors
    network = keras.models.clone_model(kind.from_config(config, custom_objects=layers))
    network.set_weights(weights)
    return network

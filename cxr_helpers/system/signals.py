"""Ctrl-C, SIGTERM and SIGHUP, on Windows Ctrl-Break, end a run alike: it cleans up, then it exits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # no system has them all
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


_waiting: list[int] = []  # signals that have arrived within ``delayed``
_blocks = 0  # of ``delayed`` that have begun and not ended


class Stopped(KeyboardInterrupt):
    """A signal ends the program; ``code`` is the shell's exit code for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number

    def __reduce__(self) -> tuple:  # else copies and pickles would call it with the name
        return type(self), (self.code - 128,)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise ``Stopped`` in the running code when one of the signals arrives.

    A second signal, during the clean-up, ends the program at once. A signal that was ignored before
    stays ignored: SIGHUP under ``nohup``, SIGINT in a shell's background job.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for other in SIGNALS:
            if signal.getsignal(other) is stop:
                signal.signal(other, lambda again, _: os._exit(128 + again))
        if _blocks:
            _waiting.append(number)
        else:
            raise Stopped(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def delayed() -> Iterator[None]:
    """Let ``Stopped`` wait for the end of a short block, of the main thread, that takes locks.

    Locks written in Python, such as those of a future, are not released if it is raised while they
    are being acquired: a thread that needs one would then never end.
    """
    global _blocks
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        if _waiting and not _blocks:
            raise Stopped(_waiting.pop())

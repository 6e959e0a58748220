"""Stages that run side by side, each in a thread of the runner."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    Future,
    ThreadPoolExecutor,
    wait,
)

from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.system.errors import Refused
from cxr_helpers.system.signals import delayed

Say = Callable[[str, str], None]  # called with a stage, or "", and a line about it
POLL = 0.2  # seconds of a wait for stages


class Running:
    """The stages that run: a context that awaits them at its end, or ends them.

    A single one runs in this thread, several in threads of their own. Where one stage fails, the
    others go on to their end, and their results are kept. Where the command is stopped, their
    kernels are killed.

    Parameters
    ----------
    at_once : int
        How many may run at once.
    fork_server : ForkServer or None
    say : callable
        Receives a line where a stage fails while others run.
    """

    def __init__(self, at_once: int, *, fork_server: ForkServer | None, say: Say) -> None:
        self._at_once, self._fork_server, self._say = at_once, fork_server, say
        self._group = None
        self._threads = ThreadPoolExecutor(at_once)
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, Future[float]] = {}

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        stopped = error is not None and not isinstance(error, Exception)
        try:
            if not stopped:
                with delayed():
                    left = [stage for stage, future in self._seconds.items() if not future.done()]
                if left:
                    self._say("", f"failed: {error}")
                    self._say("", f"{', '.join(left)}: still running; the results will be kept")
                _await(self._seconds.values(), all_of_them=True)
        except BaseException:
            stopped = True
            raise
        finally:
            if stopped:
                self._end()
            self._threads.shutdown()
        if stopped:  # what the end of their kernels made of the others is no cause
            return
        for stage, future in self._seconds.items():
            if other := future.exception():
                self._say(stage, f"also failed: {other}")
                if not isinstance(other, Refused):
                    self._say(stage, "".join(traceback.format_exception(other)).rstrip())

    def _end(self) -> None:
        """Kill the kernels until no stage runs: one may be about to start."""
        ended = False
        while not ended:
            if self._fork_server:
                self._fork_server.end()
            if self._group:
                self._group.end()
            ended = not wait(self._seconds.values(), timeout=POLL).not_done

    @property
    def is_full(self) -> bool:
        """Whether no further stage may begin."""
        return len(self._seconds) >= self._at_once

    def since(self) -> dict[str, float]:
        """Return the seconds since each stage began that has not ended."""
        now = time.monotonic()
        return {stage: now - self._begun[stage] for stage in self._seconds}

    def start(self, stage: str, execute: Callable[..., float]) -> None:
        """Begin a stage; ``execute`` takes the group of its kernel and returns its seconds."""
        from cxr_helpers.pipeline.kernels import Group  # importing jupyter_client takes a while

        self._group = self._group or Group()
        self._begun[stage] = time.monotonic()
        if self._at_once > 1:
            with delayed():
                self._seconds[stage] = self._threads.submit(execute, group=self._group)
        else:
            seconds: Future[float] = Future()
            seconds.set_result(execute(group=self._group))
            self._seconds[stage] = seconds

    def next(self) -> tuple[str, float]:
        """Return a stage that has ended, and its seconds; wait for one where none has.

        Raises
        ------
        Refused
            If it failed.
        """
        done = _await(self._seconds.values())
        stage = next(stage for stage, future in self._seconds.items() if future in done)
        return stage, self._seconds.pop(stage).result()


def _await(futures: Collection[Future], *, all_of_them: bool = False) -> set[Future]:
    """Wait for one of several futures, or all; return those that are done.

    A signal is handled between two waits: within one, a future's lock could remain locked.
    """
    when, done = ALL_COMPLETED if all_of_them else FIRST_COMPLETED, set()
    while len(done) < (len(futures) if all_of_them else 1):
        with delayed():
            done = wait(futures, timeout=POLL, return_when=when).done
    return done

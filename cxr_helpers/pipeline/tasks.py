"""A task: one run, or one run with another seed, in a process of its own.

The process reads the task from its standard input, writes messages and, last, its outcome to its
standard output, one line of JSON each. When its standard input ends, so does the task: whoever
started it has ended or needs it no more. Its threads are limited by the variables that it is
started with (``environment.thread_limits``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cxr_helpers.pipeline import runner
from cxr_helpers.pipeline.forecast import Forecast
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import accelerators, digests, environment, errors, processes
from cxr_helpers.system.errors import MACHINE, Refused
from cxr_helpers.system.signals import Stopped, stoppable

FAILED = 4  # exit code
NOT_RUN = -1  # code of a task whose run failed before


@dataclass(frozen=True)
class Task:
    """What a process needs to know; plain data, so that it can be sent to another machine.

    Attributes
    ----------
    name : str
        Of the run, and of the seed if it is one, such as ``"phantom-demo, seed 3"``.
    folder : str
        Of the run.
    values, chosen, fingerprint, store
        As ``runner.update`` takes them.
    force, only, timeout
        Its options.
    seconds : mapping of stage to float
        Expected, for the time left.
    seed : int, optional
        Trains again with this seed, after the run itself; None for the run.
    after : str, optional
        Name of the task that must have succeeded before.
    threads : int
        Number of threads.
    deterministic : bool
        Whether TensorFlow's operations are to give the same bits in every run.
    versions : mapping of library to version
        Of the process that made the task; those where it runs must be equal.
    """

    name: str
    folder: str
    values: Mapping[str, Mapping[str, object]]
    chosen: list[str]
    fingerprint: str
    store: str
    force: bool = False
    only: list[str] | None = None
    timeout: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    after: str | None = None
    threads: int = 1
    deterministic: bool = field(default_factory=accelerators.is_deterministic)
    versions: Mapping[str, str] = field(default_factory=environment.versions)


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes
    ----------
    code : int
        Exit code, 0 if it succeeded.
    message : str
        Why it did not.
    log, stale
        As ``runner.update`` returns them.
    trace : str
        Traceback of an error that is not a refusal.
    """

    code: int = 0
    message: str = ""
    log: list = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    trace: str = ""


def perform(task: Task, *, say: runner.Say) -> Outcome:
    """Run the stages of a task that are stale.

    Raises
    ------
    Refused
        As ``runner.update``; with exit code 6 where other versions are installed than those of the
        process that made the task.
    """
    own = environment.versions(name for name in task.versions if name != "python")
    if different := [name for name, version in task.versions.items() if own[name] != version]:
        name = different[0]
        raise Refused(
            MACHINE,
            f"{processes.host()} has {name} {own[name]}, but the command was started with {name} "
            f"{task.versions[name]}: install the same versions on all machines",
        )
    run = Run(Path(task.folder))
    options = argparse.Namespace(
        dry_run=False, force=task.force, only=task.only, timeout=task.timeout, jobs=1
    )
    with ForkServer() as fork_server:
        update = partial(
            runner.update,
            options=options,
            fingerprint=task.fingerprint,
            store=Path(task.store),
            forecast=Forecast(task.seconds),
            fork_server=fork_server,
        )
        if task.seed is None:
            log, stale = update(run, values=task.values, chosen=task.chosen, say=say)
            return Outcome(log=log, stale=stale)
        log = runner.retrain(run, task.seed, values=task.values, update=update, say=say)
        return Outcome(log=log)


def main() -> int:
    """Perform the task on standard input; return its exit code."""
    environment.skip_unused_grammar()
    with _channel() as send:
        task = Task(**json.loads(sys.stdin.readline()))
        done = threading.Event()
        threading.Thread(target=_end_with_parent, args=(done,), daemon=True).start()
        outcome = _outcome(task, say=lambda stage, line: send({"stage": stage, "line": line}))
        done.set()
        send({"outcome": dataclasses.asdict(outcome)})
    return outcome.code


def _outcome(task: Task, *, say: runner.Say) -> Outcome:
    """Perform a task; errors become part of its outcome."""
    try:
        determinism = accelerators.determinism(task.deterministic)
        with stoppable(), determinism, digests.cached(Path(task.store).parent):
            return perform(task, say=say)
    except Refused as error:
        return Outcome(error.code, str(error))
    except Stopped as stop:
        return Outcome(stop.code, f"stopped by {stop}")
    except Exception as error:
        fault = errors.classify(error)
        return Outcome(fault.code, fault.message, trace=traceback.format_exc())


@contextmanager
def _channel() -> Iterator:
    """Keep standard output for messages; what else would be written to it goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        yield lambda message: print(json.dumps(message), file=stream, flush=True)


def _end_with_parent(done: threading.Event) -> None:
    """Wait for the end of standard input, then end the task as SIGTERM does, unless it is done."""
    sys.stdin.read()
    if done.is_set():
        return
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)
    else:  # where that would end the process without clean-up
        import _thread

        _thread.interrupt_main(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())

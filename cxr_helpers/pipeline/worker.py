"""What a worker of Dask does with a task: it starts a process for it, and ends that in time."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_helpers.pipeline.tasks import FAILED, NOT_RUN, Outcome
from cxr_helpers.system import environment, processes
from cxr_helpers.system.errors import MACHINE

if TYPE_CHECKING:
    import distributed

ENDING = 30.0  # seconds that a task has for its clean-up
STOPPED = 128  # exit codes from here on are of signals
ENDS = ("stopping", "stopped", "closing", "closed", "failed")  # states of a worker


def work(task: dict, root: str, topic: str, before: dict | None = None) -> dict:
    """Perform a task in a process of its own; called by a Dask worker.

    Parameters
    ----------
    task : dict
        Fields of a ``Task``.
    root : str
        The project's folder, which is at the same place on all machines.
    topic : str
        Of the messages to whoever gave the task.
    before : dict, optional
        Outcome of the task before.

    Returns
    -------
    dict
        Fields of an ``Outcome``.

    Raises
    ------
    distributed.Reschedule
        If the task was stopped, as when its worker is told to end: another worker continues.
    """
    import distributed

    worker = distributed.get_worker()
    key = worker.get_current_task()

    def tell(**message) -> None:
        worker.log_event(topic, {"news": (task["name"], message)})

    if before is not None and before["code"]:
        return dataclasses.asdict(Outcome(NOT_RUN, f"{task['after']} failed"))
    if not (Path(root) / "cxr_helpers").is_dir():
        return dataclasses.asdict(
            Outcome(
                MACHINE,
                f"{processes.host()} has no {root}: the project's folder must have this path on "
                "every machine",
            )
        )
    tell(place=processes.host())
    outcome = _in_process(task, root, tell=tell, wanted=lambda: _is_wanted(worker, key))
    if outcome["code"] >= STOPPED:
        raise distributed.Reschedule
    return outcome


def _is_wanted(worker: distributed.Worker, key: str) -> bool:
    """Return whether a running task is still to be done: its client and its scheduler are there."""
    task = worker.state.tasks.get(key)
    return worker.status.name not in ENDS and task is not None and task.state != "cancelled"


def _in_process(task: dict, root: str, *, tell: Callable, wanted: Callable[[], bool]) -> dict:
    """Start the process of a task and wait for it; end it when it is not wanted any more."""
    variables = os.environ | environment.thread_limits(task["threads"])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "cxr_helpers.pipeline.tasks"],
        cwd=root,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C in the terminal is the driver's
    )
    outcomes: list[dict] = []
    rest: deque[str] = deque(maxlen=1)  # last line that is no message
    reader = threading.Thread(target=_relay, args=(process.stdout, tell, outcomes, rest))
    reader.start()
    try:
        print(json.dumps(task), file=process.stdin, flush=True)
        while process.poll() is None and wanted():
            time.sleep(0.1)
    finally:
        with suppress(OSError):
            process.stdin.close()  # the task ends
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=ENDING)
        process.kill()
        process.wait()
        reader.join()
    if outcomes:
        return outcomes[0]
    reason = "".join(rest).strip() or f"exit code {process.returncode}"
    return dataclasses.asdict(
        Outcome(FAILED, f"its process on {processes.host()} ended without a result: {reason}")
    )


def _relay(stream, tell: Callable, outcomes: list, rest: deque) -> None:
    """Pass on the messages of a task, and keep its outcome."""
    for line in stream:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        match message:
            case {"outcome": outcome}:
                outcomes.append(outcome)
            case {"stage": stage, "line": text}:
                tell(stage=stage, line=text)
            case _:
                rest.append(line)

"""Tasks on the workers of Dask distributed: processes of this machine, or of many.

Dask carries messages, files carry state: a worker starts a process for each task (see ``tasks``),
which writes to the run's folder as a run without workers does. Where a worker ends, Dask gives its
task to another one, which continues from the files.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import queue
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_helpers.pipeline import addresses, worker
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.tasks import FAILED, Outcome, Task
from cxr_helpers.system import environment, processes
from cxr_helpers.system.errors import MACHINE, Refused

if TYPE_CHECKING:
    import distributed

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "`uv sync --extra cluster`, or `pip install distributed cryptography`"
CONNECT = 20  # seconds within which a scheduler must answer
Show = Callable[..., None]  # called with a task's name and what is new about it


@contextmanager
def connected(
    *, workers: int | None, cluster: str | None, tls: Sequence[str] = (), plain_tcp: bool = False
) -> Iterator[distributed.Client]:
    """Give a connection to Dask workers: to new ones of this machine, or to those of a cluster.

    Parameters
    ----------
    workers : int or None
        Number of processes to start on this machine; they end with the block.
    cluster : str or None
        Otherwise: address of a scheduler, or the file that ``dask scheduler`` wrote it to.
    tls : sequence of str
        Files of certificate authority, certificate and key.
    plain_tcp : bool
        Whether a connection to another machine may do without TLS.

    Raises
    ------
    Refused
        With exit code 6 where Dask is not installed or no scheduler answers; with exit code 2
        where the connection would not be safe.
    """
    try:
        import distributed
    except ImportError as error:
        raise Refused(MACHINE, f"Dask is not installed: {INSTALL}") from error
    with ExitStack() as stack:
        if workers:
            target, security = stack.enter_context(_local(workers)), None
        else:
            target = addresses.find(cluster)
            security = addresses.security(target, tls=tls, plain_tcp=plain_tcp)
        try:
            client = distributed.Client(
                target, security=security, timeout=CONNECT, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise Refused(
                MACHINE, f"no scheduler answers at {target}: start `dask scheduler`, then workers"
            ) from error
        if workers:
            _ignore_interrupts(client)
        try:
            yield client
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.close()


@contextmanager
def _local(workers: int) -> Iterator[distributed.LocalCluster]:
    """Give a scheduler in this process and workers in processes of their own.

    Its port is open to other users of this machine; with ``cryptography``, to this process only.
    """
    import logging

    import distributed

    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        security=importlib.util.find_spec("cryptography") is not None or None,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        memory_limit=0,  # the tasks' processes are not counted anyway
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


def _ignore_interrupts(client: distributed.Client) -> None:
    """Let workers, also those that are started later, ignore Ctrl-C: the driver ends them."""
    import distributed

    class IgnoreInterrupts(distributed.WorkerPlugin):
        def setup(self, worker: distributed.Worker) -> None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    client.register_plugin(IgnoreInterrupts())


def dashboard(client: distributed.Client) -> str | None:
    """Return the address of the scheduler's dashboard, or None where it has none."""
    return client.dashboard_link if client.run_on_scheduler(_has_dashboard) else None


def _has_dashboard() -> bool:
    """Return whether this process, a scheduler, has the library of the dashboard."""
    return importlib.util.find_spec("bokeh") is not None


def share_of_threads(client: distributed.Client) -> int:
    """Return how many threads each task may use, so that the tasks of a machine share its cores.

    Where machines differ, it is the smallest share: a task that moves to another machine goes on
    with as many threads, and gives the same bits. Waits for the first worker.
    """
    client.wait_for_workers(1)
    places, slots = client.run(_place), client.nthreads()
    busy: Counter = Counter()
    for address, place in places.items():
        busy[tuple(place)] += slots.get(address, 1)
    return max(1, min(cores // busy[host, cores, own] for host, cores, own in busy))


def _place() -> tuple[str, int, str]:
    """Return machine and cores of a worker; workers with the same answer share these cores."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return processes.host(), environment.cores(), str(own)


def run(client: distributed.Client, tasks: Iterable[Task], *, show: Show) -> dict[str, Outcome]:
    """Run tasks on workers, each after the one that it names.

    However this function is left, no task runs afterwards where that can be seen from here.

    Parameters
    ----------
    client : distributed.Client
    tasks : iterable of Task
        A task comes after the one that it names.
    show : callable
        Called with the name of a task and, by keyword: ``place`` when it begins, ``stage`` and
        ``line`` of its progress, ``outcome`` at its end; and once in a while without arguments.

    Returns
    -------
    dict of str to Outcome
        By name of the task, in their order. A failed task is not repeated; those after it have
        the code ``tasks.NOT_RUN``.

    Raises
    ------
    Refused
        With exit code 6 where the scheduler is gone.
    """
    tasks, topic = list(tasks), f"cxr-{uuid.uuid4().hex}"
    news: queue.SimpleQueue = queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: news.put(event[1]["news"]))
    futures: dict[str, distributed.Future] = {}
    try:
        for position, task in enumerate(tasks):
            futures[task.name] = client.submit(
                worker.work,
                dataclasses.asdict(task),
                str(ROOT),
                topic,
                futures.get(task.after),
                key=f"{task.name}-{topic}",
                pure=False,
                priority=-position,
            )
        outcomes = _awaited(client, futures, news, show)
        return {task.name: outcomes[task.name] for task in tasks}
    finally:
        _end(client, futures, tasks, topic)


def _awaited(
    client: distributed.Client, futures: Mapping, news: queue.SimpleQueue, show: Show
) -> dict[str, Outcome]:
    """Pass on what the tasks tell until all have ended; return their outcomes."""
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < len(futures):
        with suppress(queue.Empty):
            task, message = news.get(timeout=0.2)
            show(task, **message)
            continue  # what a task tells comes before its end
        if client.status not in ("running", "newly-created"):
            raise Refused(
                MACHINE, "the scheduler is gone: start it again, then repeat the same command"
            )
        for name, future in futures.items():
            if name not in outcomes and future.done():
                outcomes[name] = _outcome(future)
                show(name, outcome=outcomes[name])
        show()
    return outcomes


def _outcome(future: distributed.Future) -> Outcome:
    if future.status == "finished":
        return Outcome(**future.result())
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":  # several workers, by Dask's configuration
            return Outcome(FAILED, "each of its workers was killed, probably for lack of memory")
        reason = str(error).strip().split("\n")[0]
        return Outcome(
            FAILED, f"a worker could not begin the task: {type(error).__name__}: {reason}"
        )
    raise Refused(
        MACHINE, "the scheduler has lost the tasks: start it again, then repeat the same command"
    )


def _end(client: distributed.Client, futures: Mapping, tasks: Sequence[Task], topic: str) -> None:
    """End the tasks that still run, and wait until they write no more."""
    with suppress(Exception):  # the scheduler may be gone; then its workers end the tasks
        client.unsubscribe_topic(topic)
        client.cancel(list(futures.values()))
    until = time.monotonic() + worker.ENDING
    for task in tasks:
        run = Run(Path(task.folder))
        run = run if task.seed is None else run.seed(task.seed)
        run.await_writer(wait=max(0.0, until - time.monotonic()))

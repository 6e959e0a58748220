"""Carry out the runs of a command: one after another in this process, or at once on workers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cxr_helpers.pipeline import cluster, runner
from cxr_helpers.pipeline.forecast import Forecast
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.grid import Variant
from cxr_helpers.pipeline.plans import Plan
from cxr_helpers.pipeline.runner import Log
from cxr_helpers.pipeline.task_table import TaskTable
from cxr_helpers.system import environment, terminal
from cxr_helpers.system.errors import DATA, DataError, Refused

Done = tuple[list[Plan], list[Refused]]  # the complete runs, and why others are not


@dataclass(frozen=True)
class Command:
    """What a command is to do.

    Attributes
    ----------
    options : argparse.Namespace
    variants : sequence of Variant
        Its runs.
    prepare : callable
        Takes a run, checks it and holds the lock of its folder.
    finish : callable
        Takes its plan, what was done, and the stages that are still stale; returns whether the run
        is complete.
    store : Path
        Folder of the cached results.
    """

    options: argparse.Namespace
    variants: Sequence[Variant]
    prepare: Callable[[Variant], AbstractContextManager[Plan]]
    finish: Callable[[Plan, Log, list[str]], bool]
    store: Path


def here(command: Command) -> Done:
    """Run one after another in this process.

    Raises
    ------
    Refused, DataError
        Where the only run fails; where there are several, the others go on.
    """
    options = command.options
    complete, failures = [], []
    for variant in command.variants:
        try:
            with (
                command.prepare(variant) as plan,
                environment.limited_to(plan.options.threads),
                ForkServer() as fork_server,
            ):
                update = partial(
                    runner.update,
                    options=plan.options,
                    fingerprint=plan.fingerprint,
                    store=command.store,
                    forecast=Forecast(plan.seconds),
                    fork_server=fork_server,
                )
                log, stale = update(plan.run, values=plan.values, chosen=plan.chosen)
                for seed in [] if options.dry_run or stale else plan.other_seeds:
                    log += runner.retrain(plan.run, seed, values=plan.values, update=update)
                if command.finish(plan, log, stale):
                    complete.append(plan)
        except (Refused, DataError) as error:
            failures.append(_failure(command, variant, error))
    return complete, failures


def on_workers(command: Command) -> Done:
    """Run all at once on workers, see ``cluster``.

    Every run is prepared before the first begins. If one cannot be prepared or a task fails, the
    others go on.

    Raises
    ------
    Refused, DataError
        Where the only run cannot be prepared, or the workers cannot be reached.
    """
    options = command.options
    complete, failures = [], []
    connection = cluster.connected(
        workers=options.workers,
        cluster=options.cluster,
        tls=options.tls,
        plain_tcp=options.plain_tcp,
    )
    with connection as client, ExitStack() as locks:
        every = []
        for variant in command.variants:
            try:
                every.append(locks.enter_context(command.prepare(variant)))
            except (Refused, DataError) as error:
                failures.append(_failure(command, variant, error))
        if not every:
            return complete, failures
        if address := cluster.dashboard(client):
            terminal.write_line(f"dashboard: {address}")
        if not client.nthreads():
            terminal.write_line("no worker yet: waiting for the first")
        share = cluster.share_of_threads(client)
        tasks = [
            task
            for plan in every
            for task in plan.tasks(store=str(command.store), threads=plan.options.threads or share)
        ]
        threads = " or ".join(sorted({str(task.threads) for task in tasks}))
        terminal.write_line(f"tasks: {len(tasks)}, threads of each: {threads}")
        with TaskTable(task.name for task in tasks) as show:
            outcomes = cluster.run(client, tasks, show=show)
        for outcome in outcomes.values():
            if outcome.trace:
                terminal.write_line(outcome.trace)
        for plan in every:
            if failure := plan.failure(outcomes):
                failures.append(failure)
                continue
            try:
                with environment.limited_to(plan.options.threads or share):
                    if command.finish(plan, *plan.log(outcomes)):
                        complete.append(plan)
            except (Refused, DataError) as error:
                failures.append(_failure(command, plan.variant, error))
    return complete, failures


def _failure(command: Command, variant: Variant, error: Refused | DataError) -> Refused:
    """Return why a run failed, after writing it; the error of the only run is raised."""
    if len(command.variants) == 1:
        raise error
    code = error.code if isinstance(error, Refused) else DATA
    of = " ".join([variant.options.data, *map("=".join, variant.chosen.items())])
    failure = Refused(code, f"{of}: {error}")
    terminal.write_line(f"failed: {failure}")
    return failure

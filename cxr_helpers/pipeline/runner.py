"""Run the stages that are not up to date, each after those that it reads."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from enum import Enum, auto
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

from cxr_helpers.pipeline import background, currency
from cxr_helpers.pipeline.forecast import Forecast, as_text
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.running import Running, Say
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import terminal
from cxr_helpers.system.errors import Refused

Log = list[tuple[str, str, float]]  # stage, status, seconds
# What is logged of a stage whose code, parameters and inputs are as before.
UP_TO_DATE, TEXT, TEXT_SKIPPED = UNCHANGED = "up to date", "text changed", "skipped: text changed"


def write_line(_: str, line: str) -> None:
    """Write a line about a stage to the terminal."""
    terminal.write_line(line)


def update(
    run: Run,
    *,
    options: argparse.Namespace,
    values: Mapping[str, Mapping[str, object]],
    chosen: Sequence[str],
    fingerprint: str,
    store: Path,
    forecast: Forecast | None = None,
    fork_server: ForkServer | None = None,
    say: Say = write_line,
) -> tuple[Log, list[str]]:
    """Run the chosen stages that are stale; where only Markdown has changed, copy it.

    Unless nothing is to be run, the run's folder is locked for writing, see ``Run.writing``.

    Parameters
    ----------
    run : Run
    options : argparse.Namespace
        ``dry_run``, ``force``, ``only``, ``timeout`` and ``jobs``, the number of stages that may run
        at once, are used.
    values : mapping of stage to parameters
        As they are injected into the notebooks.
    chosen : sequence of str
        The stages that may run.
    fingerprint : str
        Of the images.
    store : Path
        Folder of the cached results; with ``force`` they are computed again.
    forecast : Forecast, optional
        Of the time that the stages take, for the terminal.
    fork_server : ForkServer, optional
        From which the kernels are forked.
    say : callable
        Receives each stage that begins and its progress.

    Returns
    -------
    log : list of (stage, status, seconds)
    stale : list of str
        Stages that are not up to date and were not chosen.

    Raises
    ------
    Refused
        If a chosen stage reads one that is neither up to date nor chosen, or a notebook failed.
    """
    at_once = 1 if options.dry_run else options.jobs
    needed, forecast = run.graph.upstream(chosen), forecast or Forecast({})
    done: dict[str, tuple[str, float]] = {}
    stale: list[str] = []
    order = TopologicalSorter({stage: spec.reads for stage, spec in run.graph.items()})
    order.prepare()
    ready: list[str] = []
    running = Running(at_once, fork_server=fork_server, say=say)
    with nullcontext() if options.dry_run else run.writing(), running:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()])
            if not ready or running.is_full:
                stage, seconds = running.next()
                done[stage] = ("ran", seconds)
                forecast.ended(stage, seconds)
                order.done(stage)
                continue
            stage = ready.pop(0)
            recipe = currency.recipe(
                run, stage, parameters=values[stage], data_fingerprint=fingerprint
            )
            changed = {name for name, (what, _) in done.items() if what not in UNCHANGED}
            plan, status = _plan(
                run, stage, recipe, options=options, chosen=chosen, needed=needed, changed=changed
            )
            if plan is Plan.RUN and not options.dry_run:
                begun = running.since()
                expected = _expected(run, stage, chosen, done=done, begun=begun)
                reads = {name: run.graph[name].reads for name in expected}
                left = forecast.left(expected, reads=reads, running=begun, at_once=at_once)
                say(stage, f"{stage}: {status} · {_progress(run, stage, left)}")
                run.retire_report()
                execute = partial(
                    *(_execute, run, stage, values[stage], recipe),
                    store=store,
                    recompute=options.force,
                    in_background=background.is_wanted(jobs=at_once),
                    timeout=options.timeout,
                    fork_server=fork_server,
                    say=say,
                )
                running.start(stage, execute)
                continue
            if plan is Plan.COPY_TEXT and not options.dry_run:
                _update_markdown(run, stage, recipe)
            if plan is Plan.SKIP:
                stale.append(stage)
            done[stage] = (status, 0.0)
            order.done(stage)
    return [(stage, *done[stage]) for stage in run.graph], sorted(stale)


class Plan(Enum):
    """What is done with a stage."""

    KEEP = auto()
    COPY_TEXT = auto()
    RUN = auto()
    SKIP = auto()  # although it is not up to date


def _plan(
    run: Run,
    stage: str,
    recipe: Mapping,
    *,
    options: argparse.Namespace,
    chosen: Sequence[str],
    needed: set[str],
    changed: set[str],
) -> tuple[Plan, str]:
    """Return what is done with a stage, and its status or why it runs.

    Parameters
    ----------
    run, stage, recipe, options, chosen
        As in ``update``.
    needed : set of str
        What the chosen stages read, in any number of steps.
    changed : set of str
        Earlier stages that have run or, with ``dry_run``, would run.

    Raises
    ------
    Refused
        If the stage is needed and not up to date, and may not run.
    """
    reason = currency.why_stale(run, stage, recipe)
    if reason is None and options.dry_run and stage in chosen:
        waiting = [name for name in run.graph[stage].reads if name in changed]
        reason = f"only if {' or '.join(waiting)} changes" if waiting else None
    if reason is None and stage in chosen and (options.force or options.only):
        reason = "requested"
    if reason is None and currency.markdown_changed(run, stage, recipe):
        return (Plan.COPY_TEXT, TEXT) if stage in chosen else (Plan.SKIP, TEXT_SKIPPED)
    if reason is None:
        return Plan.KEEP, UP_TO_DATE
    if stage in chosen:
        return Plan.RUN, reason
    if stage in needed:
        raise Refused(2, f"{stage} is not up to date ({reason}): include it in the run")
    return Plan.SKIP, f"skipped: {reason}"


def _expected(
    run: Run, stage: str, chosen: Sequence[str], *, done: Mapping, begun: Mapping[str, float]
) -> list[str]:
    """Return the stages that will begin from now on, this one first, as far as is known."""
    new = {*begun, *(s for s, (status, _) in done.items() if status == "ran")}
    expected = [stage]
    for name in run.graph:
        reads_new = run.graph.upstream([name]) & {*expected, *new}
        waits = name != stage and name not in done and name not in begun
        if waits and name in chosen and (reads_new or not run.is_complete(name)):
            expected.append(name)
    return expected


def _progress(run: Run, stage: str, left: float | None) -> str:
    """Return which stage of how many this is and, if known, how long the run will still take."""
    names = list(run.graph)
    place, text = f"stage {names.index(stage) + 1} of {len(names)}", as_text(left)
    return f"{place} · {text}" if text else place


def retrain(
    run: Run,
    seed: int,
    *,
    values: Mapping[str, Mapping[str, object]],
    update: Callable[..., tuple[Log, list[str]]],
    say: Say = write_line,
) -> Log:
    """Run the stages that train again with another seed, on the same splits of the same data.

    Parameters
    ----------
    run : Run
        Its first stage is shared; the others are written to ``run.seed(seed)``.
    seed : int
    values : mapping of stage to parameters
        Of ``run``.
    update : callable
        ``update`` of this module with all options but ``values``, ``chosen`` and ``say``.
    say : callable
        As in ``update``.

    Returns
    -------
    list of (stage, status, seconds)
        The stages that ran.
    """
    again, first = run.seed(seed), next(iter(run.graph))
    run.share(first, again)
    changed = {
        stage: {
            **own,
            "run_dir": str(again.folder),
            **({"seed": seed} if stage != first and "seed" in own else {}),
        }
        for stage, own in values.items()
    }
    say("", f"seed {seed}")
    log, _ = update(again, values=changed, chosen=run.graph.retrained, say=say)
    return [(f"{stage}, seed {seed}", status, seconds) for stage, status, seconds in log if seconds]


def _update_markdown(run: Run, stage: str, recipe: Mapping) -> None:
    """Copy the Markdown of a notebook into its executed copy, without a kernel."""
    from cxr_helpers.pipeline import notebooks  # importing papermill takes a second

    seconds = run.manifest(stage)["seconds"]
    notebooks.update_markdown(run.graph[stage].notebook, run.executed(stage))
    run.write_manifest(stage, recipe, seconds=seconds)


def _execute(
    run: Run, stage: str, values: Mapping, recipe: Mapping, *, say: Say, **options
) -> float:
    """Run the notebook of one stage; return the seconds it took."""
    from cxr_helpers.pipeline import notebooks  # importing papermill takes a second

    run.forget(stage)
    start = time.monotonic()
    notebooks.execute(
        run,
        stage,
        parameters=values,
        log=lambda line: say(stage, f"{stage} · {line}"),
        **options,
    )
    seconds = time.monotonic() - start
    if changed := currency.changed_input(run, stage, recipe):
        raise Refused(4, f"{stage}: its input {changed} changed while it ran: run it again")
    run.write_manifest(stage, recipe, seconds=seconds)
    return seconds

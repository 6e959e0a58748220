"""Run the stages that are not up to date, in their order."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from cxr_helpers.pipeline import currency
from cxr_helpers.pipeline.forecast import Forecast, as_text
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import terminal
from cxr_helpers.system.errors import Refused

Log = list[tuple[str, str, float]]  # stage, status, seconds
Say = Callable[[str, str], None]  # called with a stage, or "", and a line about it
# What is logged of a stage that does not run.
UP_TO_DATE, TEXT, TEXT_SKIPPED = "up to date", "text changed", "skipped: text changed"


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
        ``dry_run``, ``force``, ``only`` and ``timeout`` are used.
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
    needed = run.graph.upstream(chosen)
    log: Log = []
    stale: list[str] = []
    with nullcontext() if options.dry_run else run.writing():
        for stage, spec in run.graph.items():
            recipe = currency.recipe(
                run, stage, parameters=values[stage], data_fingerprint=fingerprint
            )
            reason = currency.why_stale(run, stage, recipe)
            if options.dry_run and reason is None:
                runs = {s for s, status, _ in log if status not in (UP_TO_DATE, TEXT, TEXT_SKIPPED)}
                waiting = [s for s in spec.reads if s in runs]
                reason = f"only if {' or '.join(waiting)} changes" if waiting else None
            if reason is None and stage in chosen and (options.force or options.only):
                reason = "requested"
            text_only = reason is None and currency.markdown_changed(run, stage, recipe)
            if text_only and stage not in chosen:
                stale.append(stage)
                log.append((stage, TEXT_SKIPPED, 0.0))
            elif text_only:
                log.append((stage, TEXT, 0.0))
                if not options.dry_run:
                    _update_markdown(run, stage, recipe)
            elif reason is None:
                log.append((stage, UP_TO_DATE, 0.0))
            elif stage in needed - set(chosen):
                raise Refused(2, f"{stage} is not up to date ({reason}): include it in the run")
            elif stage not in chosen:
                stale.append(stage)
                log.append((stage, f"skipped: {reason}", 0.0))
            elif options.dry_run:
                log.append((stage, reason, 0.0))
            else:
                say(stage, f"{stage}: {reason} · {_progress(run, stage, chosen, forecast)}")
                seconds = _execute(
                    run,
                    stage,
                    values[stage],
                    recipe,
                    store=store,
                    recompute=options.force,
                    timeout=options.timeout,
                    fork_server=fork_server,
                    say=say,
                )
                log.append((stage, "ran", seconds))
                if forecast:
                    forecast.ended(stage, seconds)
    return log, stale


def _progress(run: Run, stage: str, chosen: Sequence[str], forecast: Forecast | None) -> str:
    """Return which stage of how many this is and, if known, how long the run will still take."""
    names = list(run.graph)
    number = names.index(stage)
    place = f"stage {number + 1} of {len(names)}"
    if forecast is None:
        return place
    runs = [stage]
    for name in names[number + 1 :]:
        reads_new = run.graph.upstream([name]) & set(runs)
        if name in chosen and (reads_new or not run.is_complete(name)):
            runs.append(name)
    left = as_text(forecast.left(runs))
    return f"{place} · {left}" if left else place


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

    run.retire_report()
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

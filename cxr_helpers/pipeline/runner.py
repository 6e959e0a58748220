"""Run the stages that are not current, in their order."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cxr_helpers.pipeline import currency
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import terminal
from cxr_helpers.system.errors import Refused

Log = list[tuple[str, str, float]]  # stage, what was done with it, seconds
CURRENT, TEXT, TEXT_LEFT = "current", "text changed", "left: text changed"  # it does not run


def update(
    run: Run,
    *,
    options: argparse.Namespace,
    values: Mapping[str, Mapping[str, object]],
    chosen: Sequence[str],
    fingerprint: str,
    store: Path,
) -> tuple[Log, list[str]]:
    """Run the chosen stages that are not current; where only Markdown has changed, copy it.

    Parameters
    ----------
    run : Run
    options : argparse.Namespace
        ``dry_run``, ``force``, ``only`` and ``timeout`` count.
    values : mapping of stage to parameters
        As they are injected.
    chosen : sequence of str
        The stages that may run.
    fingerprint : str
        Of the images.
    store : Path
        Folder of the results that are computed once; with ``force`` they are computed anew.

    Returns
    -------
    log : list of (stage, what, seconds)
    behind : list of str
        Stages that are not current and were not chosen.

    Raises
    ------
    Refused
        If a chosen stage reads one that is not current and not chosen, or a notebook failed.
    """
    needed = run.graph.upstream(chosen)
    log: Log = []
    behind: list[str] = []
    for stage, spec in run.graph.items():
        recipe = currency.recipe(run, stage, parameters=values[stage], data_fingerprint=fingerprint)
        reason = currency.why_stale(run, stage, recipe)
        if options.dry_run and reason is None:
            runs = {s for s, what, _ in log if what not in (CURRENT, TEXT, TEXT_LEFT)}
            waiting = [s for s in spec.reads if s in runs]
            reason = f"only if {' or '.join(waiting)} changes" if waiting else None
        if reason is None and stage in chosen and (options.force or options.only):
            reason = "asked for"
        only_prose = reason is None and currency.markdown_changed(run, stage, recipe)
        if only_prose and stage not in chosen:
            behind.append(stage)
            log.append((stage, TEXT_LEFT, 0.0))
        elif only_prose:
            log.append((stage, TEXT, 0.0))
            if not options.dry_run:
                _update_markdown(run, stage, recipe)
        elif reason is None:
            log.append((stage, CURRENT, 0.0))
        elif stage in needed - set(chosen):
            raise Refused(2, f"{stage} is not current ({reason}): include it in the run")
        elif stage not in chosen:
            behind.append(stage)
            log.append((stage, f"left: {reason}", 0.0))
        elif options.dry_run:
            log.append((stage, reason, 0.0))
        else:
            terminal.write_line(f"{stage}: {reason}")
            seconds = _execute(
                run,
                stage,
                values[stage],
                recipe,
                store=store,
                anew=options.force,
                timeout=options.timeout,
            )
            log.append((stage, "ran", seconds))
    return log, behind


def retrain(
    run: Run,
    seed: int,
    *,
    values: Mapping[str, Mapping[str, object]],
    update: Callable[..., tuple[Log, list[str]]],
) -> Log:
    """Run the stages that train again with another seed, on the same split of the same data.

    Parameters
    ----------
    run : Run
        Its first stage is shared; the rest goes to ``run.seed(seed)``.
    seed : int
    values : mapping of stage to parameters
        Of ``run``.
    update : callable
        ``update`` of this module with all options but ``values`` and ``chosen``.

    Returns
    -------
    list of (stage, what, seconds)
        The stages that ran.
    """
    again, first = run.seed(seed), next(iter(run.graph))
    run.share(first, again)
    others = {
        stage: {**own, "run_dir": str(again.folder), **({} if stage == first else {"seed": seed})}
        for stage, own in values.items()
    }
    terminal.write_line(f"seed {seed}")
    log, _ = update(again, values=others, chosen=run.graph.retrained)
    return [(f"{stage}, seed {seed}", what, took) for stage, what, took in log if took]


def _update_markdown(run: Run, stage: str, recipe: Mapping) -> None:
    """Bring the Markdown of a stage's executed notebook up to date, without a kernel."""
    from cxr_helpers.pipeline import notebooks  # papermill takes a second to import

    seconds = run.manifest(stage)["seconds"]
    notebooks.update_markdown(run.graph[stage].notebook, run.executed(stage))
    run.write_manifest(stage, recipe, seconds=seconds)


def _execute(run: Run, stage: str, values: Mapping, recipe: Mapping, **options) -> float:
    """Run one stage's notebook; return its seconds."""
    from cxr_helpers.pipeline import notebooks  # papermill takes a second to import

    run.retire_report()
    run.forget(stage)
    start = time.monotonic()
    notebooks.execute(
        run,
        stage,
        parameters=values,
        log=lambda line: terminal.write_line(f"{stage} · {line}"),
        **options,
    )
    seconds = time.monotonic() - start
    if changed := currency.changed_input(run, stage, recipe):
        raise Refused(4, f"{stage}: {changed} changed while it ran: run it again")
    run.write_manifest(stage, recipe, seconds=seconds)
    return seconds

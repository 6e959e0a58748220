"""The chain of stages: run those that are not current, in their order."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cxr_helpers import commands, manifests, results, stages

Log = list[tuple[str, str, float]]  # stage, what was done with it, seconds
CURRENT, TEXT, TEXT_LEFT = "current", "text changed", "left: text changed"  # it does not run


def update(
    notebooks: Mapping[str, Path],
    *,
    options: argparse.Namespace,
    values: Mapping[str, Mapping[str, object]],
    chosen: Sequence[str],
    run_dir: Path,
    fingerprint: str,
    store: Path,
) -> tuple[Log, list[str]]:
    """Run the chosen stages that are not current; where only Markdown has changed, copy it.

    Parameters
    ----------
    notebooks : mapping of stage to Path
        In the order of the chain.
    options : argparse.Namespace
        ``dry_run``, ``force``, ``only`` and ``timeout`` count.
    values : mapping of stage to parameters
        As they are injected.
    chosen : sequence of str
        The stages that may run.
    run_dir : Path
    fingerprint : str
        Of the films.
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
    needed = stages.upstream(chosen)
    log: Log = []
    behind: list[str] = []
    for stage, notebook in notebooks.items():
        recipe = manifests.recipe(
            stage,
            notebook=notebook,
            parameters=values[stage],
            run_dir=run_dir,
            data_fingerprint=fingerprint,
        )
        reason = manifests.why_stale(stage, recipe, run_dir)
        if options.dry_run and reason is None:
            runs = {s for s, what, _ in log if what not in (CURRENT, TEXT, TEXT_LEFT)}
            waiting = [s for s in stages.STAGES[stage] if s in runs]
            reason = f"only if {' or '.join(waiting)} changes" if waiting else None
        if reason is None and stage in chosen and (options.force or options.only):
            reason = "asked for"
        behind_in_prose = reason is None and manifests.prose_is_behind(stage, recipe, run_dir)
        if behind_in_prose and stage not in chosen:
            behind.append(stage)
            log.append((stage, TEXT_LEFT, 0.0))
        elif behind_in_prose:
            log.append((stage, TEXT, 0.0))
            if not options.dry_run:
                _renew_prose(notebook, recipe, run_dir)
        elif reason is None:
            log.append((stage, CURRENT, 0.0))
        elif stage in needed - set(chosen):
            raise commands.Refused(2, f"{stage} is not current ({reason}): include it in the run")
        elif stage not in chosen:
            behind.append(stage)
            log.append((stage, f"left: {reason}", 0.0))
        elif options.dry_run:
            log.append((stage, reason, 0.0))
        else:
            commands.tell(f"{stage}: {reason}")
            seconds = _execute(
                notebook,
                values[stage],
                recipe,
                run_dir,
                store=store,
                anew=options.force,
                timeout=options.timeout,
            )
            log.append((stage, "ran", seconds))
    return log, behind


def retrain(
    bring: Callable[..., tuple[Log, list[str]]],
    seed: int,
    *,
    values: Mapping[str, Mapping[str, object]],
    run_dir: Path,
) -> Log:
    """Run the stages that train again with another seed, on the same split of the same data.

    Parameters
    ----------
    bring : callable
        ``update`` with all but ``values``, ``chosen`` and ``run_dir``.
    seed : int
    values : mapping of stage to parameters
        Of the run in ``run_dir``.
    run_dir : Path
        Its ``01_data`` is shared; the rest goes to ``<run_dir>/seeds/<seed>``.

    Returns
    -------
    list of (stage, what, seconds)
        The stages that ran.
    """
    again = run_dir / results.SEEDS / str(seed)
    stages.share("01_data", run_dir, again)
    others = {
        stage: {**own, "run_dir": str(again), **({} if stage == "01_data" else {"seed": seed})}
        for stage, own in values.items()
    }
    commands.tell(f"seed {seed}")
    log, _ = bring(values=others, chosen=results.ROWS_FROM, run_dir=again)
    return [(f"{stage}, seed {seed}", what, took) for stage, what, took in log if took]


def _renew_prose(notebook: Path, recipe, run_dir: Path) -> None:
    """Bring the Markdown of a stage's executed notebook up to date, without a kernel."""
    from cxr_helpers import execution  # papermill takes a second to import

    stage = notebook.stem
    seconds = manifests.read(stage, run_dir)["seconds"]
    execution.renew_prose(notebook, run_dir / "notebooks" / notebook.name)
    manifests.write(stage, recipe, run_dir, seconds=seconds)


def _execute(notebook: Path, values, recipe, run_dir: Path, **options) -> float:
    """Run one stage's notebook; return its seconds."""
    from cxr_helpers import execution  # papermill takes a second to import

    stage = notebook.stem
    commands.retire_report(run_dir)
    manifests.forget(stage, run_dir)
    start = time.monotonic()
    execution.run(
        notebook,
        run_dir=run_dir,
        parameters=values,
        tell=lambda line: commands.tell(f"{stage} · {line}"),
        **options,
    )
    seconds = time.monotonic() - start
    if changed := manifests.changed_input(stage, recipe, run_dir):
        raise commands.Refused(4, f"{stage}: {changed} changed while it ran: run it again")
    manifests.write(stage, recipe, run_dir, seconds=seconds)
    return seconds

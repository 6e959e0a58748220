"""Run the seven notebooks in order and write the report.

    uv run run_all.py                              # on embedded phantoms
    uv run run_all.py --data path/to/chest_xray    # on real films
    uv run run_all.py --preset quick               # the whole chain in about a minute
    uv run run_all.py --set 02_binary.epochs=3     # one parameter changed
    uv run run_all.py --dry-run                    # what would run, and why

Results go to report/build/<run>/: report.html, report.pdf, results.csv, the executed
notebooks and every stage's artifacts. A stage whose code, parameters, inputs and versions
have not changed is not run again.

Exit codes: 0 done, 2 usage, 3 data, 4 a notebook failed, 6 environment, 130 and 143 stopped.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from cxr_helpers import commands, manifests, parameters, results, sources, stages
from cxr_helpers.folder import DataError

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = {stage: ROOT / "notebooks" / f"{stage}.ipynb" for stage in stages.STAGES}
BUILD = ROOT / "report" / "build"


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    try:
        schema = {stage: parameters.read(path) for stage, path in NOTEBOOKS.items()}
        presets = parameters.presets(ROOT / "notebooks" / "presets.toml")
    except (OSError, ValueError) as error:
        return commands.fail(4, str(error))
    options = commands.parse(arguments, presets=list(presets), summary=__doc__)
    try:
        if options.list:
            commands.show_parameters(schema)
            return 0
        return conduct(options, schema, presets[options.preset])
    except commands.Refused as error:
        return commands.fail(error.code, str(error), debug=options.debug)
    except KeyboardInterrupt:
        return commands.fail(130, "stopped; the same command goes on after the last whole stage")


def conduct(options, schema, preset) -> int:
    """Bring every stage up to date, then typeset the report."""
    try:
        settings = [*options.settings, *([f"seed={options.seed}"] if options.seed else [])]
        values = parameters.resolve(schema, preset=preset, settings=settings)
        chosen = commands.selection(options)
    except ValueError as error:
        raise commands.Refused(2, str(error)) from error
    try:
        data_name, fingerprint = sources.identify(options.data)
    except DataError as error:
        raise commands.Refused(3, str(error)) from error

    run_dir = BUILD / (options.run or commands.run_name(data_name, options.preset))
    where = {"run_dir": str(run_dir), "cache_dir": str(BUILD / ".cache"), "data": options.data}
    if options.data != sources.PHANTOM:
        where["data"] = str(Path(options.data).resolve())
    for stage, own in values.items():
        own.update({name: value for name, value in where.items() if name in schema[stage]})

    commands.tell(f"{data_name}, preset {options.preset} → {commands.short(run_dir)}")
    log: list[tuple[str, str, float]] = []
    for stage, notebook in NOTEBOOKS.items():
        recipe = manifests.recipe(
            stage,
            notebook=notebook,
            parameters=values[stage],
            run_dir=run_dir,
            data_fingerprint=fingerprint,
        )
        reason = manifests.why_stale(stage, recipe, run_dir)
        if options.dry_run and reason is None:
            waiting = [s for s, what, _ in log if what != "current" and s in stages.STAGES[stage]]
            reason = f"only if {' or '.join(waiting)} changes" if waiting else None
        if reason is None and stage in chosen and (options.force or options.only):
            reason = "asked for"
        if reason is None:
            log.append((stage, "current", 0.0))
        elif stage not in chosen:
            raise commands.Refused(2, f"{stage} is not current ({reason}): include it in the run")
        elif options.dry_run:
            log.append((stage, reason, 0.0))
        else:
            commands.tell(f"{stage}: {reason}")
            seconds = execute(stage, notebook, values[stage], recipe, run_dir, options)
            log.append((stage, "ran", seconds))
    if options.dry_run:
        commands.show_log(log, title="would run")
        return 0
    return typeset(options, values, run_dir, log)


def execute(stage, notebook, values, recipe, run_dir, options) -> float:
    """Run one stage's notebook; return its seconds."""
    from cxr_helpers import execution  # papermill takes a second to import

    commands.retire_report(run_dir)
    manifests.forget(stage, run_dir)
    start = time.monotonic()
    try:
        execution.run(
            notebook,
            run_dir=run_dir,
            parameters=values,
            tell=lambda line: commands.tell(f"{stage} · {line}"),
            timeout=options.timeout,
        )
    except execution.NotebookFailed as error:
        code = 3 if error.error == DataError.__name__ else 4
        raise commands.Refused(code, str(error)) from error
    seconds = time.monotonic() - start
    manifests.write(stage, recipe, run_dir, seconds=seconds)
    return seconds


def typeset(options, values, run_dir, log) -> int:
    """Write results and report; show what was done."""
    from report import contents, render

    start = time.monotonic()
    scores, _ = results.write(run_dir)
    pages = contents.compose(run_dir, scores=scores, values=values, options=vars(options))
    executed = [run_dir / "notebooks" / f"{stage}.ipynb" for stage in stages.STAGES]
    made = render(executed, **pages, out=run_dir, pdf=not options.no_pdf)
    log.append(("report", "ran", time.monotonic() - start))
    commands.show_log(log, title="done")
    commands.show_results(results.table_one(scores))
    for warning in made.warnings:
        commands.tell(f"warning: {warning}")
    for path in (made.html, made.pdf):
        if path:
            commands.tell(f"report: {commands.short(path)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

"""Run the seven notebooks in order and write the report.

    uv run run_all.py                              # on embedded phantoms
    uv run run_all.py --data path/to/chest_xray    # on real films, a folder or an archive
    uv run run_all.py --data kaggle                # download them first (or mendeley)
    uv run run_all.py --set 02_binary.epochs=3     # one parameter changed
    uv run run_all.py --dry-run                    # what would run, and why
    uv run run_all.py --weights-from RUN --data OTHER   # score a run's models on other films

Results go to report/build/<run>/. A stage whose code, parameters, inputs and versions have not
changed is not run again; a training that was interrupted goes on after its last whole epoch.

Exit codes: 0 done, 1 a bug (with its traceback), 2 usage, 3 data, 4 a notebook failed, 5 the run's
folder is in use, 6 environment (packages, permissions, disk), 129, 130 and 143 stopped by SIGHUP,
SIGINT, SIGTERM.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from cxr_helpers import (
    atomic,
    chain,
    commands,
    digests,
    faults,
    housekeeping,
    manifests,
    origins,
    parameters,
    preflight,
    results,
    sources,
    stages,
    terminal,
)
from cxr_helpers.interrupts import Stopped, stoppable

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = {stage: ROOT / "notebooks" / f"{stage}.ipynb" for stage in stages.STAGES}
BUILD = ROOT / "report" / "build"


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    terminal.open_closed_streams()
    try:
        schema = {stage: parameters.read(path) for stage, path in NOTEBOOKS.items()}
        presets = parameters.presets(ROOT / "notebooks" / "presets.toml")
    except OSError as error:
        return commands.fail(4, f"{commands.short(Path(error.filename))}: {error.strerror}")
    except ValueError as error:
        return commands.fail(4, str(error))
    options = commands.parse(arguments, presets=list(presets), summary=__doc__)
    try:
        if options.list:
            commands.list_parameters(schema)
            return 0
        with (
            stoppable(),
            digests.remembered(BUILD / ".cache", write=not options.dry_run),
        ):
            if options.clean:
                return clean(options)
            return conduct(options, schema, presets)
    except commands.Refused as error:
        return commands.fail(error.code, str(error), debug=options.debug)
    except Stopped as stop:
        return commands.fail(stop.code, f"stopped by {stop}; the same command goes on from here")
    except Exception as error:
        fault = faults.of(error)
        bug = fault.code == faults.BUG
        return commands.fail(fault.code, fault.message, debug=options.debug or bug)


def conduct(options, schema, presets) -> int:
    """Bring the chosen stages up to date, then typeset the report."""
    commands.title_page(options, ROOT / "report" / "report.toml")
    earlier = commands.earlier_run(options, BUILD)
    preset = manifests.parameters_of(earlier, schema) if earlier else presets[options.preset]
    try:
        settings = [*options.settings, *([f"seed={options.seed}"] if options.seed else [])]
        values = parameters.resolve(
            schema, preset=preset, settings=settings, reserved=manifests.UNTRACKED
        )
        chosen = commands.selection(options)
    except ValueError as error:
        raise commands.Refused(2, str(error)) from error
    origin = origins.find(options.data, cache_dir=BUILD / ".cache")

    kind = f"by-{earlier.name}" if earlier else options.preset
    run_dir = BUILD / (options.run or commands.run_name(origin.name, kind))
    if run_dir == earlier:
        raise commands.Refused(2, f"--run {run_dir.name}: is the run that --weights-from names")
    by = f"models of {earlier.name}" if earlier else f"preset {options.preset}"
    commands.tell(f"{origin.name}, {by} → {commands.short(run_dir)}")
    fingerprint = None
    if origin.located:
        fingerprint = examine(origin, options, values["01_data"], run_dir)
    elif not options.dry_run:
        if origin.room:
            preflight.check_room(*origin.room, advice=f"free some to {origin.todo}")
        prepare(options, values["01_data"], run_dir, films=0)
    with nullcontext() if options.dry_run else preflight.sole_use(run_dir):
        if fingerprint is None and options.dry_run:
            commands.tell(f"would {origin.todo} first; what follows may depend on it")
            fingerprint = (origins.recorded(run_dir) or ("", ""))[1]
        elif fingerprint is None:
            commands.tell(f"first: {origin.todo}")
            origin = origins.fetch(options.data, cache_dir=BUILD / ".cache")
            fingerprint = examine(origin, options, values["01_data"], run_dir)
        if not options.dry_run:
            origins.record(run_dir, origin, fingerprint)
        where = {"run_dir": str(run_dir), "cache_dir": str(BUILD / ".cache")}
        where |= {"data": str(origin.located), "weights_from": str(earlier or "")}
        for stage, own in values.items():
            own.update({name: value for name, value in where.items() if name in schema[stage]})
        bring = partial(
            chain.update,
            NOTEBOOKS,
            options=options,
            fingerprint=fingerprint,
            store=BUILD / stages.STORE,
        )
        log, behind = bring(values=values, chosen=chosen, run_dir=run_dir)
        if options.dry_run or behind:
            commands.show_log(log, title="would run" if options.dry_run else "done")
            if behind:
                commands.tell(f"no report: {', '.join(behind)} not current")
            if options.seeds:
                commands.tell(f"then again, where not current, seeds {options.seeds[1:]}")
            return 0
        for seed in (options.seeds or [])[1:]:
            log += chain.retrain(bring, seed, values=values, run_dir=run_dir)
        return typeset(options, values, run_dir, log)


def examine(origin, options, first, run_dir) -> str:
    """Return the fingerprint of films; refuse those, and a machine, that could not end well."""
    fingerprint, films = sources.identify(origin)
    if films:
        commands.tell(f"films: {origin.path}")
    for remark in sources.remarks(origin.located):
        commands.tell(f"note: {remark}")
    if not options.weights_from:
        preflight.check_films(origin.located, first)
    if whence := origins.other(run_dir, origin, fingerprint):
        name = commands.run_name(Path(origin.whence).parent.name, run_dir.name)[:80]
        raise commands.Refused(
            2,
            f"{run_dir.name} is a run of other films ({whence}): give this one a name of its own, "
            f"such as --run {name}",
        )
    if not options.dry_run:
        prepare(options, first, run_dir, films=films or first["n_phantoms"])
        digests.keep(BUILD / ".cache")  # the stages' own processes read them
    return fingerprint


def prepare(options, first, run_dir, *, films) -> None:
    """Look at the machine, and make the run's folder."""
    for warning in preflight.check(
        run_dir, films=films, image_size=first["image_size"], pdf=not options.no_pdf
    ):
        commands.tell(f"warning: {warning}")
        options.no_pdf = True


def clean(options) -> int:
    """Remove what no run refers to; say how much it was."""
    for folder, freed in housekeeping.clean(BUILD, dry_run=options.dry_run).items():
        done = "would free" if options.dry_run else "freed"
        commands.tell(f"{commands.short(folder)}: {done} {freed / 2**20:,.1f} MiB")
    return 0


def typeset(options, values, run_dir, log) -> int:
    """Write results and report; show what was done."""
    from cxr_helpers import publish  # IPython takes half a second to import
    from report import ReportError, contents, currency, render

    start, others = time.monotonic(), (options.seeds or [])[1:]
    recipe = currency.recipe(run_dir, options=vars(options))
    made = [run_dir / name for name in commands.REPORT_FILES]
    if currency.is_current(recipe, run_dir):
        log.append(("report", "current", 0.0))
        scores, warnings = results.collect(run_dir, seeds=others), []
    else:
        scores, _ = results.write(run_dir, seeds=others)
        executed = [run_dir / "notebooks" / f"{stage}.ipynb" for stage in stages.STAGES]
        try:
            pages = contents.compose(run_dir, scores=scores, values=values, options=vars(options))
            warnings = render(executed, **pages, out=run_dir, pdf=not options.no_pdf).warnings
        except ReportError as error:
            raise commands.Refused(4, f"the report was not made: {error}") from error
        if not warnings:
            currency.write(recipe, run_dir, [path for path in made if path.exists()])
        log.append(("report", "ran", time.monotonic() - start))
    commands.show_log(log, title="done")
    data = atomic.read_json(stages.stage_folder(run_dir, "01_data") / "dataset.json")
    title = publish.labelled("Table 1", synthetic=data["synthetic"])
    commands.show_results(results.table_one(scores), title=title)
    for warning in warnings:
        commands.tell(f"warning: {warning}")
    for path in made:
        if path.exists() and path.suffix in (".html", ".pdf"):
            commands.tell(f"report: {commands.short(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

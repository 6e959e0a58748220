"""Run the notebooks in order and write the report.

    uv run run_all.py                              # on synthetic phantoms
    uv run run_all.py --data path/to/chest_xray    # on real images, a folder or an archive
    uv run run_all.py --data kaggle                # on images to download (or mendeley)
    uv run run_all.py --set 02_binary.epochs=3     # one parameter changed
    uv run run_all.py --grid 03_categorical.ours_epochs=20,40 --seeds 0-4 --workers 2
    uv run run_all.py --dry-run                    # show what would run, and why
    uv run run_all.py --weights-from RUN --data OTHER   # score a run's models on other images
    uv run run_all.py --predict RUN IMAGES         # predict images; writes predicted.csv
    uv run run_all.py --explore RUN                # play with its networks, in JupyterLab

Results are written to report/build/<run>/. A stage is not run again while its code, parameters,
inputs and library versions are unchanged; an interrupted training resumes after its last complete
epoch.

Exit codes: 0 done, 1 a bug (with its traceback), 2 usage, 3 data, 4 a notebook failed, the report
could not be made from it, or several runs failed for different reasons, 5 the folder
of the run is in use, 6 environment (packages, permissions, disk), 129, 130 and 143 stopped by
SIGHUP, SIGINT, SIGTERM.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from cxr_helpers.data import downloads, ingestion, lung_outlines, sources
from cxr_helpers.data.lung_outlines import V7
from cxr_helpers.evaluation import tables
from cxr_helpers.figures import publishing
from cxr_helpers.pipeline import (
    command_line,
    currency,
    dependencies,
    display,
    execution,
    forecast,
    graph,
    grid,
    housekeeping,
    parameters,
    plans,
    preflight,
    repeatability,
    results,
    runner,
    settings,
    stages,
)
from cxr_helpers.pipeline.grid import Variant
from cxr_helpers.pipeline.plans import Plan
from cxr_helpers.pipeline.runs import REPORT_FILES, Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import accelerators, digests, environment, errors, files, terminal
from cxr_helpers.system.errors import Refused
from cxr_helpers.system.signals import Stopped, stoppable

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "report" / "build"


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line requests; return the exit code."""
    terminal.open_streams()
    environment.skip_unused_grammar()
    try:
        stages_of = graph.load(NOTEBOOKS)
        schema = {stage: parameters.read(spec.notebook) for stage, spec in stages_of.items()}
        settings.check_presets(schema, stages_of.presets)
        for spec in stages_of.values():
            dependencies.check(spec.notebook)
    except OSError as error:
        path = terminal.short_path(Path(error.filename))
        return command_line.fail(4, f"{path}: {error.strerror}")
    except ValueError as error:
        return command_line.fail(4, str(error))
    options = command_line.parse(arguments, presets=list(stages_of.presets), summary=__doc__)
    try:
        if options.list:
            display.list_parameters(schema)
            return 0
        determinism = accelerators.determinism(not options.nondeterministic)
        with stoppable(), determinism, digests.cached(BUILD / ".cache", write=not options.dry_run):
            if options.clean:
                return clean(options)
            if options.predict:
                return predict(options, stages_of)
            if options.explore:
                return explore(options, stages_of)
            return run_stages(options, stages_of, schema)
    except Refused as error:
        return command_line.fail(error.code, str(error), debug=options.debug)
    except Stopped as stop:
        without = " without --force" * options.force
        rest = f"the same command{without} continues from here"
        if options.predict:
            rest = "no prediction was written"
        return command_line.fail(stop.code, f"stopped by {stop}; {rest}")
    except Exception as error:
        fault = errors.classify(error)
        bug = fault.code == errors.BUG
        return command_line.fail(fault.code, fault.message, debug=options.debug or bug)


def run_stages(options, stages_of, schema) -> int:
    """Run the stages of each run that the command names; write their reports and an overview."""
    command_line.title_page(options, ROOT / "report" / "report.toml")
    try:
        variants = grid.variants(options, schema, presets=stages_of.presets)
    except ValueError as error:
        raise Refused(2, str(error)) from error
    check_sources(options)  # before the first one runs for hours
    workers = (options.workers or options.cluster) and not options.dry_run
    execute = execution.on_workers if workers else execution.here
    prepare_run = partial(prepared, stages_of=stages_of, schema=schema)
    complete, failures = execute(
        execution.Command(options, variants, prepare_run, finish, BUILD / stages.STORE)
    )
    if len(variants) > 1 and complete:
        write_overview(complete, options)
    if failures:
        raise plans.together(failures, of=len(variants))
    return 0


def check_sources(options) -> None:
    """Refuse sources that do not exist, or whose runs would have the same name."""
    if len(options.sources) == 1:
        return
    given: dict[str, str] = {}
    for data in options.sources:
        name = command_line.run_name(sources.find(data, cache_dir=BUILD / ".cache").name, "")
        if name in given:
            raise Refused(
                2,
                f"--data {given[name]} and --data {data} are both named {name.rstrip('-')}: run them "
                "one after the other, each with its own --run",
            )
        given[name] = data


@contextmanager
def prepared(variant: Variant, stages_of, schema) -> Iterator[Plan]:
    """Check options, images and machine for a run, and hold the lock of its folder."""
    options = variant.options
    earlier = command_line.earlier_run(options, BUILD, stages_of)
    preset = earlier.parameters(schema) if earlier else stages_of.presets[options.preset]
    if earlier:  # the outlines of its own images, and files that its trainings began with
        for own, name in itertools.product(preset.values(), ("lung_masks", currency.WEIGHTS)):
            own.pop(name, None)
    try:
        changes = [*options.settings, *([f"seed={options.seed}"] if options.seed else [])]
        values = settings.resolve(
            schema, preset=preset, settings=changes, reserved=currency.UNTRACKED
        )
        chosen = command_line.selection(options, stages_of)
        if options.if_stale:
            options.only = None  # which would run them in any case
    except ValueError as error:
        raise Refused(2, str(error)) from error
    source = sources.find(options.data, cache_dir=BUILD / ".cache")

    kind = f"by-{earlier.name}" if earlier else options.preset
    base = options.run or command_line.run_name(source.name, kind)
    if options.run and len(options.sources) > 1:
        base = command_line.run_name(options.run, source.name)
    run = Run(BUILD / grid.run_name(base, variant.suffix), stages_of)
    if earlier and run.folder == earlier.folder:
        raise Refused(
            2, f"--run {run.name} is the run that --weights-from names: give another name"
        )
    models = f"models of {earlier.name}" if earlier else f"preset {options.preset}"
    terminal.write_line(f"{source.name}, {models} → {terminal.short_path(run.folder)}")
    for line in preflight.check_device():
        terminal.write_line(f"note: {line}")
    fingerprint, n_images = None, 0
    if source.located:
        fingerprint, n_images = examine(source, options, values["01_data"], run)
    elif not options.dry_run:
        if source.disk_space:
            preflight.check_disk(*source.disk_space, advice=f"free some disk to {source.pending}")
        prepare(options, values["01_data"], run, images=0)
    with nullcontext() if options.dry_run else run.locked():
        if fingerprint is None and options.dry_run:
            terminal.write_line(f"would {source.pending} first; the plan below may depend on it")
            fingerprint = (run.source() or ("", ""))[1]
        elif fingerprint is None:
            terminal.write_line(f"first: {source.pending}")
            source = sources.fetch(options.data, cache_dir=BUILD / ".cache")
            fingerprint, n_images = examine(source, options, values["01_data"], run)
        if not options.dry_run:
            run.record_source(source.location, fingerprint)
        first = values["01_data"]
        size = max(first["image_size"], first.get("detail_size", 0) if source.is_real else 0)
        options.jobs = options.jobs or preflight.jobs(n_images=n_images, image_size=size)
        if options.threads is None:
            options.threads = preflight.threads(n_images=n_images, image_size=size)
        paths = {
            "run_dir": str(run.folder),
            "cache_dir": str(BUILD / ".cache"),
            "data": str(source.located),
            "weights_from": str(earlier.folder if earlier else ""),
        }
        for stage, own in values.items():
            own.update({name: path for name, path in paths.items() if name in schema[stage]})
            masks = own.get("lung_masks", "")
            if masks not in ("", V7):
                own["lung_masks"] = str(lung_outlines.find(masks))
            elif masks == V7 and source.is_real and stage in chosen and not options.dry_run:
                downloads.v7_lung_masks(cache_dir=BUILD / ".cache")  # fails before anything runs
            if own.get(currency.WEIGHTS):
                own[currency.WEIGHTS] = files.weights(own[currency.WEIGHTS])
            if "precision" in own:  # recorded, and part of what a result depends on
                own["precision"] = environment.precision(own["precision"])
        seconds = {}
        if not earlier:  # whose models are not trained again
            seconds = forecast.declared(
                stages_of,
                preset=options.preset,
                n_images=n_images,
                phantoms=not source.is_real,
                precision={s: own["precision"] for s, own in values.items() if "precision" in own},
            )
        yield Plan(variant, run, values, chosen, fingerprint, seconds)


def finish(plan: Plan, log, stale) -> bool:
    """Write results and report if all stages are up to date; return whether they are."""
    options = plan.options
    if not options.dry_run and not stale:
        typeset(options, plan.values, plan.run, log)
        return True
    display.show_log(log, title="plan" if options.dry_run else "done")
    if stale:
        terminal.write_line(f"no report: {', '.join(stale)} not up to date")
    if options.seeds and plan.other_seeds:
        seeds = ", ".join(map(str, plan.other_seeds))
        terminal.write_line(f"then the same stages with seeds {seeds}, where not up to date")
    return False


def write_overview(finished: Sequence[Plan], options) -> None:
    """Write the page and the table over several runs."""
    from report import overview

    every, variants = [plan.run for plan in finished], [plan.variant for plan in finished]
    folder = BUILD / grid.overview_name(every, variants, options.run)
    page, _ = overview.write(
        grid.collect(every, variants, seeds=finished[0].other_seeds),
        folder=folder,
        labels={row.id: row.label for run in every for row in results.rows(run)},
        synthetic=[run.name for run in every if results.is_synthetic(run)],
        changed=list(variants[0].chosen),
        title=f"{len(every)} runs",
    )
    terminal.write_line(f"overview: {terminal.short_path(page)}")


def examine(source, options, first, run) -> tuple[str, int]:
    """Return the images' fingerprint and number; refuse images and machines that cannot be used."""
    fingerprint, images = ingestion.identify(source)
    if images:
        terminal.write_line(f"images: {source.path}")
    for note in ingestion.notes(source.located):
        terminal.write_line(f"note: {note}")
    if not options.weights_from:
        preflight.check_images(source.located, first)
    if location := run.other_source(source.location, fingerprint):
        name = command_line.run_name(Path(source.location).parent.name, run.name)[:80]
        raise Refused(
            2,
            f"{run.name} is a run on other images ({location}): give this one another name, "
            f"such as --run {name}",
        )
    n_images = images or first["n_phantoms"]
    if not options.dry_run:
        detail_size = first.get("detail_size", 0) if images else 0  # phantoms have no detail
        prepare(options, first, run, images=n_images, detail_size=detail_size)
        digests.write_cache(BUILD / ".cache")  # for the kernels of the stages
    return fingerprint, n_images


def prepare(options, first, run, *, images, detail_size=0) -> None:
    """Check the machine, and create the folder of the run."""
    size = max(first["image_size"], detail_size)
    for warning in preflight.check(
        run.folder,
        n_images=images,
        image_size=size,
        pdf=not (options.no_pdf or options.no_report),
    ):
        terminal.write_line(f"warning: {warning}")
        options.no_pdf = True


def clean(options) -> int:
    """Remove cached results that no run uses; show how many bytes."""
    for folder, freed in housekeeping.clean(BUILD, dry_run=options.dry_run).items():
        verb = "would free" if options.dry_run else "freed"
        terminal.write_line(f"{terminal.short_path(folder)}: {verb} {freed / 2**20:,.1f} MiB")
    for owner in housekeeping.in_progress(BUILD):
        terminal.write_line(f"decoded images are kept: a run is in progress ({owner})")
    return 0


def predict(options, stages_of) -> int:
    """Write the predictions of images by the networks of a run to ``predicted.csv``."""
    from cxr_helpers.pipeline import classifiers, prediction

    named, *paths = options.predict
    images = prediction.find(paths)
    run = command_line.finished_run(
        named, BUILD, stages_of, option="--predict", stages=classifiers.STAGES
    )
    path = Path("predicted.csv")
    try:
        with files.temporary_folder(path.parent):
            pass  # raises where it cannot be written to, before the networks are loaded
    except OSError as error:
        raise Refused(
            6,
            f"{path} cannot be written in this folder ({error.strerror}): "
            "change its permissions, or run the command in another one",
        ) from error
    for line in preflight.check_device():
        terminal.write_line(f"note: {line}")
    n = f"{len(images)} image{'s' * (len(images) != 1)}"
    terminal.write_line(f"{n}, networks of {run.name}. Not for clinical use.")
    table = prediction.predict(
        run, images, store=Store(BUILD / stages.STORE), log=terminal.write_line
    )
    unread = int((table["network"] == "").sum())
    if unread == len(images):
        first = f"{table['file'].iloc[0]}: {table['warning'].iloc[0].removeprefix('not read: ')}"
        raise Refused(3, f"no image could be read; {first}")
    replaced = " (replaced)" if path.exists() else ""
    files.write_text(path, table.to_csv(index=False, lineterminator="\n"))
    if unread:
        terminal.write_line(
            f"note: {unread} of {len(images)} images were not read: see the column `warning`"
        )
    terminal.write_line(f"predictions: {path}{replaced}")
    return 0


def explore(options, stages_of) -> int:
    """Open a finished run in JupyterLab."""
    from cxr_helpers.explore import opening

    run = command_line.finished_run(
        options.explore, BUILD, stages_of, option="--explore", stages=opening.STAGES
    )
    notebook = terminal.short_path(run.folder / opening.NOTEBOOK)
    terminal.write_line(f"{notebook} opens in JupyterLab; Ctrl-C ends it. Not for clinical use.")
    return opening.open_in_jupyterlab(run)


def typeset(options, values, run, log) -> None:
    """Write results and report unless they are up to date; show what was done."""
    from report import currency as report_currency

    start, others = time.monotonic(), (options.seeds or [])[1:]
    recipe = report_currency.recipe(run, options=vars(options))
    paths = [run.folder / name for name in REPORT_FILES]
    if report_currency.is_current(recipe, run):
        log.append(("report", runner.UP_TO_DATE, 0.0))
        scores, warnings = results.collect(run, seeds=others), []
    elif options.no_report:
        run.retire_report()
        log.append(("report", "left out", 0.0))
        (scores, _), warnings, paths = results.write(run, seeds=others), [], []
    else:
        from report import contents  # importing nbconvert and matplotlib takes two seconds
        from report.errors import ReportError
        from report.output import render

        scores, _ = results.write(run, seeds=others)
        if others:
            terminal.write_line(f"comparing the maps of {1 + len(others)} training runs")
            repeatability.write(run, seeds=others, store=Store(BUILD / stages.STORE))
        executed = [run.executed(stage) for stage in run.graph]
        for name, line in report_currency.lines_left_out(recipe, run).items():
            terminal.write_line(
                f"note: the title page had the {name} {line!r}: give --{name} again, or write it into "
                "report/report.toml"
            )
        try:
            pages = contents.compose(run, scores=scores, values=values, options=vars(options))
            warnings = render(executed, **pages, out=run.folder, pdf=not options.no_pdf).warnings
        except ReportError as error:
            raise Refused(4, f"the report was not written: {error}") from error
        if not warnings:
            report_currency.write(recipe, run, [path for path in paths if path.exists()])
        log.append(("report", "ran", time.monotonic() - start))
    display.show_log(log, title="done")
    data = files.read_json(run.stage("01_data") / "dataset.json")
    title = publishing.labelled("Table 1", synthetic=data["synthetic"])
    display.show_results(tables.table_one(scores, results.rows(run)), title=title)
    for warning in warnings:
        terminal.write_line(f"warning: {warning}")
    for path in paths:
        if path.exists() and path.suffix in (".html", ".pdf"):
            terminal.write_line(f"report: {terminal.short_path(path)}")


if __name__ == "__main__":
    sys.exit(main())

"""The command line of ``run_all.py``: its options, and what they refer to."""

from __future__ import annotations

import argparse
import re
import tomllib
import traceback
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from cxr_helpers.data.sources import PHANTOM
from cxr_helpers.pipeline import settings
from cxr_helpers.pipeline.graph import DEMO, STANDARD, Graph
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import portable, terminal
from cxr_helpers.system.errors import Refused, did_you_mean

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MAX_WORKERS = 1024
MAX_LENGTH = 300  # characters of a line of the title page
TITLE_PAGE = ("title", "author", "course")
ALONE = ("list", "clean", "predict", "explore")  # none of them makes a run
BESIDE_THEM = ("debug", "nondeterministic", "dry_run")  # what they heed, or what is refused below
WRITTEN = {"sources": "data", "settings": "set", "first": "from"}  # names of options that differ


def parse(
    arguments: Sequence[str] | None, *, presets: Sequence[str], summary: str
) -> argparse.Namespace:
    """Return the options of ``run_all.py``; an invalid one ends the program with exit code 2."""
    parser = _Parser(
        prog="run_all.py",
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, text = parser.add_argument, partial(parser.add_argument, type=_text)
    line = partial(parser.add_argument, type=_line)
    text(
        "--data", dest="sources", action="append", metavar="SOURCE",
        help="phantom (default), kaggle, mendeley, or a folder, archive (.zip, .tar, .tar.gz) or .npz of images; "
        "repeat the option to make a run for each",
    )  # fmt: skip
    text(
        "--preset",
        choices=presets,
        help="set of parameters (default: demo on phantoms, standard on images)",
    )
    text(
        "--weights-from", metavar="RUN",
        help="score the models of this earlier run on the images of --data, without retraining",
    )  # fmt: skip
    add(
        "--set", type=_setting, dest="settings", action="append", default=[], metavar="NAME=VALUE",
        help="change a parameter of the notebooks; STAGE.NAME=VALUE for one stage (see --list)",
    )  # fmt: skip
    add(
        "--grid", type=_setting, action="append", default=[], metavar="NAME=VALUE,VALUE",
        help="make a run for each value of a parameter, and an overview; repeat it for all combinations",
    )  # fmt: skip
    text("--seed", metavar="N", help="seed of every stage")
    text("--seeds", metavar="N-M", help="train with each of these seeds, such as 0-4 or 0,7")
    text("--only", nargs="+", action="extend", metavar="STAGE", help="run only these stages")
    add("--if-stale", action="store_true", help=argparse.SUPPRESS)  # with --only, see standalone
    text("--from", dest="first", metavar="STAGE", help="skip the stages before this one")
    add(
        "--force",
        action="store_true",
        help="run stages even if they are up to date, and train again",
    )
    add(
        "--nondeterministic",
        action="store_true",
        help="let the last digits differ between runs (this is recorded); may be faster on a GPU",
    )
    text(
        "--predict", nargs="+", metavar=("RUN", "IMAGES"),
        help="predict images (files or folders) with the networks of a finished run; writes predicted.csv",
    )  # fmt: skip
    text(
        "--explore",
        metavar="RUN",
        help="open a finished run in JupyterLab, to play with its networks",
    )
    text("--run", metavar="NAME", help="name of the run's folder under report/build")
    add(
        "--jobs", type=int, metavar="N",
        help="run up to N independent stages at once (default: 2 on Linux without a GPU where cores and memory allow, else 1)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="show which stages would run, and why; run nothing")
    add(
        "--clean",
        action="store_true",
        help="remove cached results and decoded images that no run uses",
    )
    add("--list", action="store_true", help="list the stages and their parameters")
    add("--no-pdf", action="store_true", help="write the HTML report only")
    add("--no-report", action="store_true", help="run the notebooks and write results, no report")
    add("--timeout", type=int, metavar="SECONDS", help="longest time a cell may take")
    line("--title", help="title of the report; its default is in report/report.toml")
    line("--author", help="author of the report; its default is in report/report.toml")
    line("--course", help="course of the report; its default is in report/report.toml")
    add("--debug", action="store_true", help="show tracebacks")
    _add_workers(parser)
    options = parser.parse_args(arguments)
    _check_alone(parser, options)
    options.sources = options.sources or [PHANTOM]
    options.data = options.sources[0]
    if options.only and options.first:
        parser.error("--only and --from cannot be combined")
    if options.run and not RUN_NAME.fullmatch(options.run):
        parser.error(
            f"--run {options.run!r}: expected letters, digits, '.', '_' and '-', at most 80, "
            "and a letter or digit first"
        )
    if options.run and portable.is_reserved(options.run):
        parser.error(f"--run {options.run!r}: Windows reserves this name; give another one")
    if options.timeout is not None and options.timeout < 1:
        parser.error(f"--timeout {options.timeout}: expected at least 1 second")
    if options.seeds:
        try:
            options.seeds = settings.seeds(options.seeds)
        except ValueError as error:
            parser.error(f"--seeds {error}")
        if options.seed or options.weights_from or options.only or options.first:
            parser.error("--seeds cannot be combined with --seed, --weights-from, --only or --from")
        options.seed = str(options.seeds[0])
    fixed = [text for text in options.settings if _name_of(text) != "lung_masks"]
    if options.weights_from and (options.preset or fixed or options.grid):
        parser.error(
            "--weights-from uses the parameters of that run: omit --preset, --grid, and --set but "
            "for lung_masks"
        )
    named = [_target_of(text) for text in options.settings]
    for target in named:
        if named.count(target) > 1:
            parser.error(f"--set {target}= is given twice: keep one of them")
    if options.seed and "seed" in map(_name_of, options.settings):
        parser.error("--set seed= cannot be combined with --seed or --seeds")
    for target in map(_target_of, options.grid):  # a value for one stage may follow a general one
        if target in named or ("." not in target and target in map(_name_of, options.settings)):
            parser.error(f"--set {target}= cannot be combined with --grid {target}=")
    _check_workers(parser, options)
    return options


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the list of all options before them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _check_alone(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what has no effect beside an option of ``ALONE``."""
    alone = [name for name in ALONE if getattr(options, name)]
    if not alone:
        return
    for name, value in vars(options).items():
        if name not in (alone[0], *BESIDE_THEM) and value != parser.get_default(name):
            option = WRITTEN.get(name, name).replace("_", "-")
            parser.error(f"--{alone[0]} and --{option} cannot be combined")
    if options.dry_run and (options.predict or options.explore):
        parser.error(f"--dry-run cannot be combined with --{alone[0]}")
    if options.predict and len(options.predict) < 2:
        parser.error("--predict RUN IMAGES: name at least one image or folder after the run")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the options of runs on several workers; docs/cluster.md describes them."""
    group = parser.add_argument_group("several workers (docs/cluster.md)")
    number = partial(group.add_argument, type=int, metavar="N")
    number(
        "--workers", help="run N tasks at once on this machine: each run, then its further seeds"
    )
    group.add_argument(
        "--cluster", type=_text, metavar="ADDRESS",
        help="run the tasks on the workers of this Dask scheduler: its address or scheduler file",
    )  # fmt: skip
    number(
        "--threads",
        help="threads of each stage (default: 1 in a small run, else the cores, shared among the tasks)",
    )
    group.add_argument(
        "--tls", type=_text, nargs=3, default=[], metavar=("CA", "CERTIFICATE", "KEY"),
        help="files for an encrypted connection to the scheduler",
    )  # fmt: skip
    group.add_argument(
        "--plain-tcp",
        action="store_true",
        help="connect to a scheduler on another machine without encryption",
    )


def _check_workers(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options of workers that are out of range or do not fit."""
    if options.workers and options.cluster:
        parser.error("--workers and --cluster cannot be combined")
    if options.jobs and (options.workers or options.cluster):
        parser.error(
            "--jobs cannot be combined with --workers or --cluster: a task runs one stage at a time"
        )
    for name in ("workers", "threads", "jobs"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= MAX_WORKERS:
            parser.error(f"--{name} {value}: expected 1 to {MAX_WORKERS}")
    if (options.tls or options.plain_tcp) and not options.cluster:
        parser.error("--tls and --plain-tcp can only be used with --cluster")


def default_preset(data: str, presets: Sequence[str]) -> str:
    """Return the preset of a run without ``--preset``: a first look on phantoms, else standard."""
    return DEMO if data == PHANTOM and DEMO in presets else STANDARD


def _text(value: str) -> str:
    """Return the value of an option; refuse an empty one, as of an unset shell variable."""
    if not value.strip():
        raise argparse.ArgumentTypeError("the value is empty: give one, or omit the option")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise argparse.ArgumentTypeError(f"{value!a} is not UTF-8: write it in UTF-8")
    return value


def _setting(value: str) -> str:
    """Return a setting; refuse one without a name or a value."""
    if not all(part.strip() for part in _text(value).partition("=")):
        raise argparse.ArgumentTypeError(f"{value!r} is not NAME=VALUE or STAGE.NAME=VALUE")
    return value


def _name_of(setting: str) -> str:
    """Return the parameter of ``NAME=VALUE`` or ``STAGE.NAME=VALUE``."""
    return _target_of(setting).rpartition(".")[2]


def _target_of(setting: str) -> str:
    """Return ``NAME`` or ``STAGE.NAME`` of a setting."""
    return setting.partition("=")[0].strip()


def _line(value: str) -> str:
    """Return a line of the title page; refuse one that is too long."""
    if len(_text(value)) > MAX_LENGTH:
        raise argparse.ArgumentTypeError(_too_long(value))
    return value


def _too_long(line: str) -> str:
    return f"{len(line):,} characters is too long: at most {MAX_LENGTH} fit"


def title_page(options: argparse.Namespace, path: Path) -> None:
    """Read the lines of the title page that the command line omits from a file.

    Raises
    ------
    Refused
        With exit code 2 where the file cannot be read or is not TOML, or a line in it is missing,
        not a string, or too long.
    """
    name = terminal.short_path(path)
    try:
        lines = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(2, f"{name}: {error.strerror}: it holds the title page") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise Refused(2, f"{name}: {error}") from error
    for key in TITLE_PAGE:
        line = lines.get(key)
        if not isinstance(line, str):
            raise Refused(2, f'{name}: {key} is not a string: write it in quotes, or "" for none')
        if len(line) > MAX_LENGTH:
            raise Refused(2, f"{name}: {key}: {_too_long(line)}")
        setattr(options, key, getattr(options, key) or line)


def earlier_run(options: argparse.Namespace, build: Path, graph: Graph) -> Run | None:
    """Return the run that ``--weights-from`` names, if it names one; see ``finished_run``."""
    if not options.weights_from:
        return None
    return finished_run(options.weights_from, build, graph, option="--weights-from", stages=graph)


def finished_run(
    named: str, build: Path, graph: Graph, *, option: str, stages: Iterable[str]
) -> Run:
    """Return the run that an option names, by its name or its folder.

    Raises
    ------
    Refused
        With exit code 2 where there is no such run, one of ``stages`` is not complete or older than
        what it reads, or another version of this project made it.
    """
    folder = build / named
    if not (RUN_NAME.fullmatch(named) or (folder / "stages").is_dir()):
        folder = Path(named).resolve()
    if not (folder / "stages").is_dir():
        known = sorted(path.parent.name for path in build.glob("*/stages"))
        hint = did_you_mean(named, known)
        raise Refused(
            2,
            f"{option} {named!r} is not a run; existing runs: {', '.join(known) or 'none'}{hint}",
        )
    run = Run(folder, graph)
    for stage in stages:
        if not run.is_complete(stage):
            raise Refused(2, f"{option} {named!r}: its {stage} is not complete: run it again first")
        if not run.is_readable(stage):
            raise Refused(
                2,
                f"{option} {named!r} was made by another version of this project: run it "
                "again first",
            )
    for stage in stages:
        if changed := run.newer_input(stage):
            raise Refused(
                2,
                f"{option} {named!r}: its {stage} is older than its {changed}: run it again first",
            )
    return run


def selection(options: argparse.Namespace, graph: Graph) -> list[str]:
    """Return the stages that may run, in order.

    Raises
    ------
    ValueError
        If ``--only`` or ``--from`` names no stage; the number of a stage is enough.
    """
    names = list(graph)
    if options.only:
        only = {settings.find_stage(word, names) for word in options.only}
        return [name for name in names if name in only]
    first = settings.find_stage(options.first, names) if options.first else names[0]
    return names[names.index(first) :]


def run_name(data_name: str, preset: str) -> str:
    """Return the name of a run's folder, of letters, digits, ``.``, ``_`` and ``-``."""
    plain, kind = (re.sub(r"[^A-Za-z0-9._-]+", "-", n).strip("-.") for n in (data_name, preset))
    name = f"{(plain or 'data')[:60]}-{kind}"
    return f"data-{name}" if portable.is_reserved(name) else name


def fail(code: int, message: str, *, debug: bool = False) -> int:
    """Write the error in one line; return the exit code."""
    if debug:
        traceback.print_exc()
    first_line = message.strip().split("\n")[0]
    terminal.console.print(f"error: {first_line}", style="bold red", markup=False)
    return code

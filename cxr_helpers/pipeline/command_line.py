"""The command line of ``run_all.py``: its options, its words, its tables.

All goes to standard error, but for what ``--list`` and ``--help`` show.
"""

from __future__ import annotations

import argparse
import re
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.table import Table

from cxr_helpers.pipeline import currency, parameters
from cxr_helpers.pipeline.graph import Graph
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import terminal
from cxr_helpers.system.errors import Refused, did_you_mean

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
LONGEST = 300  # characters of a line of the title page
TITLE_PAGE = ("title", "author", "course")


def parse(
    arguments: Sequence[str] | None, *, presets: Sequence[str], summary: str
) -> argparse.Namespace:
    """Return the options of ``run_all.py``; a mistake ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="run_all.py",
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, text = parser.add_argument, partial(parser.add_argument, type=_text)
    line = partial(parser.add_argument, type=_line)
    text(
        "--data", default="phantom", metavar="SOURCE",
        help="phantom (default), kaggle, mendeley, or a folder, .zip, .tar or .tar.gz of images",
    )  # fmt: skip
    text("--preset", choices=presets, help="set of parameters (default: standard)")
    text(
        "--weights-from", metavar="RUN",
        help="train nothing: score the models of this earlier run on the images of --data",
    )  # fmt: skip
    add(
        "--set", type=_setting, dest="settings", action="append", default=[], metavar="NAME=VALUE",
        help="a notebook's parameter; STAGE.NAME=VALUE for one stage (see --list)",
    )  # fmt: skip
    text("--seed", metavar="N", help="seed of every stage")
    text("--seeds", metavar="N-M", help="train with each of these seeds, such as 0-4 or 0,7")
    text("--only", nargs="+", metavar="STAGE", help="run these stages, and no other")
    text("--from", dest="first", metavar="STAGE", help="run no stage before this one")
    add("--force", action="store_true", help="run stages again that are current, and train anew")
    text("--run", metavar="NAME", help="name of the run's folder under report/build")
    add("--dry-run", action="store_true", help="say what would run, and why; run nothing")
    add("--clean", action="store_true", help="remove what is kept and no run refers to")
    add("--list", action="store_true", help="list stages and their parameters")
    add("--no-pdf", action="store_true", help="make the HTML report only")
    add("--timeout", type=int, metavar="SECONDS", help="longest time that a cell may take")
    line("--title", help="title of the report; also in report/report.toml")
    line("--author", help="author of the report; also in report/report.toml")
    line("--course", help="course of the report; also in report/report.toml")
    add("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    if options.only and options.first:
        parser.error("--only: not with --from")
    if options.run and not RUN_NAME.fullmatch(options.run):
        parser.error(f"--run {options.run!r}: expected letters, digits, '.', '_' and '-' only")
    if options.timeout is not None and options.timeout < 1:
        parser.error(f"--timeout {options.timeout}: expected at least 1 second")
    if options.seeds:
        try:
            options.seeds = parameters.seeds(options.seeds)
        except ValueError as error:
            parser.error(f"--seeds {error}")
        if options.seed or options.weights_from or options.only or options.first:
            parser.error("--seeds: not with --seed, --weights-from, --only or --from")
        options.seed = str(options.seeds[0])
    if options.weights_from and (options.preset or options.settings):
        parser.error("--weights-from takes the parameters of that run: no --preset, no --set")
    options.preset = options.preset or "standard"
    return options


def _text(value: str) -> str:
    """Return an option's value; refuse an empty one, such as an unset variable of the shell."""
    if not value.strip():
        raise argparse.ArgumentTypeError("the value is empty: give one, or leave the option out")
    return value


def _setting(value: str) -> str:
    """Return a ``NAME=VALUE``; refuse one without name or value."""
    if not all(part.strip() for part in _text(value).partition("=")):
        raise argparse.ArgumentTypeError(f"{value!r} is not NAME=VALUE or STAGE.NAME=VALUE")
    return value


def _line(value: str) -> str:
    """Return a line of the title page; refuse one that would fill pages."""
    if len(_text(value)) > LONGEST:
        raise argparse.ArgumentTypeError(_too_long(value))
    return value


def _too_long(line: str) -> str:
    return f"{len(line):,} characters; at most {LONGEST} fit"


def title_page(options: argparse.Namespace, path: Path) -> None:
    """Fill in the lines of the title page that the command line left out, from a file.

    Raises
    ------
    Refused
        With exit code 2 where the file cannot be read or is no TOML, or a line of it is missing,
        no text, or longer than an option may be.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(
            2, f"{terminal.short_path(path)}: {error.strerror}: it holds the title page"
        ) from error
    except ValueError as error:  # neither UTF-8 nor TOML
        raise Refused(2, f"{terminal.short_path(path)}: {error}") from error
    for name in TITLE_PAGE:
        line = said.get(name)
        if not isinstance(line, str):
            raise Refused(
                2,
                f"{terminal.short_path(path)}: {name} is no text; give one in quotes, or an empty one",
            )
        if len(line) > LONGEST:
            raise Refused(2, f"{terminal.short_path(path)}: {name}: {_too_long(line)}")
        setattr(options, name, getattr(options, name) or line)


def earlier_run(options: argparse.Namespace, build: Path, graph: Graph) -> Run | None:
    """Return the run that ``--weights-from`` names, if it names one.

    Raises
    ------
    Refused
        With exit code 2 where there is no such run, it did not finish, or an earlier version of
        this project made it.
    """
    if not options.weights_from:
        return None
    named = options.weights_from
    found = build / named if RUN_NAME.fullmatch(named) else Path(named).resolve()
    if not (found / "stages").is_dir():
        known = sorted(path.parent.name for path in build.glob("*/stages"))
        hint = did_you_mean(named, known)
        raise Refused(
            2, f"--weights-from {named!r} is no run: there are {', '.join(known) or 'none'}{hint}"
        )
    run = Run(found, graph)
    for stage in graph:
        if not run.is_complete(stage):
            raise Refused(2, f"--weights-from {named!r}: its {stage} is not complete, run it again")
        if not run.is_readable(stage):
            raise Refused(
                2,
                f"--weights-from {named!r} was made by an earlier version of this project: run it "
                "again first",
            )
    return run


def selection(options: argparse.Namespace, graph: Graph) -> list[str]:
    """Return the stages that may run, in order.

    Raises
    ------
    ValueError
        If ``--only`` or ``--from`` names no stage; a stage's number is enough.
    """
    names = list(graph)
    if options.only:
        only = {parameters.stage_named(word, names) for word in options.only}
        return [name for name in names if name in only]
    first = parameters.stage_named(options.first, names) if options.first else names[0]
    return names[names.index(first) :]


def run_name(data_name: str, preset: str) -> str:
    """Return the name of a run's folder, made of plain characters."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", data_name).strip("-.") or "data"
    return f"{plain[:60]}-{preset}"


def fail(code: int, message: str, *, debug: bool = False) -> int:
    """Write the one line that says what went wrong; return the exit code."""
    if debug:
        traceback.print_exc()
    first_line = message.strip().split("\n")[0]
    terminal.console.print(f"error: {first_line}", style="bold red", markup=False)
    return code


def show_log(log: Sequence[tuple[str, str, float]], *, title: str) -> None:
    """Show a table of stages: what was done with each and how long it took."""
    table = Table(title=title, title_justify="left")
    for name in ("stage", "what", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for stage, what, seconds in log:
        table.add_row(stage, what, f"{seconds:.1f}" if seconds else "")
    terminal.console.print(table, markup=False)


def show_results(results: pd.DataFrame, *, title: str) -> None:
    """Show Table 1, the columns that fit a terminal."""
    table = Table(title=title, title_justify="left")
    wanted = ("Row", "Classes", "Published", "Accuracy", "AUROC", "Accuracy over seeds", "n")
    shown = results[[name for name in wanted if name in results]]
    for name in shown:
        left = {"justify": "left", "ratio": 1} if name == "Row" else {"no_wrap": True}
        table.add_column(name, **({"justify": "right"} | left))
    for line in shown.itertuples(index=False):
        cells = ["–" if pd.isna(v) else f"{v:.2f}" if isinstance(v, float) else v for v in line]
        table.add_row(*map(str, cells))
    terminal.console.print(table, markup=False)


def list_parameters(schema: Mapping[str, Mapping[str, parameters.Parameter]]) -> None:
    """Write every stage's parameters to stdout: default, meaning, type and allowed values."""
    lines = []
    for stage, own in schema.items():
        lines.append(stage)
        for parameter in own.values():
            if parameter.name not in currency.UNTRACKED:
                allowed = "" if parameter.range == "any" else f", {parameter.range}"
                setting = f"{parameter.name}={_plain(parameter.default)}"
                lines.append(f"  {setting:34}  {parameter.help} ({parameter.type}{allowed})")
    terminal.write_out(lines)


def _plain(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

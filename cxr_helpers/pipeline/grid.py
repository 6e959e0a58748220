"""Several runs of one command: each of several data sources with each combination of settings."""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_helpers.pipeline import command_line, currency, results, settings
from cxr_helpers.pipeline.runs import Run

LONGEST = 80  # characters of a run's name
MAX_RUNS = 200


@dataclass(frozen=True)
class Variant:
    """One run of the command.

    Attributes
    ----------
    options : argparse.Namespace
        The command's options with this run's ``data`` and ``settings``.
    chosen : mapping of str to str
        The values of ``--grid``, by parameter as it was given.
    suffix : str
        What distinguishes the run's name; empty where there are no such values.
    """

    options: argparse.Namespace
    chosen: Mapping[str, str]
    suffix: str


def variants(
    options: argparse.Namespace, schema: settings.Schema, *, presets: Sequence[str]
) -> list[Variant]:
    """Return the runs of a command, data sources first.

    Parameters
    ----------
    options : argparse.Namespace
        ``sources`` and ``grid`` are several values each.
    schema : mapping of stage to its parameters
    presets : sequence of str
        Where the command names none, each run has the default one for its data.

    Raises
    ------
    ValueError
        If an entry of ``grid`` is not ``NAME=VALUE,VALUE``, names a parameter that is unknown or a
        list, or has a value that is not allowed; if two sources or values are the same, or there
        are too many runs.
    """
    axes = [_axis(text, schema) for text in options.grid]
    targets = [target for target, _ in axes]
    if options.seed and any(target.rpartition(".")[2] == "seed" for target in targets):
        raise ValueError("--grid seed= cannot be combined with --seed or --seeds")
    for names, option in ((targets, "--grid"), (_source_names(options.sources), "--data")):
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{option} names {repeated[0]} twice")
    points = list(itertools.product(*(values for _, values in axes)))
    if len(points) * len(options.sources) > MAX_RUNS:
        raise ValueError(
            f"--grid: {len(points) * len(options.sources)} runs, at most {MAX_RUNS}: "
            "give fewer values"
        )
    found = []
    suffixes = _suffixes(dict(zip(targets, point, strict=True)) for point in points)
    for data in options.sources:
        for point, suffix in zip(points, suffixes, strict=True):
            chosen = dict(zip(targets, point, strict=True))
            own = copy.copy(options)
            own.data = data
            own.preset = options.preset or command_line.default_preset(data, presets)
            own.settings = [*options.settings, *(f"{n}={value}" for n, value in chosen.items())]
            found.append(Variant(own, chosen, suffix))
    for variant in found if axes else ():  # before the first one runs for hours
        changes = variant.options.settings
        settings.resolve(schema, preset={}, settings=changes, reserved=currency.UNTRACKED)
    return found


def _axis(text: str, schema: settings.Schema) -> tuple[str, list[str]]:
    """Return parameter and values of ``NAME=VALUE,VALUE``; each value is checked later."""
    target, _, listed = text.partition("=")
    values = [value.strip() for value in listed.split(",")]
    target = target.strip()
    if not target or not all(values):
        raise ValueError(f"--grid {text!r} is not NAME=VALUE,VALUE or STAGE.NAME=VALUE,VALUE")
    if repeated := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"--grid {text!r} names {repeated[0]} twice")
    name = target.rpartition(".")[2]
    if any(own[name].type.startswith("list") for own in schema.values() if name in own):
        raise ValueError(f"--grid {text!r}: {name} is a list: use --set, one run after another")
    return target, values


def _source_names(sources: Iterable[str]) -> list[str]:
    return [Path(source).name or source for source in sources]


def _suffixes(each: Iterable[Mapping[str, str]]) -> list[str]:
    """Return what distinguishes the names of runs; a digest, too, where names would be equal."""
    points = list(each)
    plain = [_suffix(chosen) for chosen in points]
    folded = [suffix.casefold() for suffix in plain]  # as some file systems see them
    return [
        suffix
        if folded.count(suffix.casefold()) == 1
        else f"{suffix}-{hashlib.sha256(repr(chosen).encode()).hexdigest()[:8]}"
        for suffix, chosen in zip(plain, points, strict=True)
    ]


def _suffix(chosen: Mapping[str, str]) -> str:
    """Return ``-epochs-3`` for ``{"02_binary.epochs": "3"}``, with the stage where it is needed."""
    short = [target.rpartition(".")[2] for target in chosen]
    names = [s if short.count(s) == 1 else t for s, t in zip(short, chosen, strict=True)]
    parts = [f"{n}-{v}" for n, v in zip(names, chosen.values(), strict=True)]
    return "".join(f"-{re.sub(r'[^A-Za-z0-9._-]+', '-', part)}" for part in parts)


def run_name(base: str, suffix: str) -> str:
    """Return the name of a run; the end of a long one is replaced by a digest."""
    name = f"{base}{suffix}"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def overview_name(runs: Sequence[Run], variants: Sequence[Variant], named: str | None) -> str:
    """Return the name of the folder of the overview over some runs."""
    if named:
        return run_name(named, "-overview")
    bases = sorted({r.name.removesuffix(v.suffix) for r, v in zip(runs, variants, strict=True)})
    axes = "".join(f"-{target.rpartition('.')[2]}" for target in variants[0].chosen)
    return run_name("-and-".join(bases), f"{axes}-overview")


def collect(
    runs: Sequence[Run], variants: Sequence[Variant], *, seeds: Iterable[int] = ()
) -> pd.DataFrame:
    """Return the results of all runs in one table.

    Parameters
    ----------
    runs : sequence of Run
        Finished.
    variants : sequence of Variant
        Of the same runs.
    seeds : iterable of int
        Other seeds, as in ``results.collect``.

    Returns
    -------
    pandas.DataFrame
        Columns ``run``, ``data``, one for each parameter of ``--grid``, then those of
        ``results.collect``.
    """
    seeds, tables = list(seeds), []
    for run, variant in zip(runs, variants, strict=True):
        table = results.collect(run, seeds=seeds)
        (data,) = _source_names([variant.options.data])  # not where it lies on this machine
        first = {"run": run.name, "data": data, **variant.chosen}
        for position, (name, value) in enumerate(first.items()):
            table.insert(position, f"{name} (grid)" if name in table else name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)

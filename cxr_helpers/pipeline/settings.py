"""The values of the parameters in a run: defaults, then a preset, then ``--set``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cxr_helpers.pipeline.parameters import RENAMED, Parameter
from cxr_helpers.system.errors import did_you_mean

MAX_SEEDS, SEEDS_BELOW = 100, 2**32
Schema = Mapping[str, Mapping[str, Parameter]]  # the parameters of each stage, by name
Preset = Mapping[str, Mapping[str, object]]  # the values that it changes, by stage and name


def resolve(
    schema: Schema, *, preset: Preset, settings: Iterable[str] = (), reserved: Iterable[str] = ()
) -> dict[str, dict[str, object]]:
    """Return the parameters of every stage: its defaults, then the preset, then the settings.

    Parameters
    ----------
    schema : mapping of stage to its parameters
        From ``parameters.read``.
    preset : mapping of stage to values
        As in ``graph.Graph.presets``.
    settings : iterable of str
        ``NAME=VALUE`` for every stage that has the parameter, ``STAGE.NAME=VALUE`` for one, which
        takes precedence.
    reserved : iterable of str
        Parameters that settings may not change, because the runner has options for them.

    Raises
    ------
    ValueError
        If a name is unknown (the message has the most similar known one), a value not allowed, or a
        parameter is set twice, for all stages or for one.
    """
    values = {stage: {p.name: p.default for p in own.values()} for stage, own in schema.items()}
    for stage, changes in preset.items():
        if stage not in schema:
            raise ValueError(f"no stage {stage!r}{did_you_mean(stage, schema)}")
        for name, value in changes.items():
            if name not in schema[stage]:
                raise ValueError(f"{stage} has no parameter {name!r}{_hint(name, schema[stage])}")
            values[stage][name] = schema[stage][name].check(value)
    chosen: dict[tuple[str, str], str] = {}  # by stage, or "" for all, and name: as it was given
    for setting in sorted(settings, key=lambda text: "." in text.partition("=")[0]):
        target, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is not NAME=VALUE or STAGE.NAME=VALUE")
        word, _, name = target.strip().rpartition(".")
        if name in reserved:
            raise ValueError(
                f"{name!r} is not changed by --set: give the images with --data, the run with --run"
            )
        candidates = [find_stage(word, schema)] if word else list(schema)
        stages = [stage for stage in candidates if name in schema[stage]]
        if not stages:
            known = sorted({n for stage in candidates for n in schema[stage]})
            if name in RENAMED:
                raise ValueError(f"{name} is now {RENAMED[name]}")
            missing = f"{candidates[0]} has no parameter" if word else "no notebook has a parameter"
            raise ValueError(f"{missing} {name!r}{did_you_mean(name, known)}")
        for stage in stages:
            values[stage][name] = schema[stage][name].parse(text)
        key = stages[0] if word else "", name
        if key in chosen:
            both = f"{chosen[key]}= and {target.strip()}="
            raise ValueError(f"{both} give a value to the same parameter: keep one of them")
        chosen[key] = target.strip()
    return values


def check_presets(schema: Schema, presets: Mapping[str, Preset]) -> None:
    """Raise ``ValueError``, naming preset and stage, if a preset has a value that is not allowed."""
    for preset, stages in presets.items():
        for stage, values in stages.items():
            try:
                resolve(schema, preset={stage: values})
            except ValueError as error:
                raise ValueError(f"{stage}.ipynb, preset {preset!r}: {error}") from None


def _hint(name: str, known: Iterable[str]) -> str:
    return f": it is now {RENAMED[name]}" if name in RENAMED else did_you_mean(name, known)


def find_stage(word: str, names: Iterable[str]) -> str:
    """Return the stage of a name, a number or a word of the name: ``02_binary``, 2, binary.

    Raises
    ------
    ValueError
        If it is none of ``names``, or more than one.
    """
    part = word.zfill(2) if word.isdecimal() else word
    matches = [name for name in names if part in (name, *name.split("_"))]
    if len(matches) != 1:
        hint = did_you_mean(word, names)
        raise ValueError(f"no stage {word!r}: expected one of {', '.join(names)}{hint}")
    return matches[0]


def seeds(text: str) -> list[int]:
    """Return the seeds in a text such as ``0-4`` or ``0,7,9``.

    Raises
    ------
    ValueError
        If it has another form, a range counts down, a seed is too large or named twice, or there
        are more than ``MAX_SEEDS``.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{text!r} is not of the form 0-4 or 0,7,9")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"{text!r} counts down: did you mean {high}-{low}?")
        if high >= SEEDS_BELOW:
            raise ValueError(f"{text!r}: {high} is too large, seeds are below 2**32")
        if high - low >= MAX_SEEDS - len(numbers):
            raise ValueError(f"{text!r} has more than {MAX_SEEDS} seeds")
        numbers += range(low, high + 1)
    if repeated := sorted({seed for seed in numbers if numbers.count(seed) > 1}):
        raise ValueError(f"{text!r} names {repeated[0]} twice")
    return numbers

"""The notebooks' parameters: read from their tagged cells, typed, ranged and checked.

A parameter is one line of the cell tagged ``parameters``::

    epochs: int = 12  # training epochs [1..500]
    image_size: int = 128  # working size in pixels [32..512 by 4]
    precision: str = "float32"  # numeric policy [float32 | mixed_bfloat16]

The brackets that close the comment hold the range, both ends included, or the choices.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cxr_helpers.system.errors import did_you_mean

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
MOST_SEEDS, SEEDS_BELOW = 100, 2**32
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_RULE = re.compile(r"\[(?P<rule>[^\[\]]+)\]\s*$")


@dataclass(frozen=True)
class Parameter:
    """One typed parameter of a notebook.

    Attributes
    ----------
    name, help : str
        As the notebook's cell has them.
    type : str
        ``int``, ``float``, ``bool``, ``str``, or a list of one, such as ``list[int]``.
    default : object
        The literal of the cell.
    low, high, step : float
        Range of the value, or of each member of a list; both ends are allowed. With a
        ``step``, only its multiples are.
    choices : tuple of str
        The allowed words; empty where any is.
    """

    name: str
    type: str
    default: object
    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    step: float | None = None
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> object:
        """Return the value that ``text`` stands for; lists are separated by commas.

        Raises
        ------
        ValueError
            If it is not of the parameter's type, out of range, or no choice.
        """
        if member := self._member:
            return self.check([_convert(part, member, self.name) for part in text.split(",")])
        return self.check(_convert(text, self.type, self.name))

    def check(self, value: object) -> object:
        """Return ``value`` if the parameter may have it, else raise ``ValueError``."""
        items = value if self._member and isinstance(value, list) else [value]
        if len(set(map(repr, items))) < len(items):
            raise ValueError(f"{self.name} = {value!r} names a value twice")
        for item in items:
            self._check_item(item, self._member or self.type)
        if self._member and not (isinstance(value, list) and value):
            raise ValueError(f"{self.name} = {value!r} is not a list[{self._member}] with a member")
        return value

    @property
    def _member(self) -> str | None:
        return self.type[5:-1] if self.type.startswith("list[") else None

    def _check_item(self, item: object, kind: str) -> None:
        good = isinstance(item, int | float) if kind == "float" else type(item) is TYPES[kind]
        if not good or (kind == "float" and isinstance(item, bool)):
            raise ValueError(f"{self.name} = {item!r} is not of type {kind}")
        if kind in ("int", "float") and not self._in_range(item):
            raise ValueError(f"{self.name} = {item} is out of range: {self.range}")
        if self.choices and item not in self.choices:
            hint = did_you_mean(str(item), self.choices)
            raise ValueError(
                f"{self.name} = {item!r} is not one of {', '.join(self.choices)}{hint}"
            )

    def _in_range(self, number: float) -> bool:
        if not (math.isfinite(number) and self.low <= number <= self.high):
            return False
        return self.step is None or number % self.step == 0

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return " | ".join(self.choices)
        if math.isinf(self.low) and math.isinf(self.high):
            return "any"
        steps = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:.10g} to {self.high:.10g}{steps}"


def read(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters of a notebook, by name, in their order.

    Raises
    ------
    ValueError
        If the file is no notebook, has not exactly one cell tagged ``parameters``, or a line of
        that is not ``name: type = literal  # comment``.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook.name} is not a whole notebook: {error}") from None
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{notebook.name} has {len(tagged)} cells tagged 'parameters'; expected exactly one"
        )
    source = "".join(tagged[0]["source"])
    lines = source.splitlines()
    found = {}
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(
            f"{notebook.name}, parameters cell, line {error.lineno}: {error.msg}"
        ) from None
    for node in body:
        try:
            name, kind = node.target.id, ast.unparse(node.annotation)
            default = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            raise ValueError(
                f"{notebook.name}, parameters cell: {lines[node.lineno - 1]!r} is not "
                "'name: type = literal  # comment'"
            ) from None
        comment = lines[node.end_lineno - 1][node.end_col_offset :].strip().lstrip("# ")
        if kind.removeprefix("list[").removesuffix("]") not in TYPES:
            raise ValueError(f"{notebook.name}, parameters cell: {name} has the type {kind!r}")
        found[name] = Parameter(name, kind, default, **_help_and_rule(comment))
        found[name].check(default)
    return found


def _help_and_rule(comment: str) -> dict:
    match = _RULE.search(comment)
    if match is None:
        return {"help": comment}
    found, rule = {"help": comment[: match.start()].strip()}, match["rule"]
    if ".." not in rule:
        return found | {"choices": tuple(word.strip() for word in rule.split("|"))}
    span, _, step = rule.partition(" by ")
    low, high = (float(end) for end in span.split(".."))
    return found | {"low": low, "high": high, "step": float(step) if step else None}


def _convert(text: str, kind: str, name: str) -> object:
    text = text.strip()
    try:
        return _BOOLEANS[text.lower()] if kind == "bool" else TYPES[kind](text)
    except (ValueError, KeyError):
        raise ValueError(f"{name} = {text!r} is not of type {kind}") from None


def resolve(
    schema: Mapping[str, Mapping[str, Parameter]],
    *,
    preset: Mapping[str, Mapping[str, object]],
    settings: Iterable[str] = (),
    reserved: Iterable[str] = (),
) -> dict[str, dict[str, object]]:
    """Return every stage's parameters: its defaults, then the preset, then the settings.

    Parameters
    ----------
    schema : mapping of stage to its parameters
        From ``read``.
    preset : mapping of stage to values
        What the preset changes, as ``graph.Graph.presets`` has it.
    settings : iterable of str
        ``NAME=VALUE`` for every stage that has the parameter, ``STAGE.NAME=VALUE`` for one.
    reserved : iterable of str
        Parameters that settings may not change: the runner has options for them.

    Raises
    ------
    ValueError
        If a name is unknown (with the nearest known one) or a value does not fit.
    """
    values = {stage: {p.name: p.default for p in own.values()} for stage, own in schema.items()}
    for stage, changes in preset.items():
        if stage not in schema:
            raise ValueError(f"preset: no stage {stage!r}{did_you_mean(stage, schema)}")
        for name, value in changes.items():
            if name not in schema[stage]:
                raise ValueError(f"preset: {stage} has no parameter {name!r}")
            values[stage][name] = schema[stage][name].check(value)
    for setting in settings:
        target, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is not NAME=VALUE or STAGE.NAME=VALUE")
        word, _, name = target.strip().rpartition(".")
        if name in reserved:
            raise ValueError(f"{name!r} is not set this way: use --data for the images, --run NAME")
        meant = [stage_named(word, schema)] if word else list(schema)
        stages = [stage for stage in meant if name in schema[stage]]
        if not stages:
            known = sorted({n for stage in meant for n in schema[stage]})
            holder = meant[0] if word else "no notebook"
            has = "has no parameter" if word else "has a parameter"
            raise ValueError(f"{holder} {has} {name!r}{did_you_mean(name, known)}")
        for stage in stages:
            values[stage][name] = schema[stage][name].parse(text)
    return values


def stage_named(word: str, names: Iterable[str]) -> str:
    """Return the stage that a name, a number or a noun stands for: ``02_binary``, 2, binary.

    Raises
    ------
    ValueError
        If it stands for none of ``names``.
    """
    wanted = word.zfill(2) if word.isdecimal() else word
    hits = [name for name in names if wanted in (name, *name.split("_"))]
    if len(hits) != 1:
        hint = did_you_mean(word, names)
        raise ValueError(f"no stage {word!r}: expected one of {', '.join(names)}{hint}")
    return hits[0]


def seeds(text: str) -> list[int]:
    """Return the seeds that ``0-4`` or ``0,7,9`` stands for.

    Raises
    ------
    ValueError
        If it is written in another way, counts down, holds a seed that is too large or twice, or
        stands for more than 100.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{text!r} is not like 0-4 or 0,7,9")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"{text!r} counts down: did you mean {high}-{low}?")
        if high >= SEEDS_BELOW:
            raise ValueError(f"{text!r}: {high} is too large, seeds are below 2**32")
        if high - low >= MOST_SEEDS - len(found):
            raise ValueError(f"{text!r} stands for more than {MOST_SEEDS} seeds")
        found += range(low, high + 1)
    if twice := sorted({seed for seed in found if found.count(seed) > 1}):
        raise ValueError(f"{text!r} names {twice[0]} twice")
    return found

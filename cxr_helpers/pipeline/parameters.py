"""The parameters of a notebook: read from its tagged cell, with type, range and meaning.

A parameter is one line of the cell tagged ``parameters``::

    epochs: int = 12  # training epochs [1..500]
    image_size: int = 128  # working size in pixels [32..512 by 4]
    precision: str = "float32"  # numeric policy [float32 | mixed_bfloat16]

The brackets at the end of the comment hold the range, both ends included, or the choices.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from cxr_helpers.system.errors import did_you_mean

EMPTY = "empty"  # how an empty choice is written

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
# Names and choices of earlier versions, which are refused with the present one.
RENAMED = {
    "serial_fraction": "contiguous_fraction",
    "frame_share": "centre_share",
    "frame_epochs": "border_epochs",
    "frame_folds": "border_folds",
    "ours_against": "ours_conflict_weight",
    "films": "images_per_row",
    "mean_films": "images_per_mean",
    "max_films": "max_images",
    "normal_quantile": "normal_percentile",
}
RENAMED_CHOICES = {("choose_by", "serial"): "contiguous"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_RULE = re.compile(r"\[(?P<rule>[^\[\]]+)\]\s*$")


@dataclass(frozen=True)
class Parameter:
    """One typed parameter of a notebook.

    Attributes
    ----------
    name, help : str
        From the notebook's cell.
    type : str
        ``int``, ``float``, ``bool``, ``str``, or a list of one of them, such as ``list[int]``.
    default : object
        The literal in the cell.
    low, high, step : float
        Range of the value, or of each item of a list; both ends are allowed. With a ``step``,
        only its multiples are allowed.
    choices : tuple of str
        The allowed values; empty where any is.
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
        """Return the value of a text; the items of a list are separated by commas.

        Raises
        ------
        ValueError
            If it is not of the parameter's type, out of range, or not one of the choices.
        """
        if item_type := self._item_type:
            return self.check([_convert(part, item_type, self.name) for part in text.split(",")])
        if text.strip() == EMPTY and "" in self.choices:
            return ""
        return self.check(_convert(text, self.type, self.name))

    def check(self, value: object) -> object:
        """Return ``value`` if the parameter allows it, else raise ``ValueError``."""
        items = value if self._item_type and isinstance(value, list) else [value]
        for item in items:
            self._check_item(item, self._item_type or self.type)
        if self._item_type and not (isinstance(value, list) and value):
            raise ValueError(f"{self.name} = {value!r} is not a list[{self._item_type}] with items")
        return value

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return " | ".join(self._choices_as_text)
        if math.isinf(self.low) and math.isinf(self.high):
            return "any"
        steps = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:.10g} to {self.high:.10g}{steps}"

    @property
    def _choices_as_text(self) -> list[str]:
        return [choice or EMPTY for choice in self.choices]

    @property
    def _item_type(self) -> str | None:
        return self.type[5:-1] if self.type.startswith("list[") else None

    def _check_item(self, item: object, kind: str) -> None:
        fits = isinstance(item, int | float) if kind == "float" else type(item) is TYPES[kind]
        if not fits or (kind == "float" and isinstance(item, bool)):
            raise ValueError(f"{self.name} = {item!r} is not of type {kind}")
        if kind in ("int", "float") and not self._in_range(item):
            raise ValueError(f"{self.name} = {item} is out of range: {self.range}")
        if self.choices and item not in self.choices:
            if renamed := RENAMED_CHOICES.get((self.name, item)):
                raise ValueError(f"{self.name} = {item!r} is now {renamed!r}")
            hint = did_you_mean(str(item), self.choices)
            known = ", ".join(self._choices_as_text)
            raise ValueError(f"{self.name} = {item!r} is not one of {known}{hint}")

    def _in_range(self, number: float) -> bool:
        # no number is below -inf; a long integer has no float to ask whether it is finite
        if not (self.low <= number <= self.high and -math.inf < number < math.inf):
            return False
        return self.step is None or number % self.step == 0


def read(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name, in their order.

    ``papermill.inspect_notebook`` takes three seconds to import, returns defaults as text, knows no
    range, and accepts lines that are not parameters.

    Raises
    ------
    ValueError
        If the file is not a notebook, does not have exactly one cell tagged ``parameters``, or a
        line of that cell is not ``name: type = literal  # comment``.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook.name} is not a complete notebook: {error}") from None
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{notebook.name} has {len(tagged)} cells tagged 'parameters'; expected exactly one"
        )
    place, source = f"{notebook.name}, parameters cell", "".join(tagged[0]["source"])
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{place}, line {error.lineno}: {error.msg}") from None
    lines, parameters = source.splitlines(), {}
    for node in nodes:
        try:
            name, kind = node.target.id, ast.unparse(node.annotation)
            default = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            raise ValueError(
                f"{place}: {lines[node.lineno - 1]!r} is not 'name: type = literal  # comment'"
            ) from None
        if kind.removeprefix("list[").removesuffix("]") not in TYPES:
            raise ValueError(
                f"{place}: {name} has the type {kind!r}, not one of {', '.join(TYPES)}"
            )
        comment = lines[node.end_lineno - 1][node.end_col_offset :].strip().lstrip("# ")
        try:
            parameters[name] = Parameter(name, kind, default, **_help_and_rule(comment))
            parameters[name].check(default)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    return parameters


def _help_and_rule(comment: str) -> dict:
    """Return the attributes of a parameter that its comment declares."""
    match = _RULE.search(comment)
    if match is None:
        return {"help": comment}
    attributes, rule = {"help": comment[: match.start()].strip()}, match["rule"]
    if ".." not in rule:
        return attributes | {"choices": tuple(word.strip() for word in rule.split("|"))}
    span, _, step = rule.partition(" by ")
    try:
        low, high = (float(end) for end in span.split(".."))
        return attributes | {"low": low, "high": high, "step": float(step) if step else None}
    except ValueError:
        raise ValueError(f"[{rule}] is not a range such as [1..500] or [16..512 by 8]") from None


def _convert(text: str, kind: str, name: str) -> object:
    text = text.strip()
    try:
        return _BOOLEANS[text.lower()] if kind == "bool" else TYPES[kind](text)
    except (ValueError, KeyError):
        raise ValueError(f"{name} = {text!r} is not of type {kind}") from None

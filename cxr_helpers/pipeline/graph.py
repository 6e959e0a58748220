"""The stages and what each reads: declared in the metadata of its notebook, and nowhere else.

A notebook ``NN_name.ipynb`` is a stage; the number is its place in the run and in the report, the
name has letters, digits and underscores (so that Jupyter's ``01_data-Copy1.ipynb`` is no stage).
Its metadata hold, under ``cxr``, what the stage reads, its rows of Table 1, what each preset
changes, and how long the stage takes; each may be left out::

    "cxr": {
     "reads": ["01_data"],
     "rows": [{"id": "binary_cnn", "label": "Binary CNN", "classes": 2, "published": 0.85,
               "group": "published", "place": 1}],
     "presets": {"quick": {"epochs": 3}},
     "seconds": {"standard": 60, "standard mixed_bfloat16": 40, "quick": 5}
    }

A stage that trains may be faster with another ``precision`` than float32: the preset is then followed
by the precision. The ``group`` of a row (see ``GROUPS``; ``ours`` by default) and its ``place`` in the group decide
where it stands in Table 1.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cxr_helpers.system.errors import did_you_mean

STAGE = re.compile(r"[0-9]{2}_[A-Za-z0-9_]+")  # stem of a notebook that is a stage
STANDARD = "standard"  # the preset that changes nothing
DEMO = "demo"  # a first look on phantoms
GROUPS = ("published", "ours", "baseline", "anomaly")  # of rows, in the order of Table 1
# Of a declaration, with their types.
KEYS = {"reads": list, "rows": list, "presets": dict, "seconds": dict}
ROW_KEYS = {  # with their types, and these in words
    **dict.fromkeys(("id", "label"), (str, "a text")),
    "published": (int | float | None, "a number"),
    "place": (int | float, "a number"),
    **dict.fromkeys(("retrained", "optional"), (bool, "true or false")),
}


@dataclass(frozen=True)
class Row:
    """A row of Table 1.

    Attributes
    ----------
    id : str
        Its name in the result files, such as ``"binary_cnn"``.
    label : str
        Its name in the table.
    classes : int
        2 for normal or pneumonia, 3 for normal, bacterial or viral.
    published : float or None
        Accuracy in the course report (Deep Learning course, BIU 2024, Table 1).
    retrained : bool
        Whether another seed of ``--seeds`` trains it again; otherwise it has no spread.
    optional : bool
        Whether it is scored only if a parameter asks for it.
    """

    id: str
    label: str
    classes: int
    published: float | None = None
    retrained: bool = True
    optional: bool = False


@dataclass(frozen=True)
class StageSpec:
    """The declaration of one stage.

    Attributes
    ----------
    name : str
        Stem of the notebook, such as ``"02_binary"``.
    notebook : Path
    reads : tuple of str
        Names of the stages whose artifacts it reads.
    rows : tuple of (group, place, Row)
        Rows of Table 1 that it scores.
    presets : mapping of preset to parameter values
    seconds : mapping of preset to float
        How long it took where it was measured, see ``forecast``.
    """

    name: str
    notebook: Path
    reads: tuple[str, ...] = ()
    rows: tuple[tuple[str, int, Row], ...] = ()
    presets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def captions(self) -> Path:
        """The file of the notebook's captions and sentences, see ``figures.captions``."""
        return self.notebook.parent / "captions" / f"{self.name}.toml"


class Graph(Mapping[str, StageSpec]):
    """The stages by name, in the order in which they run.

    Parameters
    ----------
    specs : iterable of StageSpec

    Raises
    ------
    ValueError
        If a stage reads one that does not come before it, or two rows have the same id.
    """

    def __init__(self, specs: Iterable[StageSpec]) -> None:
        self._specs = {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}
        seen: dict[str, str] = {}
        for spec in self._specs.values():
            for earlier in spec.reads:
                if earlier not in self._specs or earlier >= spec.name:
                    hint = did_you_mean(earlier, [s for s in self._specs if s < spec.name])
                    raise ValueError(
                        f"{spec.notebook.name} reads {earlier!r}, which is not an earlier stage{hint}"
                    )
            for _, _, row in spec.rows:
                if row.id in seen:
                    raise ValueError(
                        f"{spec.notebook.name} declares the row {row.id!r} of Table 1, which "
                        f"{seen[row.id]} also declares: give each row its own id"
                    )
                seen[row.id] = spec.notebook.name

    def __getitem__(self, name: str) -> StageSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    @property
    def notebooks(self) -> dict[str, Path]:
        """The notebook of each stage."""
        return {name: spec.notebook for name, spec in self.items()}

    @property
    def rows(self) -> list[Row]:
        """All rows of Table 1 that notebooks declare, in its order."""
        return self.rows_with(())

    def rows_with(self, further: Iterable[Row]) -> list[Row]:
        """Return all rows of Table 1, in its order, with some further ones after those of ours."""
        entries = [entry for spec in self._specs.values() for entry in spec.rows]
        entries += [(GROUPS[1], math.inf, row) for row in further]
        return [row for _, _, row in sorted(entries, key=lambda e: (GROUPS.index(e[0]), e[1]))]

    @property
    def groups(self) -> dict[str, str]:
        """The group of each row of Table 1 that a notebook declares, by the row's id."""
        return {row.id: group for spec in self._specs.values() for group, _, row in spec.rows}

    @property
    def retrained(self) -> list[str]:
        """The stages that ``--seeds`` runs again, in order.

        They have a row that another seed changes, or such a stage reads them. The first stage is
        not among them: all seeds share its data and splits.
        """
        trained = {n for n, spec in self.items() if any(row.retrained for _, _, row in spec.rows)}
        again = trained | self.upstream(trained)
        return [name for name in list(self)[1:] if name in again]

    def upstream(self, names: Iterable[str]) -> set[str]:
        """Return the stages that the named stages read, directly or through others."""
        earlier: set[str] = set()
        for name in names:
            earlier |= {*self[name].reads, *self.upstream(self[name].reads)}
        return earlier

    @property
    def presets(self) -> dict[str, dict[str, Mapping[str, object]]]:
        """What each preset changes, by preset and stage. ``standard`` comes first."""
        presets: dict[str, dict] = {STANDARD: {}}
        for name, spec in self.items():
            for preset, values in spec.presets.items():
                presets.setdefault(preset, {})[name] = values
        return presets


def load(folder: Path) -> Graph:
    """Return the graph that the notebooks of a folder declare.

    Raises
    ------
    ValueError
        If there is no stage, a file is not a notebook, or a declaration is not as described above;
        the message names the file.
    """
    notebooks = [path for path in sorted(folder.glob("*.ipynb")) if STAGE.fullmatch(path.stem)]
    if not notebooks:
        raise ValueError(f"{folder.name} holds no notebook with a name like 01_data.ipynb")
    return Graph(map(_spec, notebooks))


@cache
def default() -> Graph:
    """Return the graph of this project's notebooks, of an installed package of those beside it."""
    project = Path(__file__).resolve().parents[2] / "notebooks"
    return load(project if project.is_dir() else Path.cwd())


def _spec(path: Path) -> StageSpec:
    """Return the declaration of a notebook."""
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        declared = metadata.get("cxr", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is not a complete notebook: {error}") from None
    try:
        _check_keys(declared, KEYS)
        for key, kind in KEYS.items():
            if not isinstance(declared.get(key, kind()), kind):
                raise ValueError(f"{key!r} is not a {kind.__name__}")
        if not all(isinstance(name, str) for name in declared.get("reads", ())):
            raise ValueError("'reads' is not a list of names of stages")
        if not all(isinstance(values, dict) for values in declared.get("presets", {}).values()):
            raise ValueError("a preset is not a mapping of parameters to values")
        if not all(isinstance(n, int | float) for n in declared.get("seconds", {}).values()):
            raise ValueError("'seconds' is not a mapping of presets to numbers")
        return StageSpec(
            path.stem,
            path,
            reads=tuple(declared.get("reads", ())),
            rows=tuple(_row(row, place) for place, row in enumerate(declared.get("rows", ()))),
            presets=declared.get("presets", {}),
            seconds=declared.get("seconds", {}),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path.name}: its declaration (metadata, 'cxr') is not valid: {error}"
        ) from None


def _row(declared: Mapping, number: int) -> tuple[str, int, Row]:
    """Return group, place and content of a declared row."""
    names = [each.name for each in dataclasses.fields(Row)]
    _check_keys(declared, (*names, "group", "place"))
    values = {"group": "ours", "place": 100 + number, **declared}
    if missing := [name for name in names[:3] if name not in values]:
        raise ValueError(f"a row has no {missing[0]!r}")
    for key, (kind, words) in ROW_KEYS.items():
        if key in values and not isinstance(values[key], kind):
            raise ValueError(f"{key} of row {values['id']!r} is {values[key]!r}, not {words}")
    if values["group"] not in GROUPS:
        raise ValueError(f"group {values['group']!r} is not one of {', '.join(GROUPS)}")
    if values["classes"] not in (2, 3):
        raise ValueError(f"classes of row {values['id']!r} is {values['classes']!r}, not 2 or 3")
    return values.pop("group"), values.pop("place"), Row(**values)


def _check_keys(values: Mapping, known: Iterable[str]) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{values!r} is not a mapping")
    known = list(known)
    for name in values:
        if name not in known:
            raise ValueError(f"unknown key {name!r}{did_you_mean(name, known)}")

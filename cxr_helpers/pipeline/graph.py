"""The stages and what each reads: declared in the metadata of its notebook, and only there.

A notebook ``NN_name.ipynb`` is a stage; the number is its place in the run and in the report.
Its metadata hold, under ``cxr``, what the stage reads, its rows of Table 1 and what each preset
changes::

    "cxr": {
     "reads": ["01_data"],
     "rows": [{"id": "binary_cnn", "label": "Binary CNN", "classes": 2, "published": 0.85,
               "group": "published", "place": 1}],
     "presets": {"quick": {"epochs": 3}}
    }
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATTERN = "[0-9][0-9]_*.ipynb"
STANDARD = "standard"  # the preset that changes nothing
GROUPS = ("published", "ours", "baseline", "anomaly")  # of rows, in the order of Table 1


@dataclass(frozen=True)
class Row:
    """A row of Table 1.

    Attributes
    ----------
    id : str
        Its name in the result files, such as ``"binary_cnn"``.
    label : str
        What the table calls it.
    classes : int
        2 for normal or pneumonia, 3 for normal, bacterial or viral.
    published : float or None
        Accuracy in the course report (Deep Learning course, BIU 2024, Table 1).
    retrained : bool
        Whether another seed of ``--seeds`` trains it again; otherwise it has no spread.
    """

    id: str
    label: str
    classes: int
    published: float | None = None
    retrained: bool = True


@dataclass(frozen=True)
class StageSpec:
    """What is declared of one stage.

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
    """

    name: str
    notebook: Path
    reads: tuple[str, ...] = ()
    rows: tuple[tuple[str, int, Row], ...] = ()
    presets: Mapping[str, Mapping[str, object]] | None = None


class Graph(Mapping[str, StageSpec]):
    """The stages by name, in their order.

    Parameters
    ----------
    specs : iterable of StageSpec

    Raises
    ------
    ValueError
        If a stage reads one that does not come before it, or two rows have one id.
    """

    def __init__(self, specs: Iterable[StageSpec]) -> None:
        self._specs = {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}
        for spec in self._specs.values():
            for earlier in spec.reads:
                if earlier not in self._specs or earlier >= spec.name:
                    raise ValueError(
                        f"{spec.notebook.name} reads {earlier}, which is no stage before it"
                    )
        ids = [row.id for row in self.rows]
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            raise ValueError(f"row {twice[0]!r} of Table 1 is declared twice")

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
        """All rows of Table 1, in its order."""
        found = [entry for spec in self._specs.values() for entry in spec.rows]
        return [row for _, _, row in sorted(found, key=lambda e: (GROUPS.index(e[0]), e[1]))]

    @property
    def retrained(self) -> list[str]:
        """The stages that ``--seeds`` runs again: those with a row that another seed changes."""
        return [
            name for name, spec in self.items() if any(row.retrained for _, _, row in spec.rows)
        ]

    def upstream(self, names: Iterable[str]) -> set[str]:
        """Return the stages that some stages read, directly or through others."""
        found: set[str] = set()
        for name in names:
            found |= {*self[name].reads, *self.upstream(self[name].reads)}
        return found

    @property
    def presets(self) -> dict[str, dict[str, Mapping[str, object]]]:
        """Presets by name: what each changes, by stage. ``standard`` comes first."""
        found: dict[str, dict] = {STANDARD: {}}
        for name, spec in self.items():
            for preset, values in (spec.presets or {}).items():
                found.setdefault(preset, {})[name] = values
        return found


def load(folder: Path) -> Graph:
    """Return the graph that the notebooks of a folder declare.

    Raises
    ------
    ValueError
        If there is no stage, a file is no notebook, or its declaration is not as described above;
        the message names the file.
    """
    specs = [_spec(path) for path in sorted(folder.glob(PATTERN))]
    if not specs:
        raise ValueError(f"{folder.name} holds no notebook named like 01_data.ipynb")
    return Graph(specs)


@cache
def default() -> Graph:
    """Return the graph of this project's notebooks."""
    beside = Path(__file__).resolve().parents[2] / "notebooks"
    return load(
        beside if beside.is_dir() else Path.cwd()
    )  # an installed package has none beside it


def _spec(path: Path) -> StageSpec:
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("cxr", {})
        rows = []
        for number, given in enumerate(declared.get("rows", [])):
            fields = dict(given)
            group, place = fields.pop("group", "ours"), fields.pop("place", 100 + number)
            if group not in GROUPS:
                raise ValueError(f"group {group!r} is not one of {', '.join(GROUPS)}")
            rows.append((group, place, Row(**fields)))
        return StageSpec(
            path.stem,
            path,
            tuple(declared.get("reads", ())),
            tuple(rows),
            declared.get("presets", {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path.name}: its declaration (metadata, cxr) is not valid: {error}"
        ) from None

"""Labels of test images, withheld until a notebook cell declares an evaluation."""

from __future__ import annotations

import re
import sys

import pandas as pd

# Columns that do not reveal the class. All others are withheld: file names, patient groups and
# severity do.
_SHOWN = re.compile(r"split|width|height|mode|(border|marker)_\w+")


class LabelsWithheld(RuntimeError):
    """Labels of test images were read outside a declared evaluation."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} of test images is withheld: read it in a cell tagged `evaluation` that "
            "begins with `radiographs.evaluation()` (in a program: `with radiographs.evaluation():`)"
        )


class Evaluation:
    """Whether the labels of test images can be read at present."""

    def __init__(self) -> None:
        self._cell: int | None = None
        self._contexts = 0

    def declare(self) -> Evaluation:
        """Allow them until the running notebook cell, or the context that this opens, ends."""
        self._cell = _running_cell()
        return self

    def __enter__(self) -> None:
        self._contexts += 1

    def __exit__(self, *_) -> None:
        self._contexts -= 1

    @property
    def declared(self) -> bool:
        """Whether an evaluation is declared."""
        return self._contexts > 0 or (self._cell is not None and self._cell == _running_cell())

    def visible(self, index: pd.DataFrame) -> pd.DataFrame:
        """Return the visible columns of an index: all, or those that do not reveal the class.

        Parameters
        ----------
        index : pandas.DataFrame
            One row per image, with the column ``split``.

        Returns
        -------
        pandas.DataFrame
            The index itself where an evaluation is declared or no image is in test. Otherwise a
            copy without labels, which raises ``LabelsWithheld`` for any other column.
        """
        if self.declared or not (index["split"] == "test").any():
            return index
        return WithoutLabels(index[[name for name in index if _SHOWN.fullmatch(name)]])


class WithoutLabels(pd.DataFrame):
    """An index without labels, which raises ``LabelsWithheld`` when one is read."""

    @property
    def _constructor(self) -> type:
        return WithoutLabels

    def __getitem__(self, key):
        for name in key if isinstance(key, list) else [key]:
            if isinstance(name, str) and name not in self.columns:
                raise LabelsWithheld(name)
        return super().__getitem__(key)


def _running_cell() -> int | None:
    """Return the number of the notebook cell that is running; None outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell and shell.execution_count

"""The labels of the test images: withheld until a notebook cell declares that it evaluates."""

from __future__ import annotations

import re
import sys

import pandas as pd

# What is known of an image before its class: all else (names of files, patient groups, severity)
# gives the class away, so a column that is not listed here is withheld.
_SHOWN = re.compile(r"split|width|height|mode|(frame|border|marker)_\w+")


class LabelsWithheld(RuntimeError):
    """Labels of test images were asked for outside a declared evaluation."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} of test images is withheld: read it in a cell tagged `evaluation` that "
            "begins with `radiographs.evaluation()` (in a program: `with radiographs.evaluation():`)"
        )


class Evaluation:
    """Whether the labels of test images may be read at this moment."""

    def __init__(self) -> None:
        self._cell: int | None = None
        self._contexts = 0

    def declare(self) -> Evaluation:
        """Allow them until the running notebook cell ends, or the context that this opens."""
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
        """Return what may be seen of some images: all, or no column that tells their class.

        Parameters
        ----------
        index : pandas.DataFrame
            A row an image; ``split`` says which are test images.

        Returns
        -------
        pandas.DataFrame
            The index itself where an evaluation is declared or none of the images is in test.
            Otherwise a copy without labels: asked for another column, it raises
            ``LabelsWithheld``.
        """
        if self.declared or not (index["split"] == "test").any():
            return index
        return WithoutLabels(index[[name for name in index if _SHOWN.fullmatch(name)]])


class WithoutLabels(pd.DataFrame):
    """An index without labels, which says so when it is asked for one."""

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

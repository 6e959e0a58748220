"""Merge executed notebooks into one; refuse those that failed or were not run to the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from report.errors import ReportError


def merge(notebooks: Sequence[Path]) -> NotebookNode:
    """Return one notebook with the cells of all notebooks, in order.

    Each cell's id is prefixed by its notebook's stem, which is also kept under
    ``metadata.notebook``; papermill's timings are dropped.

    Parameters
    ----------
    notebooks : sequence of Path
        Executed notebooks with distinct stems.

    Returns
    -------
    nbformat.NotebookNode

    Raises
    ------
    ReportError
        If there is no notebook, two share a stem, or a cell failed or was not run;
        the message names notebook and cell.
    """
    stems = [path.stem for path in notebooks]
    if not stems or len(set(stems)) < len(stems):
        raise ReportError(f"notebooks {stems}: expected at least one, each stem once")
    merged = nbformat.v4.new_notebook()
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        for number, cell in enumerate(notebook.cells, start=1):
            check_cell(cell, where=f"{path.name}, cell {number}")
            cell.id = f"{path.stem}-{cell.get('id', number)}"
            cell.metadata.pop("papermill", None)
            cell.metadata.pop("execution", None)
            cell.metadata["notebook"] = path.stem
            merged.cells.append(cell)
    return merged


def check_cell(cell: NotebookNode, *, where: str) -> None:
    """Raise ReportError if a code cell failed or was not executed."""
    if cell.cell_type != "code" or not cell.source.strip():
        return
    for output in cell.outputs:
        if output.output_type == "error":
            raise ReportError(
                f"{where} holds the error {output.ename}: {output.evalue}; expected a clean run"
            )
    if cell.execution_count is None:
        raise ReportError(f"{where} was not executed; expected a notebook run to its end")

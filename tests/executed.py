"""A notebook of a few cells, executed as the stage 01_data."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from cxr_helpers.pipeline import notebooks
from cxr_helpers.pipeline.graph import Graph, StageSpec
from cxr_helpers.pipeline.runs import Run

BEGIN = """
from cxr_helpers.pipeline.stages import Stage
stage = Stage("01_data", run_dir=run_dir)
"""


def write_notebook(folder, *cells, kernel, parameters=True):
    """Write ``folder/01_data.ipynb``, with a parameters cell if need be."""
    tagged = new_code_cell('run_dir: str = ""', metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[*[tagged][:parameters], *map(new_code_cell, cells)])
    if kernel:
        book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(book, folder / "01_data.ipynb")


def run_of(folder):
    """Return the run ``folder/run``, whose only stage is ``folder/01_data.ipynb``."""
    return Run(folder / "run", Graph([StageSpec("01_data", folder / "01_data.ipynb")]))


def execute(folder, *cells, kernel="python3", **options):
    """Execute a notebook of these cells, after one that opens the stage.

    ``options`` are those of ``notebooks.execute``.

    Returns
    -------
    executed : Path
    lines : list of str
        Of progress.
    left : list of str
        Names of the notebooks in the run.
    """
    write_notebook(folder, BEGIN, *cells, kernel=kernel)
    run, lines = run_of(folder), []
    parameters = {"run_dir": str(run.folder)}
    executed = notebooks.execute(run, "01_data", parameters=parameters, log=lines.append, **options)
    return executed, lines, sorted(p.name for p in executed.parent.glob("*.ipynb"))

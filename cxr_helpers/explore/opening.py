"""Open a finished run in JupyterLab."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from cxr_helpers.pipeline import classifiers
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import errors, files

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOK = "explore.ipynb"
STAGES = (*classifiers.STAGES, "05_knn")  # that a run must have


def notebook(run: Run) -> Path:
    """Return the notebook of a run that explores it; the project's is copied there at first."""
    path = run.folder / NOTEBOOK
    if not path.exists():
        book = json.loads((PROJECT / "notebooks" / NOTEBOOK).read_text(encoding="utf-8"))
        for cell in book["cells"]:
            if "parameters" in cell["metadata"].get("tags", []):
                cell["source"] = 'run_dir: str = "."  # folder of the run'
        files.write_text(path, json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    return path


def open_in_jupyterlab(run: Run) -> int:
    """Start JupyterLab with the notebook of a run; return its exit code when it ends.

    Raises
    ------
    Refused
        If JupyterLab is not installed.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise errors.Refused(6, "JupyterLab is not installed: `pip install jupyterlab`")
    path = notebook(run)
    command = [sys.executable, "-m", "jupyterlab", path.name]
    if getattr(os, "geteuid", lambda: 1)() == 0:
        command.append("--allow-root")  # it listens to this machine only, and asks for a token
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, cwd=path.parent, env=environment) as lab:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # JupyterLab asks whether to stop
            return lab.wait()
        except BaseException:
            lab.terminate()
            raise

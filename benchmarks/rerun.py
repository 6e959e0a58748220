"""Time a run that is repeated after changes that decide no result, beside the first run.

    uv run benchmarks/rerun.py                       # the default report, on phantoms
    uv run benchmarks/rerun.py --preset quick        # any options of run_all.py

In a copy of the project the report is made once, from nothing. Then a Markdown cell, a caption, a
colour of the figures' style and a module that draws figures are changed, and the same command is
run again: no training may be repeated, and every artifact that a stage declares must be equal, by
SHA-256.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cxr_helpers.pipeline import graph
from cxr_helpers.pipeline.runs import Run

ROOT = Path(__file__).resolve().parent.parent
# File, what is replaced in it, and by what: a Markdown cell, a caption, a colour, a module.
CHANGES = (
    ("notebooks/02_binary.ipynb", "Not for clinical use", "Never for clinical use"),
    ("notebooks/captions/04_autoencoder.toml", "Learning curve", "Changed learning curve"),
    ("cxr_helpers/figures/report.mplstyle", "grid.color: dddddd", "grid.color: cccccc"),
    ("cxr_helpers/figures/charts.py", '"""', '"""Changed. '),
)


def main() -> None:
    """Run, change, run again; print seconds by stage; exit with 1 if a result was made again."""
    with tempfile.TemporaryDirectory(prefix="cxr-rerun-") as folder:
        project = Path(folder) / "project"
        left_out = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__")
        shutil.copytree(ROOT, project, ignore=left_out)
        first, _, before = run(project)
        change(project)
        again, text, after = run(project)
    trained = [line for line in text.splitlines() if "· epoch " in line]
    differs = [
        name for name in before["outputs"] if after["outputs"][name] != before["outputs"][name]
    ]
    print(f"{'':20}{'first':>10}{'again':>10}  seconds")
    for stage in graph.default():
        print(f"{stage:20}{before['seconds'][stage]:10.1f}{after['seconds'][stage]:10.1f}")
    print(f"{'whole command':20}{first:10.1f}{again:10.1f}  ratio {first / again:.1f}")
    print(
        f"{len(trained)} epochs trained again; artifacts of {len(differs)} stages differ {differs}"
    )
    sys.exit(bool(trained or differs))


def run(project: Path) -> tuple[float, str, dict]:
    """Run all stages; return the seconds, the output, and what each stage declared and took."""
    start = time.monotonic()
    command = [sys.executable, "run_all.py", *sys.argv[1:]]
    done = subprocess.run(command, cwd=project, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the run ended with exit code {done.returncode}:\n{done.stderr}")
    seconds = time.monotonic() - start
    (table,) = (project / "report" / "build").glob("*/results.csv")
    made = Run(table.parent)
    outputs = {name: made.declared(name)["outputs"] for name in made.graph}
    took = {name: made.manifest(name)["seconds"] for name in made.graph}
    return seconds, done.stderr, {"outputs": outputs, "seconds": took}


def change(project: Path) -> None:
    """Change a Markdown cell, a caption, a colour and a module that draws figures."""
    for name, old, new in CHANGES:
        text = (project / name).read_text(encoding="utf-8")
        if old not in text:
            sys.exit(f"{name} has no {old!r} to change")
        (project / name).write_text(text.replace(old, new, 1), encoding="utf-8")


if __name__ == "__main__":
    main()

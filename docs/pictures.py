"""Make the pictures of the README from a finished run on phantoms.

    uv run run_all.py && uv run docs/pictures.py report/build/phantom-demo

The first page is drawn by pdftoppm (poppler); the figures are those of the report.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cxr_helpers.pipeline import results  # noqa: E402
from cxr_helpers.pipeline.runs import Run  # noqa: E402
from report import contents  # noqa: E402

FOLDER = ROOT / "docs" / "pictures"


def forest(run: Run) -> bytes:
    """Return the figure of the title page as PNG."""
    scores = results.collect(run)
    figure = contents.forest(scores, results.rows(run), run.graph.groups, synthetic=True)
    return figure.png


def published(run: Run, stage: str, id: str) -> bytes:
    """Return a figure of an executed notebook as PNG."""
    cells = json.loads(run.executed(stage).read_text(encoding="utf-8"))["cells"]
    for output in (output for cell in cells for output in cell.get("outputs", ())):
        if output.get("metadata", {}).get("cxr", {}).get("id") == id:
            return base64.b64decode("".join(output["data"]["image/png"]))
    raise SystemExit(f"{stage} has no figure {id!r}")


def first_page(run: Run) -> bytes:
    """Return the first page of the PDF report as PNG."""
    command = ["pdftoppm", "-r", "70", "-f", "1", "-l", "1", "-png", run.folder / "report.pdf"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def main() -> int:
    """Write the three pictures; print their sizes."""
    run = Run(Path(sys.argv[1]))
    data = json.loads((run.stage("01_data") / "dataset.json").read_text(encoding="utf-8"))
    if not data["synthetic"]:
        raise SystemExit(f"{run.folder} shows images of patients, which are never committed")
    FOLDER.mkdir(exist_ok=True)
    for name, content in {
        "results.png": forest(run),
        "explanations.png": published(run, "07_explainability", "fig-occlusion"),
        "first-page.png": first_page(run),
    }.items():
        (FOLDER / name).write_bytes(content)
        print(f"docs/pictures/{name}: {len(content) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

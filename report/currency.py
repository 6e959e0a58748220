"""Whether the report of a run is up to date: made by the recipe that would be used now."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import digests, environment, files

MANIFEST = "report.manifest.json"
TYPESETTERS = ("nbconvert", "jinja2", "matplotlib", "fonttools", "typst", "pypandoc-binary")
TITLE_PAGE = ("title", "author", "course")
OPTIONS = (*TITLE_PAGE, "no_pdf")


def recipe(run: Run, *, options: Mapping[str, object]) -> dict:
    """Return everything that determines the content and the layout of a report.

    Parameters
    ----------
    run : Run
        A run whose stages are all up to date.
    options : mapping
        Command-line options; those in ``OPTIONS`` and ``seeds`` count.
    """
    here = Path(__file__).parent
    paths = [*here.glob("*.*"), *(here / "notes").glob("*.md"), *(here / "templates").rglob("*.*")]
    paths += (here.parent / "cxr_helpers").rglob("*.py")
    return {
        "stages": {stage: digests.sha256_of_json(run.manifest(stage)) for stage in run.graph},
        "seeds": {
            seed: [
                digests.sha256_of_json(run.seed(seed).manifest(stage))
                for stage in run.graph.retrained
            ]
            for seed in (options.get("seeds") or [])[1:]
        },
        "sources": {
            str(path.relative_to(here.parent)): digests.sha256_of_file(path)
            for path in sorted(paths)
            if path.is_file()
        },
        "rows": [[run.graph.groups[row.id], asdict(row)] for row in run.graph.rows],
        "options": {name: options.get(name) for name in OPTIONS},
        "date": os.environ.get("SOURCE_DATE_EPOCH"),
        "versions": environment.versions(TYPESETTERS),
    }


def is_current(recipe: Mapping, run: Run) -> bool:
    """Return whether a run's report was made by this recipe and its files are unchanged."""
    stored = files.read_json(run.folder / MANIFEST)
    return (
        stored is not None
        and stored.get("recipe") == json.loads(json.dumps(recipe))
        and all(
            (run.folder / name).is_file() and digests.sha256_of_file(run.folder / name) == digest
            for name, digest in stored["files"].items()
        )
    )


def lines_left_out(recipe: Mapping, run: Run) -> dict[str, str]:
    """Return the lines of the run's last title page, by option, that this recipe has none of."""
    before = (files.read_json(run.folder / MANIFEST) or {}).get("recipe", {}).get("options", {})
    lines = {name: before.get(name) for name in TITLE_PAGE}
    return {name: line for name, line in lines.items() if line and not recipe["options"][name]}


def write(recipe: Mapping, run: Run, made: Iterable[Path]) -> None:
    """Record the recipe by which a report was made, and the digests of its files."""
    file_digests = {path.name: digests.sha256_of_file(path) for path in made}
    files.write_json(run.folder / MANIFEST, {"recipe": dict(recipe), "files": file_digests})

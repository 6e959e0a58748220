"""Whether the report of a run is the one that would be made now."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cxr_helpers import atomic, digests, manifests, provenance, results, stages

MANIFEST = "report.manifest.json"
TYPESETTERS = ("nbconvert", "jinja2", "matplotlib", "fonttools", "typst", "pypandoc-binary")
OPTIONS = ("title", "author", "course", "no_pdf")


def recipe(run_dir: Path, *, options: Mapping[str, object]) -> dict:
    """Return all that decides what a report says and how it looks.

    Parameters
    ----------
    run_dir : Path
        A run whose stages are all current.
    options : mapping
        The command line's; those of ``OPTIONS`` count.
    """
    here = Path(__file__).parent
    files = [*here.glob("*.*"), *(here / "templates").rglob("*.*")]
    files += (here.parent / "cxr_helpers").glob("*.py")
    return {
        "stages": {s: digests.of(manifests.read(s, run_dir)) for s in stages.STAGES},
        "seeds": {
            seed: [
                digests.of(manifests.read(stage, run_dir / results.SEEDS / str(seed)))
                for stage in results.ROWS_FROM
            ]
            for seed in (options.get("seeds") or [])[1:]
        },
        "sources": {
            str(path.relative_to(here.parent)): digests.of_file(path)
            for path in sorted(files)
            if path.is_file()
        },
        "options": {name: options.get(name) for name in OPTIONS},
        "date": os.environ.get("SOURCE_DATE_EPOCH"),
        "versions": provenance.versions(TYPESETTERS),
    }


def is_current(recipe: Mapping, run_dir: Path) -> bool:
    """Return whether a run's report was made by this recipe, and its files are whole."""
    stored = atomic.read_json(run_dir / MANIFEST)
    return (
        stored is not None
        and stored.get("recipe") == json.loads(json.dumps(recipe))
        and all(
            (run_dir / name).is_file() and digests.of_file(run_dir / name) == digest
            for name, digest in stored["files"].items()
        )
    )


def write(recipe: Mapping, run_dir: Path, files: Iterable[Path]) -> None:
    """Record by which recipe the files of a report were made."""
    whole = {path.name: digests.of_file(path) for path in files}
    atomic.write_json(run_dir / MANIFEST, {"recipe": dict(recipe), "files": whole})

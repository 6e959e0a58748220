"""Why a stage has to run: its recipe (code, parameters, inputs, versions) now and then."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from cxr_helpers import stages

MANIFEST = "manifest.json"
LIBRARIES = (
    "scipy",
    "seaborn",
    "tensorflow",
    "keras",
    "numpy",
    "scikit-learn",
    "pandas",
    "pillow",
    "imagehash",
    "matplotlib",
)
UNTRACKED = ("run_dir", "cache_dir", "data")  # where things are; contents are tracked instead


def recipe(
    stage: str,
    *,
    notebook: Path,
    parameters: Mapping[str, object],
    run_dir: Path,
    data_fingerprint: str,
) -> dict:
    """Return all that decides what a stage writes.

    Parameters
    ----------
    stage : str
        A key of ``stages.STAGES``.
    notebook : Path
        Its source; the helper modules that it imports, and those they import, count too.
    parameters : mapping
        As they will be injected.
    run_dir : Path
        Where the earlier stages' declarations are.
    data_fingerprint : str
        Of the images' contents; counts for stages that read no other stage.
    """
    inputs = {
        earlier: digest_of(stages.declared(run_dir, earlier)["outputs"])
        if stages.declared(run_dir, earlier)
        else None
        for earlier in stages.STAGES[stage]
    }
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = [[c["cell_type"], "".join(c["source"])] for c in cells]
    package = Path(__file__).parent
    helpers = imported_helpers([s for kind, s in sources if kind == "code"])
    files = [package / f"{name}.py" for name in helpers]
    files += [package / "report.mplstyle"] if "plots" in helpers else []
    return {
        "notebook": digest_of(sources),
        "helpers": {path.stem: stages.file_digest(path) for path in files},
        "parameters": {k: v for k, v in parameters.items() if k not in UNTRACKED},
        "inputs": inputs or {"data": data_fingerprint},
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide the results."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    return found


def imported_helpers(sources: list[str]) -> list[str]:
    """Return the modules of this package that some code imports, directly or through others."""
    package = Path(__file__).parent
    found: set[str] = set()
    waiting = list(sources)
    while waiting:
        new = _helpers_of(waiting.pop()) - found
        found |= new
        waiting += [(package / f"{name}.py").read_text(encoding="utf-8") for name in new]
    return sorted(found)


def _helpers_of(source: str) -> set[str]:
    plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%"))
    names = set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.ImportFrom) and node.module == "cxr_helpers":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxr_helpers."):
            names.add(node.module.split(".")[1])
    return names


def digest_of(content: object) -> str:
    """Return the SHA-256 of plain data, the same for equal data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def why_stale(stage: str, wanted: Mapping, run_dir: Path) -> str | None:
    """Return why a stage must run, in a few words; None where its artifacts are current."""
    stored = read(stage, run_dir)
    if stored is None or stages.declared(run_dir, stage) is None:
        return "never finished"
    for part, words in (
        ("parameters", "parameter"),
        ("inputs", "input"),
        ("helpers", "helper"),
        ("versions", "version"),
    ):
        if changed := _changed(stored["recipe"][part], wanted[part]):
            return f"{words} changed: {changed}"
    if stored["recipe"]["notebook"] != wanted["notebook"]:
        return "notebook changed"
    if not (run_dir / "notebooks" / f"{stage}.ipynb").is_file():
        return "executed notebook missing"
    if stored["declared"] != digest_of(stages.declared(run_dir, stage)["outputs"]):
        return "run by hand since"
    if damaged := stages.damaged_output(run_dir, stage):
        return f"artifact changed or missing: {damaged}"
    return None


def _changed(old: Mapping, new: Mapping) -> str:
    names = [n for n in {**old, **new} if old.get(n) != new.get(n)]
    details = [
        f"{n} {old[n]!r} → {new[n]!r}"
        if n in old and n in new and len(repr(old[n]) + repr(new[n])) < 60
        else n
        for n in names
    ]
    return ", ".join(details[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def write(stage: str, recipe: Mapping, run_dir: Path, *, seconds: float) -> None:
    """Record that a stage finished, by which recipe, where and how long it took."""
    stages.write_json(
        stages.stage_folder(run_dir, stage) / MANIFEST,
        {
            "recipe": dict(recipe),
            "declared": digest_of(stages.declared(run_dir, stage)["outputs"]),
            "seconds": round(seconds, 1),
            "machine": {
                "system": f"{platform.system()} {platform.machine()}",
                "cores": os.cpu_count(),
            },
        },
    )


def forget(stage: str, run_dir: Path) -> None:
    """Drop a stage's manifest and declaration: it is about to run again."""
    folder = stages.stage_folder(run_dir, stage)
    for name in (MANIFEST, stages.DECLARED):
        (folder / name).unlink(missing_ok=True)


def read(stage: str, run_dir: Path) -> dict | None:
    """Return a stage's manifest, or None where it never finished under the conductor."""
    try:
        text = (stages.stage_folder(run_dir, stage) / MANIFEST).read_text(encoding="utf-8")
        return json.loads(text)
    except (FileNotFoundError, json.JSONDecodeError):
        return None

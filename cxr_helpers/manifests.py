"""Why a stage has to run: its recipe (code, parameters, inputs, versions) now and then."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cxr_helpers import atomic, provenance, stages

MANIFEST = "manifest.json"
# where things are; contents are tracked instead
UNTRACKED = ("run_dir", "cache_dir", "data", "weights_from")


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
    inputs = {earlier: _outputs_of(run_dir, earlier) for earlier in stages.STAGES[stage]}
    inputs = inputs or {"data": data_fingerprint}
    if trained := parameters.get("weights_from"):
        inputs["weights"] = _outputs_of(Path(str(trained)), stage)
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
        "inputs": inputs,
        "versions": provenance.versions(),
    }


def _outputs_of(run_dir: Path, stage: str) -> str | None:
    """Return a digest of all that a finished stage wrote."""
    declared = stages.declared(run_dir, stage)
    return declared and digest_of(declared["outputs"])


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
    if stored["executed"] != _executed(run_dir, stage):
        return "executed notebook changed or missing"
    if stored["declared"] != _outputs_of(run_dir, stage):
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
    atomic.write_json(
        stages.stage_folder(run_dir, stage) / MANIFEST,
        {
            "recipe": dict(recipe),
            "declared": _outputs_of(run_dir, stage),
            "executed": _executed(run_dir, stage),
            "seconds": round(seconds, 1),
            "machine": provenance.machine(),
        },
    )


def _executed(run_dir: Path, stage: str) -> str | None:
    path = run_dir / "notebooks" / f"{stage}.ipynb"
    return stages.file_digest(path) if path.is_file() else None


def is_whole(stage: str, run_dir: Path) -> bool:
    """Return whether a stage finished under the conductor and all that it wrote is as it was."""
    stored = read(stage, run_dir)
    return (
        stored is not None
        and stages.declared(run_dir, stage) is not None
        and stored["declared"] == _outputs_of(run_dir, stage)
        and stages.damaged_output(run_dir, stage) is None
    )


def changed_input(stage: str, recipe: Mapping, run_dir: Path) -> str | None:
    """Return what of a stage's inputs is not as it was when the recipe was taken, if anything."""
    for earlier in stages.STAGES[stage]:
        if recipe["inputs"][earlier] != _outputs_of(run_dir, earlier):
            return earlier
        if damaged := stages.damaged_output(run_dir, earlier):
            return f"{earlier}/{damaged}"
    return None


def parameters_of(run_dir: Path, known: Mapping[str, Iterable[str]]) -> dict[str, dict]:
    """Return the parameters of a finished run by stage, those that are still known."""
    return {
        stage: {k: v for k, v in read(stage, run_dir)["recipe"]["parameters"].items() if k in names}
        for stage, names in known.items()
    }


def forget(stage: str, run_dir: Path) -> None:
    """Drop a stage's manifest and declaration: it is about to run again."""
    folder = stages.stage_folder(run_dir, stage)
    for name in (MANIFEST, stages.DECLARED):
        (folder / name).unlink(missing_ok=True)


def read(stage: str, run_dir: Path) -> dict | None:
    """Return a stage's manifest, or None where it never finished under the conductor."""
    found = atomic.read_json(stages.stage_folder(run_dir, stage) / MANIFEST)
    return found if found and {"recipe", "declared", "executed"} <= found.keys() else None

"""Why a stage has to run: its recipe (code, parameters, inputs, versions) now and then.

Whether a *training* is repeated is decided by its own key, see ``store``: a stage that runs again
because a figure has changed finds what it computed before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cxr_helpers import atomic, digests, imports, provenance, stages

MANIFEST = "manifest.json"
STYLE = Path(__file__).parent / "report.mplstyle"
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
        Its code cells count, the helper modules that they import, and those these import.
        Markdown is kept apart, as ``prose``: it needs no kernel to be brought up to date.
    parameters : mapping
        As they will be injected.
    run_dir : Path
        Where the earlier stages' declarations are.
    data_fingerprint : str
        Of the images' contents; counts for stages that read no other stage.
    """
    inputs = {earlier: stages.outputs_digest(run_dir, earlier) for earlier in stages.STAGES[stage]}
    inputs = inputs or {"data": data_fingerprint}
    if trained := parameters.get("weights_from"):
        inputs["weights"] = stages.outputs_digest(Path(str(trained)), stage)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [_text_and_tags(cell) for cell in cells if cell["cell_type"] == "code"]
    helpers = imports.helpers_of([text for text, _ in code])
    style = {"report.mplstyle": digests.of_file(STYLE)} if "plots" in helpers else {}
    return {
        "code": digests.of(code),
        "prose": digests.of([[cell["cell_type"], *_text_and_tags(cell)] for cell in cells]),
        "helpers": imports.digest_each(helpers) | style,
        "parameters": {k: v for k, v in parameters.items() if k not in UNTRACKED},
        "inputs": inputs,
        "versions": provenance.versions(),
    }


def _text_and_tags(cell: Mapping) -> tuple[str, list[str]]:
    return "".join(cell["source"]), cell.get("metadata", {}).get("tags", [])


def why_stale(stage: str, wanted: Mapping, run_dir: Path) -> str | None:
    """Return why a stage must run, in a few words; None where its artifacts are current."""
    stored = read(stage, run_dir)
    if stored is None or stages.declared(run_dir, stage) is None:
        return "never finished"
    if set(stored["recipe"]) != set(wanted):
        return "recorded by another version of this project"
    for part, words in (
        ("parameters", "parameter"),
        ("inputs", "input"),
        ("helpers", "helper"),
        ("versions", "version"),
    ):
        if changed := _changed(stored["recipe"][part], wanted[part]):
            return f"{words} changed: {changed}"
    if stored["recipe"]["code"] != wanted["code"]:
        return "code of the notebook changed"
    if stored["executed"] != _executed(run_dir, stage):
        return "executed notebook changed or missing"
    if stored["declared"] != stages.outputs_digest(run_dir, stage):
        return "declaration changed"
    if damaged := stages.damaged_output(run_dir, stage):
        return f"artifact changed or missing: {damaged}"
    return None


def prose_is_behind(stage: str, wanted: Mapping, run_dir: Path) -> bool:
    """Return whether only the Markdown of a current stage's notebook has changed."""
    return read(stage, run_dir)["recipe"]["prose"] != wanted["prose"]


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
            "declared": stages.outputs_digest(run_dir, stage),
            "executed": _executed(run_dir, stage),
            "seconds": round(seconds, 1),
            "machine": provenance.machine(),
        },
    )


def _executed(run_dir: Path, stage: str) -> str | None:
    path = run_dir / "notebooks" / f"{stage}.ipynb"
    return digests.of_file(path) if path.is_file() else None


def is_whole(stage: str, run_dir: Path) -> bool:
    """Return whether a stage finished under the conductor and all that it wrote is as it was."""
    stored = read(stage, run_dir)
    return (
        stored is not None
        and stages.declared(run_dir, stage) is not None
        and stored["declared"] == stages.outputs_digest(run_dir, stage)
        and stages.damaged_output(run_dir, stage) is None
    )


def changed_input(stage: str, recipe: Mapping, run_dir: Path) -> str | None:
    """Return what of a stage's inputs is not as it was when the recipe was taken, if anything."""
    for earlier in stages.STAGES[stage]:
        if recipe["inputs"][earlier] != stages.outputs_digest(run_dir, earlier):
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

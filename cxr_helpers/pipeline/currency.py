"""Why a stage has to run: its recipe (code, parameters, inputs, versions) now and then.

Whether a *training* is repeated is decided by its own key, see ``store``: a stage that runs again
because a figure has changed finds what it computed before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cxr_helpers.pipeline import dependencies
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import digests, environment

STYLE = Path(__file__).parents[1] / "figures" / "report.mplstyle"
# parameters that say where things are; their contents are tracked instead
UNTRACKED = ("run_dir", "cache_dir", "data", "weights_from")


def recipe(
    run: Run, stage: str, *, parameters: Mapping[str, object], data_fingerprint: str
) -> dict:
    """Return everything that decides what a stage writes.

    Parameters
    ----------
    run : Run
        Its graph names the notebook: its code cells count, the helper modules that they import,
        and those these import. All cells together are kept apart, as ``prose``: where only
        Markdown has changed no kernel is needed.
    stage : str
    parameters : mapping
        As they will be injected.
    data_fingerprint : str
        Of the images' contents; counts for stages that read no other stage.
    """
    spec = run.graph[stage]
    inputs = {earlier: run.outputs_digest(earlier) for earlier in spec.reads}
    inputs = inputs or {"data": data_fingerprint}
    if trained := parameters.get("weights_from"):
        inputs["weights"] = Run(Path(str(trained)), run.graph).outputs_digest(stage)
    cells = json.loads(spec.notebook.read_text(encoding="utf-8"))["cells"]
    code = [_text_and_tags(cell) for cell in cells if cell["cell_type"] == "code"]
    helpers = dependencies.modules_of([text for text, _ in code])
    style = {STYLE.name: digests.sha256_of_file(STYLE)} if "figures.charts" in helpers else {}
    return {
        "code": digests.sha256_of_json(code),
        "prose": digests.sha256_of_json(
            [[cell["cell_type"], *_text_and_tags(cell)] for cell in cells]
        ),
        "helpers": dependencies.digest_each(helpers) | style,
        "parameters": {k: v for k, v in parameters.items() if k not in UNTRACKED},
        "inputs": inputs,
        "versions": environment.versions(),
    }


def _text_and_tags(cell: Mapping) -> tuple[str, list[str]]:
    return "".join(cell["source"]), cell.get("metadata", {}).get("tags", [])


def why_stale(run: Run, stage: str, wanted: Mapping) -> str | None:
    """Return why a stage must run, in a few words; None where its artifacts are current."""
    stored = run.manifest(stage)
    if stored is None or run.declared(stage) is None:
        return "never finished"
    if set(stored["recipe"]) != set(wanted) or not run.is_readable(stage):
        return "made by another version of this project"
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
    if stored["executed"] != run.executed_digest(stage):
        return "executed notebook changed or missing"
    if stored["declared"] != run.outputs_digest(stage):
        return "declaration changed"
    if damaged := run.damaged_output(stage):
        return f"artifact changed or missing: {damaged}"
    return None


def markdown_changed(run: Run, stage: str, wanted: Mapping) -> bool:
    """Return whether only the Markdown of a current stage's notebook has changed."""
    return run.manifest(stage)["recipe"]["prose"] != wanted["prose"]


def changed_input(run: Run, stage: str, recipe: Mapping) -> str | None:
    """Return the first input that is no longer as it was when the recipe was taken, if any."""
    for earlier in run.graph[stage].reads:
        if recipe["inputs"][earlier] != run.outputs_digest(earlier):
            return earlier
        if damaged := run.damaged_output(earlier):
            return f"{earlier}/{damaged}"
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

"""Whether a stage is up to date: its recipe (code, parameters, inputs, versions) then and now.

Whether a *training* is repeated depends on a separate key, see ``store``: a stage that runs again
because a figure has changed reads the trainings and predictions that it stored before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cxr_helpers.data import lung_outlines
from cxr_helpers.data.lung_outlines import V7
from cxr_helpers.pipeline import dependencies
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import accelerators, digests, environment

STYLE = Path(__file__).parents[1] / "figures" / "report.mplstyle"
# parameters that hold paths: the contents of the files are tracked instead
UNTRACKED = ("run_dir", "cache_dir", "data", "weights_from")
WEIGHTS, MASKS = "pretrained_weights", "lung_masks"  # the same, but may be set


def recipe(
    run: Run, stage: str, *, parameters: Mapping[str, object], data_fingerprint: str
) -> dict:
    """Return everything that determines what a stage writes.

    Parameters
    ----------
    run : Run
        Its graph names the notebook. The notebook's code cells count, its captions, and the modules
        of this package that they import, directly or through others. The digest of all cells is a separate
        entry, ``prose``: where only Markdown has changed, no kernel is needed.
    stage : str
    parameters : mapping
        As they will be injected into the notebook.
    data_fingerprint : str
        Of the images; counts for stages that read no other stage.
    """
    spec = run.graph[stage]
    inputs = {earlier: run.outputs_digest(earlier) for earlier in spec.reads}
    inputs = inputs or {"data": data_fingerprint}
    if trained := parameters.get("weights_from"):
        inputs["weights"] = Run(Path(str(trained)), run.graph).outputs_digest(stage)
    if file := parameters.get(WEIGHTS):
        inputs[WEIGHTS] = digests.sha256_of_file(Path(str(file)))
    named = {k: v for k, v in parameters.items() if k not in (*UNTRACKED, WEIGHTS)}
    if (masks := parameters.get(MASKS) or V7) != V7:
        inputs[MASKS] = digests.sha256_of_json(
            {
                path.relative_to(masks).as_posix(): digests.sha256_of_file(path)
                for path in lung_outlines.files_of(Path(masks))
            }
        )
        del named[MASKS]
    cells = json.loads(spec.notebook.read_text(encoding="utf-8"))["cells"]
    code = [_text_and_tags(cell) for cell in cells if cell["cell_type"] == "code"]
    helpers = dependencies.modules_of([text for text, _ in code])
    style = {STYLE.name: digests.sha256_of_file(STYLE)} if "figures.appearance" in helpers else {}
    if spec.captions.is_file():
        style[f"captions/{spec.captions.name}"] = digests.sha256_of_file(spec.captions)
    switched_off = {} if accelerators.is_deterministic() else {"deterministic": False}
    return {
        "code": digests.sha256_of_json(code),
        "prose": digests.sha256_of_json(
            [[cell["cell_type"], *_text_and_tags(cell)] for cell in cells]
        ),
        "helpers": dependencies.digest_each(helpers) | style,
        "parameters": named | switched_off,
        "inputs": inputs,
        "versions": environment.versions(),
    }


def _text_and_tags(cell: Mapping) -> tuple[str, list[str]]:
    return "".join(cell["source"]), cell.get("metadata", {}).get("tags", [])


def why_stale(run: Run, stage: str, recipe: Mapping) -> str | None:
    """Return why a stage must run, in a few words; None where it is up to date."""
    stored = run.manifest(stage)
    if stored is None or run.declared(stage) is None:
        return "never finished"
    if set(stored["recipe"]) != set(recipe) or not run.is_readable(stage):
        return "made by another version of this project"
    for part, name in (
        ("parameters", "parameter"),
        ("inputs", "input"),
        ("helpers", "helper"),
        ("versions", "version"),
    ):
        if changed := _changed(stored["recipe"][part], recipe[part]):
            return f"{name} changed: {changed}"
    if stored["recipe"]["code"] != recipe["code"]:
        return "code of the notebook changed"
    if stored["executed"] != run.executed_digest(stage):
        return "executed notebook changed or missing"
    if stored["declared"] != run.outputs_digest(stage):
        return "declaration changed"
    if damaged := run.damaged_output(stage):
        return f"artifact changed or missing: {damaged}"
    if reason := run.declared(stage)["facts"].get("unavailable"):
        return f"tried again: {reason}"
    return None


def markdown_changed(run: Run, stage: str, recipe: Mapping) -> bool:
    """Return whether the Markdown of an up-to-date stage's notebook has changed."""
    return run.manifest(stage)["recipe"]["prose"] != recipe["prose"]


def changed_input(run: Run, stage: str, recipe: Mapping) -> str | None:
    """Return the first input that has changed since the recipe was taken, or None."""
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

"""A task in a process of its own; on workers: tests/test_workers.py."""

import dataclasses
import json
import subprocess
import sys

import pytest
from tiny import HOLD, is_gone, wait_for

from cxr_helpers.pipeline import settings, tasks
from cxr_helpers.pipeline.parameters import read
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.tasks import Task
from cxr_helpers.system import environment
from cxr_helpers.system.errors import Refused


def task_of(project, *chosen, **options):
    """Return the task of some stages of a tiny project."""
    notebooks = project.root / "notebooks"
    schema = {path.stem: read(path) for path in sorted(notebooks.glob("[0-9]*.ipynb"))}
    values = settings.resolve(schema, preset={})
    for own in values.values():
        own["run_dir"] = str(project.run_dir)
    store = project.root / "report" / "build" / ".cache" / "store"
    return Task(
        name="tiny",
        folder=str(project.run_dir),
        values=values,
        chosen=list(chosen),
        fingerprint="phantom",
        store=str(store),
        **options,
    )


def start(project, task, **planted):
    variables = {f"TINY_{stage}": code for stage, code in planted.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "cxr_helpers.pipeline.tasks"],
        cwd=project.root,
        env=dict(**tasks.os.environ, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(json.dumps(dataclasses.asdict(task)), file=process.stdin, flush=True)
    return process


def messages(process):
    with process:
        found = [json.loads(line) for line in process.stdout]
        process.stdin.close()
    return found


def test_task_tells_its_progress_and_its_outcome(project):
    *told, last = messages(start(project, task_of(project, "01_data", "02_binary")))
    outcome = last["outcome"]
    assert outcome["code"] == 0 and outcome["message"] == ""
    assert [(s, status) for s, status, _ in outcome["log"][:2]] == [
        ("01_data", "ran"),
        ("02_binary", "ran"),
    ]
    assert "07_explainability" in outcome["stale"]
    assert [m["stage"] for m in told] == ["01_data", "02_binary"]
    assert told[1]["line"].startswith("02_binary: never finished")
    assert Run(project.run_dir).is_complete("02_binary")


def test_failure_is_an_outcome(project):
    process = start(project, task_of(project, "01_data"), **{"01_data": "raise ValueError('odd')"})
    outcome = messages(process)[-1]["outcome"]
    assert outcome["code"] == 4 and outcome["message"].endswith("ValueError: odd")
    assert process.returncode == 4


def test_error_of_this_project_comes_with_its_traceback(project):
    task = dataclasses.replace(task_of(project, "01_data"), values={})
    outcome = messages(start(project, task))[-1]["outcome"]
    assert outcome["code"] == 1 and "KeyError" in outcome["message"]
    assert "Traceback" in outcome["trace"]


def test_task_ends_with_its_standard_input(project):
    process = start(project, task_of(project, "01_data"), **{"01_data": HOLD})
    child = project.held()
    process.stdin.close()
    outcome = json.loads(process.stdout.readlines()[-1])["outcome"]
    assert outcome["code"] == 143 and process.wait(timeout=30) == 143
    process.stdout.close()
    wait_for(lambda: is_gone(child), within=20)
    assert project.partial() == []


def test_other_versions_than_those_of_the_command_are_refused(tmp_path):
    versions = environment.versions() | {"keras": "0.1"}
    task = Task("x", str(tmp_path), {}, [], "f", str(tmp_path), versions=versions)
    with pytest.raises(Refused, match=r"has keras .*, but the command was started with keras 0\.1"):
        tasks.perform(task, say=lambda *_: None)

"""Which stages run, in a run of three small stages; whole runs are in test_survival."""

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cxr_helpers.pipeline import notebooks, runner
from cxr_helpers.pipeline.graph import Graph, Row, StageSpec
from cxr_helpers.pipeline.runs import DECLARED, FORMAT, Run
from cxr_helpers.system import digests, files
from cxr_helpers.system.errors import Refused

READS = {"01_data": (), "02_binary": ("01_data",), "03_size": ("01_data",)}


@pytest.fixture
def run(tmp_path):
    """Return a run without finished stages; only 02 is trained again with other seeds."""
    return made(tmp_path, READS)


def made(tmp_path, reads_of):
    specs = []
    for name, reads in reads_of.items():
        path = tmp_path / f"{name}.ipynb"
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": "1"}]}))
        rows = (("ours", 1, Row(name, name, 2, retrained=name == "02_binary")),)
        specs.append(StageSpec(name, path, reads=reads, rows=rows))
    return Run(tmp_path / "run", Graph(specs))


class Stages(list):
    """A list with attributes."""


@pytest.fixture
def ran(monkeypatch):
    """Return the list of stages that run: each writes its parameters and copies its notebook.

    Its ``options`` are those with which each was executed.
    """
    stages = Stages()
    stages.options = []

    def execute(run, stage, *, parameters, **options):
        stages.append(stage)
        stages.options.append(options)
        path = run.stage(stage) / "value.txt"
        for folder in (path.parent, run.executed(stage).parent):
            folder.mkdir(parents=True, exist_ok=True)
        path.write_text(str(parameters["number"]))
        outputs = {"value.txt": digests.sha256_of_file(path)}
        content = {"format": FORMAT, "facts": {}, "inputs": {}, "outputs": outputs}
        files.write_json(path.with_name(DECLARED), content)
        run.executed(stage).write_text(run.graph[stage].notebook.read_text())

    monkeypatch.setattr(notebooks, "execute", execute)
    return stages


def update(run, *, chosen=tuple(READS), values=None, say=runner.write_line, **options):
    defaults = {"dry_run": False, "force": False, "only": None, "timeout": None, "jobs": 1}
    log, stale = runner.update(
        run,
        options=argparse.Namespace(**defaults | options),
        values=values or {name: {"number": 1} for name in READS},
        chosen=chosen,
        fingerprint="f",
        store=run.folder / "store",
        say=say,
    )
    return {stage: what for stage, what, _ in log}, stale


def add_markdown(run, stage):
    cells = [{"cell_type": "code", "source": "1"}, {"cell_type": "markdown", "source": "x"}]
    run.graph[stage].notebook.write_text(json.dumps({"cells": cells}))


def test_stages_run_in_their_order_and_once(run, ran):
    assert update(run) == (dict.fromkeys(READS, "ran"), [])
    assert ran == list(READS) and all(map(run.is_complete, READS))
    assert update(run) == (dict.fromkeys(READS, "up to date"), [])
    assert ran == list(READS)


@pytest.mark.parametrize("force", [False, True])
def test_cached_results_are_computed_again_with_force(run, ran, force):
    update(run, force=force, timeout=60)
    assert [(each["recompute"], each["timeout"]) for each in ran.options] == [(force, 60)] * 3


def test_stages_that_do_not_read_each_other_run_at_once(run, ran, monkeypatch):
    """02 and 03 read 01; each begins only when the other one has begun."""
    meet, execute = threading.Barrier(2, timeout=60), notebooks.execute

    def together(run, stage, **options):
        if stage != "01_data":
            meet.wait()
        execute(run, stage, **options)

    monkeypatch.setattr(notebooks, "execute", together)
    assert update(run, jobs=2) == (dict.fromkeys(READS, "ran"), [])
    assert ran[0] == "01_data" and all(map(run.is_complete, READS))


@pytest.fixture
def fails(ran, monkeypatch):
    """Return a function that lets 02 fail, and 03, if at all, once the runner has said that it runs."""
    go_on, lines, execute = threading.Event(), [], notebooks.execute

    def plant(first, second=None):
        """Return the runner's lines, and the function that receives them."""

        def execute_or_fail(run, stage, **options):
            if stage == "02_binary":
                raise first
            if stage == "03_size":
                assert go_on.wait(60)
                if second:
                    raise second
            execute(run, stage, **options)

        monkeypatch.setattr(notebooks, "execute", execute_or_fail)
        return lines, say

    def say(_, line):
        lines.append(line)
        if "03_size: still running" in line:
            go_on.set()

    return plant


def test_stage_beside_a_failing_one_is_completed_and_no_other_begins(ran, fails, tmp_path):
    reads = READS | {"04_third": ("01_data",), "05_last": ("03_size",)}
    run, values = made(tmp_path, reads), {name: {"number": 1} for name in reads}
    lines, say = fails(Refused(4, "02_binary.ipynb, cell 3: planted"))
    with pytest.raises(Refused, match="planted"):
        update(run, jobs=2, say=say, values=values, chosen=list(reads))
    assert lines[-2:] == [
        "failed: 02_binary.ipynb, cell 3: planted",
        "03_size: still running; the results will be kept",
    ]
    assert run.is_complete("03_size") and ran == ["01_data", "03_size"]


def test_stage_beside_one_that_fails_by_a_bug_is_completed(run, fails):
    _, say = fails(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        update(run, jobs=2, say=say)
    assert run.is_complete("03_size")


@pytest.mark.parametrize("second", [Refused(4, "planted second"), TypeError("planted second")])
def test_second_failure_is_reported_too(run, fails, second):
    """Of a bug, with its traceback."""
    lines, say = fails(Refused(4, "planted first"), second)
    with pytest.raises(Refused, match="planted first"):
        update(run, jobs=2, say=say)
    further = lines[lines.index("also failed: planted second") + 1 :]
    assert ["Traceback" in line for line in further] == [True] * isinstance(second, TypeError)


def test_changed_parameter_reruns_its_stage_and_those_that_read_it(run, ran):
    update(run)
    ran.clear()
    values = {name: {"number": 1 + (name == "01_data")} for name in READS}
    assert update(run, values=values)[0] == dict.fromkeys(READS, "ran")
    values["03_size"] = {"number": 3}
    update(run, values=values)
    assert ran == [*READS, "03_size"]


def test_dry_run_names_the_reason_and_runs_nothing(run, ran):
    assert update(run, dry_run=True)[0] == dict.fromkeys(READS, "never finished")
    assert ran == [] and not run.folder.exists()
    update(run)
    ran.clear()
    values = {name: {"number": 1 + (name == "01_data")} for name in READS}
    log, _ = update(run, values=values, dry_run=True)
    assert log["01_data"] == "parameter changed: number 1 → 2"
    assert log["02_binary"] == log["03_size"] == "only if 01_data changes"
    assert ran == []


def test_dry_run_of_some_stages_says_what_becomes_of_these(run, ran):
    """Stages between or after them are up to date: the command would not run them."""
    update(run)
    ran.clear()
    values = {name: {"number": 1 + (name == "01_data")} for name in READS}
    log, stale = update(run, values=values, chosen=["01_data"], dry_run=True)
    assert log["01_data"] == "parameter changed: number 1 → 2" and stale == []
    assert log["02_binary"] == log["03_size"] == "up to date" and ran == []


def test_stage_that_was_not_chosen_is_skipped(run, ran):
    log, stale = update(run, chosen=["01_data", "02_binary"])
    assert log["03_size"] == "skipped: never finished" and stale == ["03_size"]
    assert ran == ["01_data", "02_binary"]


def test_stage_that_reads_a_stale_one_is_refused(run, ran):
    with pytest.raises(Refused, match=r"01_data is not up to date \(never finished\)") as error:
        update(run, chosen=["02_binary"])
    assert error.value.code == 2 and ran == []


@pytest.mark.parametrize("option", [{"force": True}, {"only": ["02"]}])
def test_requested_stage_runs_though_it_is_up_to_date(run, ran, option):
    update(run)
    ran.clear()
    update(run, chosen=["02_binary"], **option)
    assert ran == ["02_binary"]


def test_changed_markdown_is_copied_without_a_run(run, ran, monkeypatch):
    copied = []
    monkeypatch.setattr(notebooks, "update_markdown", lambda *paths: copied.append(paths))
    update(run)
    ran.clear()
    add_markdown(run, "02_binary")
    assert update(run, dry_run=True)[0]["02_binary"] == "text changed" and copied == []
    log, stale = update(run, chosen=["03_size"])
    assert log["02_binary"] == "skipped: text changed" and stale == ["02_binary"]
    assert update(run)[0]["02_binary"] == "text changed"
    assert copied == [(run.graph["02_binary"].notebook, run.executed("02_binary"))]
    assert update(run)[0]["02_binary"] == "up to date" and ran == []


def test_report_is_moved_aside_before_a_stage_runs(run, ran):
    run.folder.mkdir()
    (run.folder / "report.html").write_text("old")
    update(run)
    assert not (run.folder / "report.html").exists()
    assert (run.folder / "previous" / "report.html").read_text() == "old"


def test_stages_of_another_version_run_again(run, ran):
    update(run)
    ran.clear()
    for name in READS:
        path = run.stage(name) / DECLARED
        content = files.read_json(path)
        del content["format"]
        files.write_json(path, content)
    reason = "made by another version of this project"
    assert update(run, dry_run=True)[0] == dict.fromkeys(READS, reason)
    assert update(run)[0] == dict.fromkeys(READS, "ran") and ran == list(READS)


def test_retraining_shares_the_first_stage_and_sets_the_seed(run, ran):
    values = {name: {"number": 1, "seed": 0} for name in READS}
    values["03_size"] = {"number": 1}
    update(run, values=values)
    ran.clear()
    seen = []

    def again(other, *, values, chosen, say):
        seen.append((other.folder, values, list(chosen)))
        return [("01_data", "up to date", 0.0), ("02_binary", "ran", 1.0)], []

    log = runner.retrain(run, 7, values=values, update=again)
    assert log == [("02_binary, seed 7", "ran", 1.0)]
    ((folder, changed, chosen),) = seen
    assert folder == run.seed(7).folder and chosen == ["02_binary"]
    seeds = {name: own.get("seed") for name, own in changed.items()}
    assert seeds == {"01_data": 0, "02_binary": 7, "03_size": None}
    assert {own["run_dir"] for own in changed.values()} == {str(folder)}
    assert run.seed(7).declared("01_data") == run.declared("01_data")


# At each of the first lines that wait for a stage, one after the other, a signal arrives. Where a
# stage's thread could not end, the program would wait for it without end.
SIGNALLED = """
import signal, sys, threading
from types import SimpleNamespace
from cxr_helpers.pipeline import kernels, running
from cxr_helpers.system.signals import Stopped, stoppable

FILES = ("running.py", "_base.py", "threading.py", "thread.py", "signals.py")
running.POLL = 0.01
signal.signal(signal.SIGINT, signal.default_int_handler)

def stopped_at(line, fails):
    over, seen = threading.Event(), []
    def trace(frame, event, _):
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        seen.append(frame)
        if len(seen) == line:
            signal.raise_signal(signal.SIGINT)
        return trace
    def execute(group):
        over.wait()
        return 1.0
    def fail(group):
        raise ValueError
    try:
        with stoppable(), running.Running(
            2, fork_server=SimpleNamespace(end=over.set), say=lambda *_: None
        ) as stages:
            sys.settrace(trace)
            stages.start("a", execute)
            if fails:
                stages.start("b", fail)
            stages.next()
    except Stopped:
        return True
    finally:
        sys.settrace(None)

for line in range(1, 401):
    for fails in (False, True):
        assert stopped_at(line, fails), line
print("ended")
"""


def test_signal_at_any_moment_ends_the_stages_that_run():
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED],
        cwd=Path(runner.__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "ended\n", done.stderr

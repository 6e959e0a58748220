"""The earlier stages of a notebook that is opened where they were never made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cxr_helpers.pipeline import forecast
from cxr_helpers.pipeline.runs import DECLARED, Run
from cxr_helpers.system.errors import Refused

PRESET = "quick"
PROJECT = Path(__file__).resolve().parents[2]
STAGE_BEGINS = re.compile(r"[0-9]{2}_\w+: ")  # in a line of the runner


def quick_run(run: Run, stages: Sequence[str], *, missing: Sequence[str]) -> Run:
    """Return a run on phantoms in which some stages are finished; make what it lacks.

    It is the run of ``run_all.py --preset quick``, made by that command in a process of its own. One
    line states beforehand what is made and about how long it takes; the runner's line of each stage
    follows.

    Parameters
    ----------
    run : Run
        The run that lacks a stage; it is not changed.
    stages : sequence of str
        The stages to be read.
    missing : sequence of str
        Those that ``run`` lacks.

    Raises
    ------
    Refused
        If a stage fails, with the runner's message.
    """
    quick = Run(PROJECT / "report" / "build" / f"phantom-{PRESET}", run.graph)
    needed = {*stages, *run.graph.upstream(stages)}
    lacking = [s for s in run.graph if s in needed and not quick.is_usable(s)]
    finished = run.folder.parent.glob(f"*/stages/{missing[0]}/{DECLARED}")
    others = sorted({path.parents[2].name for path in finished} - {quick.name})
    lacks = f"{run.name} has no finished {', '.join(missing)}"
    text = lacks if run.folder.is_dir() else f"There is no run {run.name}"
    if others:
        text += f" (set `run_dir` to read another one: {', '.join(others)})"
    if lacking:
        seconds = forecast.declared(run.graph, preset=PRESET, n_images=0)
        duration = forecast.duration(sum(seconds.get(s, 0) for s in lacking))
        text += f"; {', '.join(lacking)} will be made at the quick setting, in {duration}"
    print(f"{text}. Reads {quick.name}.", flush=True)
    if lacking:  # the runner skips those that are up to date, and makes those that are stale
        _make([s for s in run.graph if s in needed])
    return quick


def _make(stages: Sequence[str]) -> None:
    """Run stages with ``run_all.py``; print its line of each stage and raise its error."""
    command = [sys.executable, str(PROJECT / "run_all.py"), "--preset", PRESET, "--no-report"]
    command += ["--run", f"phantom-{PRESET}", "--if-stale", "--only", *stages]
    # a kernel asks the processes that it starts for colours
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    environment["PYTHONIOENCODING"] = "utf-8"  # on Windows, not the default of a pipe
    last = ""
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as runner:
        try:
            for line in runner.stderr:
                last = line.strip() or last
                if STAGE_BEGINS.match(line):
                    print(line.rstrip(), flush=True)
        except BaseException:  # KeyboardInterrupt: the runner ends its kernels
            runner.terminate()
            raise
    if runner.returncode:
        raise Refused(runner.returncode, last.removeprefix("error: "))

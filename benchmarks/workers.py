"""Time eight quick runs on 1, 2 and, where there are as many cores, 4 and 8 workers.

    uv run benchmarks/workers.py             # quick runs of the project, on phantoms
    uv run benchmarks/workers.py --tiny      # notebooks of a few lines: only tests this program

Each number of workers begins in a copy of the project without results. The runs differ in their
seed. The workers share the cores, so that fewer workers have more threads each. Speed-up is the
time on one worker divided by that on several; efficiency is the speed-up divided by the number of
workers. The whole command also prepares and typesets the runs, one after another.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cxr_helpers.system import environment

ROOT = Path(__file__).resolve().parent.parent
N_RUNS = 8
TASKS = re.compile(rf"^tasks: {N_RUNS} done, (\d+):(\d+)", re.MULTILINE)


def main() -> None:
    """Run all numbers of workers; print seconds, speed-up and efficiency."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="use the tests' small notebooks")
    tiny = parser.parse_args().tiny
    cores = environment.cores()
    print(f"{cores} cores, {environment.machine()['processor']}; {N_RUNS} runs")
    print(
        f"{'workers':>8}{'threads':>8}{'tasks':>9}{'speed-up':>10}{'efficiency':>12}{'command':>9}"
    )
    first = None
    for workers in [n for n in (1, 2, 4, 8) if n <= max(2, cores)]:
        tasks, command = timed(workers, tiny=tiny)
        first = first or tasks
        speed_up = first / tasks
        print(
            f"{workers:8}{max(1, cores // workers):8}{tasks:7.0f} s{speed_up:10.2f}"
            f"{speed_up / workers:12.0%}{command:7.0f} s",
            flush=True,
        )


def timed(workers: int, *, tiny: bool) -> tuple[float, float]:
    """Return the seconds of all tasks together, and of the whole command."""
    with tempfile.TemporaryDirectory(prefix="cxr-workers-") as folder:
        project = Path(folder) / "project"
        copy(project, tiny=tiny)
        command = [sys.executable, "run_all.py", "--preset", "quick", "--no-pdf"]
        command += ["--grid", f"seed={','.join(map(str, range(N_RUNS)))}"]
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--workers", str(workers)], cwd=project, stderr=subprocess.PIPE, text=True
        )
        seconds = time.monotonic() - start
    if done.returncode or not (found := TASKS.search(done.stderr)):
        sys.exit(f"the runs ended with exit code {done.returncode}:\n{done.stderr}")
    return 60 * int(found[1]) + int(found[2]), seconds


def copy(project: Path, *, tiny: bool) -> None:
    """Copy the project, or the tests' small one, without results."""
    if tiny:
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        from tiny import make

        make(project)
    else:
        left_out = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__")
        shutil.copytree(ROOT, project, ignore=left_out)


if __name__ == "__main__":
    main()

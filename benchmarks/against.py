"""Time a run of this checkout beside the same run of an earlier commit, by stage, with its memory.

    uv run benchmarks/against.py 5efc9d2                      # the default report, on phantoms
    uv run benchmarks/against.py 5efc9d2 --preset quick       # any options of run_all.py
    uv run benchmarks/against.py 5efc9d2 --old="--preset quick" --new="--preset demo"

Both are copied to a temporary folder and get an environment of the versions that they ask for; this
is not timed. Each is then run from nothing, and once more (``again``) with nothing changed. All is
measured from outside, so that the earlier commit needs no code for it. Seconds are those of the
table that ``run_all.py`` writes at its end. Memory is the resident memory of the largest process and
what each other one shares with none: for a stage of its kernel, all processes below it and those
below the runner that belong to no stage; for the whole command of the runner as well. Ratios are
those of the earlier commit to this checkout.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
INTERVAL = 0.2  # seconds between two samples of the memory
RUNNER = "runner"
Memory = tuple[float, float]  # resident, and shared with no other process, in MB (10⁶ bytes)
DONE = re.compile(r"^│ (\S+(?:, seed \d+)?) +│ .* │ +([\d.]+) │$", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """What one command took.

    Attributes
    ----------
    seconds, processor : float
        From its start to its end, and of all its processes (user and system, as sampled).
    stages : dict of str to float
        Seconds by stage.
    peak : float
        Largest memory of all its processes together, in MB (10⁶ bytes).
    peaks : dict of str to float
        The same by stage, without the runner.
    """

    seconds: float
    processor: float
    stages: dict[str, float]
    peak: float
    peaks: dict[str, float]


def main() -> None:
    """Run the earlier commit, then this checkout, each twice; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("commit", help="the first argument; further options are run_all.py's")
    parser.add_argument("--old", default="", help="options for the earlier commit only")
    parser.add_argument("--new", default="", help="options for this checkout only")
    options, common = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="cxr-against-") as folder:
        old, new = Path(folder) / "old", Path(folder) / "new"
        check_out(options.commit, old)
        left_out = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__")
        shutil.copytree(ROOT, new, ignore=left_out)
        runs = []
        for project, own in ((old, options.old), (new, options.new)):
            install(project)
            command = located([*common, *shlex.split(own)])
            runs += [run(project, command), run(project, command)]
    show(*runs, commit=options.commit)


def check_out(commit: str, project: Path) -> None:
    """Write the files of a commit to a folder."""
    project.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x"], cwd=project, input=archive.stdout, check=True)


def install(project: Path) -> None:
    """Install a project, and read its largest package once, as from a disk that was not cold."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    version = ".".join(map(str, sys.version_info[:2]))
    command = [os.environ.get("UV", "uv"), "sync", "--quiet", "--no-dev", "--python", version]
    subprocess.run(command, cwd=project, env=environment, check=True)
    warm = [python(project), "-c", "import tensorflow, matplotlib.pyplot"]
    subprocess.run(warm, stderr=subprocess.DEVNULL, check=True)


def python(project: Path) -> str:
    """Return the interpreter of a project's environment."""
    return str(project / ".venv" / "bin" / "python")


def located(arguments: Sequence[str]) -> list[str]:
    """Return options whose paths do not depend on the working directory."""
    return [
        str(Path(value).resolve()) if option == "--data" and Path(value).exists() else value
        for option, value in zip(["", *arguments], arguments, strict=False)
    ]


def run(project: Path, arguments: Sequence[str]) -> Measured:
    """Run all stages in the project's environment, and sample the memory until the end."""
    start, peak, peaks = time.monotonic(), 0.0, {}
    spent: dict[int, float] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = subprocess.Popen(
            [python(project), "run_all.py", *arguments], cwd=project, stderr=log
        )
        while command.poll() is None:
            now = memory(psutil.Process(command.pid), spent)
            peak = max(peak, together(itertools.chain(*now.values())))
            for stage in now.keys() - {RUNNER, ""}:
                peaks[stage] = max(peaks.get(stage, 0.0), together(now[stage] + now.get("", [])))
            time.sleep(INTERVAL)
        seconds = time.monotonic() - start
        log.seek(0)
        text = log.read()
    if command.returncode:
        sys.exit(f"the run ended with exit code {command.returncode}:\n{text}")
    stages = {stage: float(took) for stage, took in DONE.findall(text)}
    return Measured(seconds, sum(spent.values()), stages, peak, peaks)


def memory(runner: psutil.Process, spent: dict[int, float]) -> dict[str, list[Memory]]:
    """Return the memory of the runner, of each stage's processes and of those of no stage ("").

    Their processor time so far is written to ``spent``, by process: a forked kernel is not a child
    of the runner, whose own times would not contain it. A kernel keeps the file ``<stage>.log``
    open; the processes below it belong to the same stage.
    """
    found: dict[str, list[Memory]] = {}
    stage_of: dict[int, str] = {runner.pid: RUNNER}
    try:
        processes = [runner, *runner.children(recursive=True)]  # parents before their children
    except psutil.NoSuchProcess:
        return found
    for process in processes:
        try:
            logs = [Path(file.path) for file in process.open_files() if file.path.endswith(".log")]
            parent, used = process.ppid(), process.memory_full_info()
            spent[process.pid] = sum(process.cpu_times()[:2])
        except psutil.Error:  # it has ended
            continue
        if process != runner:
            stages = [log.stem for log in logs if log.parent.name == "notebooks"]
            inherited = stage_of.get(parent, "")
            stage_of[process.pid] = stages[0] if stages else inherited.removeprefix(RUNNER)
        found.setdefault(stage_of[process.pid], []).append((used.rss / 1e6, used.uss / 1e6))
    return found


def together(processes: Iterable[Memory]) -> float:
    """Return the memory of processes that share pages, such as a fork and its parent, in MB."""
    first, *others = sorted(processes, reverse=True) or [(0.0, 0.0)]
    return first[0] + sum(unique for _, unique in others)


def show(old: Measured, old_again: Measured, new: Measured, new_again: Measured, *, commit) -> None:
    """Print seconds and memory of both side by side."""
    print(f"{'':16}{'seconds':>20}{'':9}{'peak memory, MB':>20}")
    print(
        f"{'':16}{commit[:9]:>10}{'this':>10}{'ratio':>9}{commit[:9]:>10}{'this':>10}{'ratio':>9}"
    )
    for stage in dict.fromkeys([*old.stages, *new.stages]):
        took = pair(old.stages.get(stage), new.stages.get(stage), digits=1)
        print(f"{stage:16}{took}{pair(old.peaks.get(stage), new.peaks.get(stage))}")
    for name, a, b in (("whole command", old, new), ("again", old_again, new_again)):
        print(f"{name:16}{pair(a.seconds, b.seconds, digits=1)}{pair(a.peak, b.peak)}")
        print(f"{'  of processor':16}{pair(a.processor, b.processor, digits=1)}")


def pair(old: float | None, new: float | None, *, digits: int = 0) -> str:
    """Return two numbers and their ratio; a dash where one is missing."""
    cells = "".join(f"{'–' if x is None else f'{x:.{digits}f}':>10}" for x in (old, new))
    return f"{cells}{f'{old / new:.2f}' if old and new else '–':>9}"


if __name__ == "__main__":
    main()

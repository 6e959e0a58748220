"""A copy of the project with small notebooks: real runs in seconds, without TensorFlow."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import warm
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import run_all
from cxr_helpers.pipeline import graph, runs
from cxr_helpers.pipeline.runs import Run

CODE = run_all.ROOT
PARAMETERS = """
number: int = 1  # part of the artifact [0..9]
n_phantoms: int = 500  # read by the preflight [60..1000]
image_size: int = 32  # read by the preflight [32..64]
seed: int = 0  # not used [0..9]
run_dir: str = ""  # where the run's artifacts are
"""
# Code that a test plants runs in the middle of the stage and is not part of its recipe.
BODY = """
import os
from pathlib import Path
from cxr_helpers.pipeline.stages import Stage
stage = Stage({stage!r}, run_dir=run_dir)
with open("ran.txt", "a") as log:
    log.write(stage.name + "\\n")
inputs = stage.run.graph[stage.name].reads
read = [stage.input(earlier, "value.txt").read_text() for earlier in inputs]
stage.save("value.txt", Path.write_text, f"{{stage.name}} {{number}} {{read}}")
"""
PLANTED = 'exec(os.environ.get("TINY_" + stage.name, ""))'
DATA = """
scores = {scores!r}
stage.save("scores.csv", Path.write_text, scores)
stage.save("dataset.json", Path.write_text, {dataset!r})
stage.save("predictions.csv", Path.write_text, {predictions!r})
index = "split,class_name,group\\ntrain,normal,normal 1\\ntest,viral,viral 1\\n"
stage.save("index.csv", Path.write_text, index)
"""
FINISH = 'stage.finish(facts={"direction": "above"})'
# A cell that has begun to write, with a child process.
HOLD = """
import subprocess, time
child = subprocess.Popen(["sleep", "1000"])
Path("child.tmp").write_text(str(child.pid))
def write(path):
    path.write_text("half")
    os.replace("child.tmp", "child.txt")
    time.sleep(1000)
stage.save("half.txt", write)
"""

BEFORE = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
# Variables: without the second, which containers may set, each process would compile the project.
LEFT_OUT = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
# If the tests run under nohup, their processes would ignore SIGHUP.
LISTEN = 'getattr(signal, "SIGHUP", None) and signal.signal(signal.SIGHUP, signal.SIG_DFL)\n'


@dataclass(frozen=True)
class Done:
    """Exit code and standard error of a command that has ended."""

    code: int
    text: str

    @property
    def last(self) -> str:
        """The last line of standard error."""
        return self.text.strip().splitlines()[-1] if self.text.strip() else ""


@dataclass(frozen=True)
class Project:
    """The copy in ``root``; its runs are in ``root/report/build``."""

    root: Path

    @property
    def run_dir(self) -> Path:
        """The folder of the run that the command without options makes."""
        return self.root / "report" / "build" / "phantom-standard"

    def start(
        self,
        *arguments: str,
        planted: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        code: str = "import run_all, sys; sys.exit(run_all.main())",
        **options,
    ) -> subprocess.Popen | warm.Started:
        """Start ``run_all.py`` with code planted in stages; it handles SIGINT.

        A background job of a shell ignores SIGINT, and its children inherit that.
        """
        before = BEFORE if "nohup" in prefix else BEFORE + LISTEN
        environment = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
        environment |= {f"TINY_{stage}": own for stage, own in (planted or {}).items()}
        if sys.platform == "linux" and not prefix and set(options) <= {"start_new_session"}:
            return warm.server().start(
                before + code,
                arguments,
                environment=environment,
                folder=self.root,
                session=bool(options),
            )
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", before + code, *arguments],
            cwd=self.root,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments: str, **options) -> Done:
        """Run to the end."""
        return ended(self.start(*arguments, **options))

    def take_log(self) -> list[str]:
        """Return the stages whose notebooks have run since the last call, by name.

        Stages may have run side by side: it is checked that each began after those that it reads.
        """
        ran = self.log()
        (self.root / "notebooks" / "ran.txt").unlink(missing_ok=True)
        for stage, spec in graph.load(self.root / "notebooks").items():
            for earlier in spec.reads:
                if ran.count(earlier) == ran.count(
                    stage
                ):  # else one of them was stored or repeated
                    balance = itertools.accumulate(
                        (name == earlier) - (name == stage) for name in ran
                    )
                    assert min(balance, default=0) >= 0, f"{stage} before {earlier}: {ran}"
        return sorted(ran)

    def log(self) -> list[str]:
        """Return the stages whose notebooks have begun, in that order."""
        log = self.root / "notebooks" / "ran.txt"
        return log.read_text().split() if log.exists() else []

    def held(self) -> psutil.Process:
        """Wait for the cell in which ``HOLD`` was planted; return its child process."""
        path = self.root / "notebooks" / "child.txt"
        wait_for(path.exists)
        child = psutil.Process(int(path.read_text()))
        path.unlink()
        return child

    def stage(self, name: str) -> Path:
        """Return the folder of a stage's artifacts."""
        return Run(self.run_dir).stage(name)

    def contents(self) -> dict[str, bytes]:
        """Return the files of the run by name, without those of its locks."""
        return {
            str(path.relative_to(self.run_dir)): path.read_bytes()
            for path in sorted(self.run_dir.rglob("*"))
            if path.is_file() and path.name not in runs.LOCKS
        }

    def partial(self) -> list[str]:
        """Return the names of incomplete files."""
        return [path.name for path in self.run_dir.rglob(".partial-*")]


def make(root: Path) -> Project:
    """Copy the project's code to ``root`` and write a small notebook for each stage."""
    for folder in ("cxr_helpers", "report"):
        ignored = shutil.ignore_patterns("build")  # compiled modules are valid in the copy too
        shutil.copytree(CODE / folder, root / folder, ignore=ignored)
    shutil.copy2(CODE / "run_all.py", root)
    (root / "notebooks").mkdir()
    for name in ("abstract.md", "results.md", "discussion.md", "references.md"):
        (root / "report" / name).write_text(f"# {name.removesuffix('.md').title()}\n\nTiny.\n")
    for stage in graph.default():
        write_notebook(root / "notebooks" / f"{stage}.ipynb")
    return Project(root)


def write_notebook(path: Path, *, more: str = "", declared: Mapping | None = None) -> None:
    """Write a stage's notebook.

    Parameters
    ----------
    path : Path
    more : str
        Code at the end of its body.
    declared : mapping, optional
        Its declaration; that of the project's notebook by default, with a preset that changes
        nothing.
    """
    stage = path.stem
    body = BODY.format(stage=stage) + (data() if stage == "01_data" else "") + more
    if stage == "07_explainability":
        body += "from cxr_helpers.system import signals\n"
    cells = [new_code_cell(source) for source in (body, PLANTED, FINISH)]
    parameters = new_code_cell(PARAMETERS.strip(), metadata={"tags": ["parameters"]})
    title = new_markdown_cell(f"# Stage {stage}")
    for position, cell in enumerate([title, parameters, *cells]):
        cell["id"] = f"cell-{position}"  # random ids would make each copy another notebook
    if declared is None:
        project = json.loads(graph.default()[stage].notebook.read_text(encoding="utf-8"))
        declared = project["metadata"]["cxr"] | {"presets": {"quick": {}}}
    metadata = {"cxr": dict(declared)}
    nbformat.write(new_notebook(cells=[title, parameters, *cells], metadata=metadata), path)


def data() -> str:
    """Return the code with which 01_data writes everything that a report needs."""
    scores = "row,split,metric,value,n\n"
    scores += "".join(f"{row.id},test,accuracy,0.5,1\n" for row in graph.default().rows)
    predictions = "row,split,image,y_true,y_pred,y_score\n"
    predictions += "".join(f"{row.id},test,1,1,1,\n" for row in graph.default().rows)
    dataset = {"name": "tiny", "synthetic": True, "scored_only": False, "fingerprint": "none"}
    return DATA.format(scores=scores, predictions=predictions, dataset=json.dumps(dataset))


def ended(child: subprocess.Popen, *, within: float = 180) -> Done:
    """Wait for a command; it is killed, and the test fails, if it takes too long."""
    try:
        text = child.communicate(timeout=within)[1]
    finally:
        child.kill()
        child.wait()
    return Done(child.returncode, text)


def wait_for(condition: Callable[[], object], *, within: float = 120) -> None:
    """Poll until a condition holds; fail if it takes too long."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    """Return whether a process has ended, even if its parent has not waited for it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descendants(child: subprocess.Popen) -> list[psutil.Process]:
    """Return all processes below one: kernel, guard and the cell's child."""
    return psutil.Process(child.pid).children(recursive=True)


def kill(child: subprocess.Popen) -> None:
    """Kill -9 a command and nothing else."""
    child.send_signal(signal.SIGKILL)
    child.communicate()

"""Kill runs at random moments and compare their final artifacts with those of an undisturbed run.

    uv run benchmarks/chaos.py                      # 30 rounds
    uv run benchmarks/chaos.py --rounds 3 --seed 1
    uv run benchmarks/chaos.py --until 02           # the first training only

A reference run on phantoms is made once, without a kill. Each round then starts from the finished
01_data of the reference, or from nothing where the kill is due in that stage, and kills the runner
with SIGKILL at moments drawn uniformly from the duration of the reference. After each kill the same
command is started again, until it ends by itself. Every artifact that a stage declares must be
equal, by SHA-256, among them all weights, learning curves and scores, and so must the table of
results. Stages after 04 are left out by default.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from cxr_helpers.pipeline import graph, results
from cxr_helpers.pipeline.runs import Run

ROOT = Path(__file__).resolve().parent.parent
NAME = "chaos"
STAGES = list(graph.default())
OURS = "ours"  # in the progress lines of 03_categorical
SETTINGS = (
    *("n_phantoms=100", "image_size=32", "border_epochs=1", "02_binary.epochs=10"),
    *("03_categorical.epochs=8", "03_categorical.ours_epochs=6", "03_categorical.ours_widths=8,16"),
    *("04_autoencoder.epochs=8", "study_rates=0.001", "study_epochs=1", "study_images=64"),
)
# the command itself, with the first stages, another build folder, and no report
COMMAND = """
import sys
from pathlib import Path
import run_all
from cxr_helpers.pipeline import graph
load = graph.load
graph.load = lambda folder: graph.Graph(list(load(folder).values())[: int(sys.argv[2])])
run_all.BUILD = Path(sys.argv[1])
run_all.typeset = lambda *arguments: 0
sys.exit(run_all.main(sys.argv[3:]))
"""


def main() -> None:
    """Make the reference, run the rounds, print the outcome; exit with 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments of the kills")
    parser.add_argument("--kills", type=int, default=2, help="most kills in a round")
    numbers = [name[:2] for name in STAGES]
    parser.add_argument("--until", default="04", choices=numbers, help="last stage (default: 04)")
    options = parser.parse_args()
    names = [name for name in STAGES if name[:2] <= options.until]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="cxr-chaos-") as folder:
        reference = Round(Path(folder) / "reference", names)
        seconds = reference.run_to_the_end()
        expected = outcome(reference.run, names)
        print(f"covered: {', '.join(names)}; {sum(map(len, expected.values()))} digests compared")
        print(f"reference: {seconds:.1f} s, {reference.epochs} epochs, no kill", flush=True)
        ends = stage_ends(reference.run, names, seconds)
        equal = kills = equal_kills = ours = saved = orphans = 0
        for number in range(1, options.rounds + 1):
            round_ = None
            while round_ is None or not round_.kills:  # a run that was faster is repeated
                round_ = Round(Path(folder) / f"round-{number}", names)
                moments = [rng.uniform(0, seconds) for _ in range(rng.randint(1, options.kills))]
                since = start_from(reference, round_, min(moments), ends)
                for moment in moments:
                    round_.run_and_kill(max(0.0, moment - since))
                round_.run_to_the_end()
                found = outcome(round_.run, names)
                shutil.rmtree(round_.build)
            differs = [name for name in expected if found.get(name) != expected[name]]
            equal += not differs
            kills += len(round_.kills)
            ours += sum(OURS in stage for _, stage in round_.kills)
            equal_kills += 0 if differs else len(round_.kills)
            saved += round_.saved
            orphans += round_.orphans
            moments = ", ".join(f"{moment:.1f} s in {stage}" for moment, stage in round_.kills)
            print(
                f"round {number:2}: killed after {moments}; {round_.saved} epochs saved; "
                f"{round_.orphans} orphans; {'equal' if not differs else f'DIFFERS: {differs}'}",
                flush=True,
            )
    print(
        f"after {equal_kills} of {kills} kills the artifacts were equal to the reference "
        f"({equal} of {options.rounds} rounds); {ours} kills in 03_categorical after {OURS} had begun"
    )
    print(f"{saved} epochs were read from checkpoints instead of trained; {orphans} orphans left")
    sys.exit(equal != options.rounds or orphans > 0)


class Round:
    """A build folder with one run, the commands that were started on it, and what they did.

    Attributes
    ----------
    kills : list of (float, str)
        Seconds after the start, and the stage that was running.
    saved : int
        Epochs that later commands read from checkpoints.
    orphans : int
        Processes that were alive 15 seconds after their parent was killed.
    epochs : int
        Epochs that were trained.
    """

    def __init__(self, build: Path, names: list[str]) -> None:
        self.build, self.run = build, Run(build / NAME)
        self.names = names
        self.kills: list[tuple[float, str]] = []
        self.saved = self.orphans = self.epochs = 0
        build.mkdir()

    def start(self) -> subprocess.Popen:
        """Start the command; it writes to a file, since nobody reads the pipe of a dead process."""
        command = [sys.executable, "-c", COMMAND, str(self.build), str(len(self.names))]
        command += ["--run", NAME, "--no-pdf"]
        for setting in SETTINGS:
            if setting.partition(".")[0] in self.names or "." not in setting.partition("=")[0]:
                command += ["--set", setting]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with open(self.build / "log", "w", encoding="utf-8") as log:
            return subprocess.Popen(command, cwd=ROOT, stderr=log, env=environment)

    def run_to_the_end(self) -> float:
        """Run without a kill; return the seconds it took."""
        start = time.monotonic()
        code = self.start().wait()
        text = self.log()
        if code:
            sys.exit(f"the run ended with exit code {code}:\n{text}")
        return time.monotonic() - start

    def run_and_kill(self, after: float) -> None:
        """Kill the command some seconds after its start, unless it ends before, and count."""
        start = time.monotonic()
        command = self.start()
        try:
            command.wait(after)
        except subprocess.TimeoutExpired:
            children = psutil.Process(command.pid).children(recursive=True)
            command.send_signal(signal.SIGKILL)
            command.wait()
            seconds = time.monotonic() - start
            _, left = psutil.wait_procs(children, timeout=15)
            alive = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
            self.orphans += len(alive)
            for process in alive:
                process.kill()
            self.kills.append((seconds, self.running(self.log())))
        else:
            self.log()

    def log(self) -> str:
        """Return the output of the last command, and count its epochs."""
        text = (self.build / "log").read_text()
        for line in text.splitlines():
            self.epochs += "· epoch " in line
            if kept := re.search(r"resumes after epoch (\d+)|already trained: (\d+) epochs", line):
                self.saved += int(kept[1] or kept[2])
        return text

    def running(self, text: str) -> str:
        """Return the last stage that a command began, and the network that it trained last."""
        begun = [name for name in self.names if f"\n{name}: " in f"\n{text}"]
        if not begun:
            return "start-up"
        last = max(begun, key=lambda name: f"\n{text}".rindex(f"\n{name}: "))
        network = re.findall(rf"{last} · ({OURS})$", text, re.MULTILINE)
        return ", ".join([last, *network[-1:]])


def stage_ends(run: Run, names: list[str], seconds: float) -> dict[str, float]:
    """Return after how many seconds each stage of the reference had finished."""
    took = [run.manifest(name)["seconds"] for name in names]
    begin = max(0.0, seconds - sum(took))
    return {name: begin + sum(took[: i + 1]) for i, name in enumerate(names)}


def start_from(reference: Round, other: Round, moment: float, ends: dict[str, float]) -> float:
    """Copy the 01_data of the reference if the kill comes later; return the seconds it took."""
    first = other.names[0]
    if moment <= ends[first]:
        return 0.0
    shutil.copytree(reference.run.stage(first), other.run.stage(first))
    other.run.executed(first).parent.mkdir()
    shutil.copy2(reference.run.executed(first), other.run.executed(first))
    return reference.run.manifest(first)["seconds"]


def outcome(run: Run, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the checked digests of all artifacts, the results, and incomplete files."""
    digests = {}
    for name in names:
        if damaged := run.damaged_output(name):
            digests[name] = {damaged: "damaged"}
            continue
        digests[name] = (run.declared(name) or {"outputs": {}})["outputs"]
    scores = results.collect(run).to_csv(index=False)
    left = [path.name for path in run.folder.rglob(".partial-*")]
    return digests | {"results.csv": {"content": scores}, "left over": dict.fromkeys(left, "")}


if __name__ == "__main__":
    main()

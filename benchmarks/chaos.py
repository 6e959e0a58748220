"""Kill runs at random moments and compare what they end with to a run that was left alone.

    uv run benchmarks/chaos.py                      # 30 rounds
    uv run benchmarks/chaos.py --rounds 3 --seed 1
    uv run benchmarks/chaos.py --until 02           # the first training only

A reference run on phantoms is made once, without a kill. Each round then starts from the
reference's finished 01_data, or from nothing where the kill is due in that stage, and kills the
driver with SIGKILL at moments drawn uniformly over the reference's seconds; after each kill the
same command is started again, until it ends by itself. What must be equal: every artifact that a
stage declares, by SHA-256, among them all weights, learning curves and scores, and the table of
results made from them. Stages that do not train are left out by default: they have no checkpoint
and simply run again.
"""

from __future__ import annotations

import argparse
import json
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

from cxr_helpers.pipeline import results, stages

ROOT = Path(__file__).resolve().parent.parent
RUN = "chaos"
OURS = "our network"  # as 03_categorical calls it
SETTINGS = (
    *("n_phantoms=100", "image_size=32", "border_epochs=1", "02_binary.epochs=10"),
    *("03_categorical.epochs=8", "03_categorical.ours_epochs=6", "03_categorical.ours_widths=8,16"),
    *("04_autoencoder.epochs=8", "study_rates=0.001", "study_epochs=1", "study_images=64"),
)
# the runner itself, on the first stages, with its folder elsewhere and no report at the end
DRIVER = """
import sys
from pathlib import Path
import run_all
run_all.BUILD = Path(sys.argv[1])
run_all.NOTEBOOKS = dict(list(run_all.NOTEBOOKS.items())[: int(sys.argv[2])])
run_all.typeset = lambda *arguments: 0
sys.exit(run_all.main(sys.argv[3:]))
"""


def main() -> None:
    """Make the reference, run the rounds, print what was seen; exit with 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--kills", type=int, default=2, help="most kills in a round")
    numbers = [name[:2] for name in stages.STAGES]
    parser.add_argument("--until", default="04", choices=numbers, help="last stage (default: 04)")
    options = parser.parse_args()
    names = [name for name in stages.STAGES if name[:2] <= options.until]
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="cxr-chaos-") as folder:
        reference = Round(Path(folder) / "reference", names)
        seconds = reference.run_to_the_end()
        wanted = outcome(reference.run_dir, names)
        print(f"covered: {', '.join(names)}; {sum(map(len, wanted.values()))} digests compared")
        print(f"reference: {seconds:.1f} s, {reference.epochs} epochs, no kill", flush=True)
        ends = stage_ends(reference.run_dir, names, seconds)
        equal = kills = equal_kills = ours = saved = orphans = 0
        for number in range(1, options.rounds + 1):
            own = None
            while own is None or not own.kills:  # a run that was faster is no round
                own = Round(Path(folder) / f"round-{number}", names)
                moments = [draw.uniform(0, seconds) for _ in range(draw.randint(1, options.kills))]
                since = start_from(reference, own, min(moments), ends)
                for moment in moments:
                    own.run_and_kill(max(0.0, moment - since))
                own.run_to_the_end()
                found = outcome(own.run_dir, names)
                shutil.rmtree(own.build)
            differs = [name for name in wanted if found.get(name) != wanted[name]]
            equal += not differs
            kills += len(own.kills)
            ours += sum(OURS in at for _, at in own.kills)
            equal_kills += 0 if differs else len(own.kills)
            saved += own.saved
            orphans += own.orphans
            said = ", ".join(f"{moment:.1f} s in {at}" for moment, at in own.kills)
            print(
                f"round {number:2}: killed after {said}; {own.saved} epochs saved; "
                f"{own.orphans} orphans; {'equal' if not differs else f'DIFFERS: {differs}'}",
                flush=True,
            )
    print(
        f"{equal_kills} of {kills} kills ended equal to the reference "
        f"({equal} of {options.rounds} rounds); {ours} of them within 03_categorical after {OURS} had begun"
    )
    print(f"{saved} epochs were not trained again, thanks to checkpoints; {orphans} orphans left")
    sys.exit(equal != options.rounds or orphans > 0)


class Round:
    """One run's folder, the drivers that were started on it, and what was seen.

    Attributes
    ----------
    kills : list of (float, str)
        Seconds after the start, and the stage that was running.
    saved : int
        Epochs that later drivers took from checkpoints.
    orphans : int
        Processes that were still there 15 seconds after their driver was killed.
    epochs : int
        Epochs that were trained.
    """

    def __init__(self, build: Path, names: list[str]) -> None:
        self.build, self.run_dir = build, build / RUN
        self.names = names
        self.kills: list[tuple[float, str]] = []
        self.saved = self.orphans = self.epochs = 0
        build.mkdir()

    def start(self) -> subprocess.Popen:
        """Start the driver; its words go to a file, for nobody reads a pipe of the dead."""
        command = [sys.executable, "-c", DRIVER, str(self.build), str(len(self.names))]
        command += ["--run", RUN, "--no-pdf"]
        for setting in SETTINGS:
            if setting.partition(".")[0] in self.names or "." not in setting.partition("=")[0]:
                command += ["--set", setting]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with open(self.build / "log", "w") as log:
            return subprocess.Popen(command, cwd=ROOT, stderr=log, env=environment)

    def run_to_the_end(self) -> float:
        """Run without a kill; return its seconds."""
        start = time.monotonic()
        code = self.start().wait()
        said = self.words()
        if code:
            sys.exit(f"the run ended with exit code {code}:\n{said}")
        return time.monotonic() - start

    def run_and_kill(self, after: float) -> None:
        """Kill the driver some seconds after its start, unless it ends before, and count."""
        start = time.monotonic()
        driver = self.start()
        try:
            driver.wait(after)
        except subprocess.TimeoutExpired:
            family = psutil.Process(driver.pid).children(recursive=True)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            seconds = time.monotonic() - start
            _, left = psutil.wait_procs(family, timeout=15)
            alive = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
            self.orphans += len(alive)
            for process in alive:
                process.kill()
            self.kills.append((seconds, self.running(self.words())))
        else:
            self.words()

    def words(self) -> str:
        """Return what the last driver wrote, and count its epochs."""
        said = (self.build / "log").read_text()
        for line in said.splitlines():
            self.epochs += "· epoch " in line
            if kept := re.search(r"resumes after epoch (\d+)|already trained: (\d+) epochs", line):
                self.saved += int(kept[1] or kept[2])
        return said

    def running(self, said: str) -> str:
        """Return the last stage that a driver began, and the network that it trained last."""
        begun = [name for name in self.names if f"\n{name}: " in f"\n{said}"]
        if not begun:
            return "start-up"
        network = re.findall(rf"{begun[-1]} · (.* network)$", said, re.MULTILINE)
        return ", ".join([begun[-1], *network[-1:]])


def stage_ends(run_dir: Path, names: list[str], seconds: float) -> dict[str, float]:
    """Return after how many seconds each stage of the reference was over."""
    took = [json.loads(manifest(run_dir, name).read_text())["seconds"] for name in names]
    begin = max(0.0, seconds - sum(took))
    return {name: begin + sum(took[: i + 1]) for i, name in enumerate(names)}


def manifest(run_dir: Path, name: str) -> Path:
    """Return where the runner records that a stage finished."""
    return stages.stage_folder(run_dir, name) / "manifest.json"


def start_from(reference: Round, own: Round, moment: float, ends: dict[str, float]) -> float:
    """Give a round the reference's 01_data if the kill comes later; return its seconds."""
    first = own.names[0]
    took = json.loads(manifest(reference.run_dir, first).read_text())["seconds"]
    if moment <= ends[first]:
        return 0.0
    for part in (f"stages/{first}", f"notebooks/{first}.ipynb"):
        source, target = reference.run_dir / part, own.run_dir / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    return took


def outcome(run_dir: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the digests of all that a run's stages declare, checked, and its results."""
    found = {}
    for name in names:
        if damaged := stages.damaged_output(run_dir, name):
            found[name] = {damaged: "damaged"}
            continue
        found[name] = (stages.declared(run_dir, name) or {"outputs": {}})["outputs"]
    scores = results.collect(run_dir).to_csv(index=False)
    left = [path.name for path in run_dir.rglob(".partial-*")]
    return found | {"results.csv": {"content": scores}, "left over": dict.fromkeys(left, "")}


if __name__ == "__main__":
    main()

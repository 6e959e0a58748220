"""A run: one folder with the artifacts of its stages, their records and its lock.

``<run>/stages/<stage>/`` holds the artifacts of a stage. ``declared.json`` there is written last,
by the notebook: a stage without it did not finish. ``manifest.json`` is written by the runner and
holds the recipe of the stage (see ``currency``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cxr_helpers.pipeline import graph, locks
from cxr_helpers.pipeline.graph import Graph
from cxr_helpers.system import digests, environment, files
from cxr_helpers.system.errors import Refused

DECLARED, MANIFEST = "declared.json", "manifest.json"
KEPT = "kept.txt"  # keys of the cached results that a stage uses
SCRATCH = "scratch"  # artifacts of notebooks that are opened by hand
SEEDS = "seeds"  # the same stages, run with other seeds
SOURCE = "origin.json"  # where the images came from
LOCK, OWNER = ".lock", ".owner"  # of the command that makes or updates the run
WRITING, WRITER = ".writing", ".writer"  # of the process that runs its stages
WAIT = 120.0  # seconds for such a process that is about to end
LOCKS = {LOCK, OWNER, WRITING, WRITER}
FORMAT = 4  # of the artifacts; to be raised when those of earlier versions cannot be read
REPORT_FILES = ("report.html", "report.pdf", "results.csv", "results.json")
MAP_SIMILARITY = "map_similarity.csv"  # of the trainings with several seeds


@dataclass(frozen=True)
class Run:
    """The folder of a run.

    Attributes
    ----------
    folder : Path
    graph : Graph
        The stages; those of this project's notebooks by default.
    """

    folder: Path
    graph: Graph = field(default_factory=graph.default)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def stage(self, stage: str) -> Path:
        """Return the folder of a stage's artifacts."""
        return self.folder / "stages" / stage

    def executed(self, stage: str) -> Path:
        """Return the path of a stage's executed notebook."""
        return self.folder / "notebooks" / f"{stage}.ipynb"

    @property
    def scratch(self) -> Run:
        """The artifacts of notebooks that are opened by hand."""
        return Run(self.folder / SCRATCH, self.graph)

    def seed(self, seed: int) -> Run:
        """Return the run of the same images and splits with another training seed."""
        return Run(self.folder / SEEDS / str(seed), self.graph)

    def declared(self, stage: str) -> dict | None:
        """Return the declaration of a finished stage, or None where it did not finish."""
        declared = files.read_json(self.stage(stage) / DECLARED)
        return declared if declared and "outputs" in declared else None

    def artifact(self, stage: str, name: str) -> Path | None:
        """Return the path of an artifact that a finished stage declared; None where it has none.

        A folder may also hold files of an earlier execution, which are not its artifacts.
        """
        declared = self.declared(stage)
        return self.stage(stage) / name if declared and name in declared["outputs"] else None

    def is_readable(self, stage: str) -> bool:
        """Return whether this version of the project can read the artifacts of a finished stage."""
        return (self.declared(stage) or {}).get("format") == FORMAT

    def outputs_digest(self, stage: str) -> str | None:
        """Return a digest of all artifacts of a finished stage, or None where it did not finish."""
        declared = self.declared(stage)
        return declared and digests.sha256_of_json(declared["outputs"])

    def damaged_output(self, stage: str) -> str | None:
        """Return the first artifact that is missing or has changed since, or None."""
        for name, digest in (self.declared(stage) or {"outputs": {}})["outputs"].items():
            path = self.stage(stage) / name
            if not path.is_file() or digests.sha256_of_file(path) != digest:
                return name
        return None

    def executed_digest(self, stage: str) -> str | None:
        """Return the digest of a stage's executed notebook, or None where there is none."""
        path = self.executed(stage)
        return digests.sha256_of_file(path) if path.is_file() else None

    def is_complete(self, stage: str) -> bool:
        """Return whether the runner finished a stage and all its artifacts are unchanged."""
        manifest = self.manifest(stage)
        return (
            manifest is not None
            and self.declared(stage) is not None
            and manifest["declared"] == self.outputs_digest(stage)
            and self.damaged_output(stage) is None
        )

    def newer_input(self, stage: str) -> str | None:
        """Return a stage that a complete one reads and that was made again since, or None."""
        read = self.declared(stage)["inputs"]
        return next((name for name in read if read[name] != self.outputs_digest(name)), None)

    def is_usable(self, stage: str) -> bool:
        """Return whether a stage is complete, and made by a version that this one can read."""
        return self.is_complete(stage) and self.is_readable(stage)

    def manifest(self, stage: str) -> dict | None:
        """Return a stage's manifest, or None where the runner never finished it."""
        manifest = files.read_json(self.stage(stage) / MANIFEST)
        complete = manifest and {"recipe", "declared", "executed"} <= manifest.keys()
        return manifest if complete else None

    def write_manifest(self, stage: str, recipe: Mapping, *, seconds: float) -> None:
        """Record that a stage finished: its recipe, the machine and the seconds it took."""
        files.write_json(
            self.stage(stage) / MANIFEST,
            {
                "recipe": dict(recipe),
                "declared": self.outputs_digest(stage),
                "executed": self.executed_digest(stage),
                "seconds": round(seconds, 1),
                "machine": environment.machine(),
            },
        )

    def forget(self, stage: str) -> None:
        """Remove a stage's manifest and declaration before it runs again."""
        for name in (MANIFEST, DECLARED):
            (self.stage(stage) / name).unlink(missing_ok=True)

    def parameters(self, known: Mapping[str, Iterable[str]]) -> dict[str, dict]:
        """Return the parameters of a finished run by stage, without names that are not known."""
        return {
            stage: {
                name: value
                for name, value in self.manifest(stage)["recipe"]["parameters"].items()
                if name in names
            }
            for stage, names in known.items()
        }

    def share(self, stage: str, other: Run) -> None:
        """Give another run the files of a finished stage, as hard links or else as copies."""
        pairs = [(self.executed(stage), other.executed(stage))]
        for path in self.stage(stage).rglob("*"):
            pairs.append((path, other.stage(stage) / path.relative_to(self.stage(stage))))
        for path, target in pairs:
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                with files.replacing(target) as partial:
                    try:
                        os.link(path, partial)
                    except OSError:
                        shutil.copyfile(path, partial)

    def retire_report(self) -> None:
        """Move the report to ``previous``, so that it is not mistaken for that of the new run."""
        for name in (*REPORT_FILES, MAP_SIMILARITY):
            if (self.folder / name).exists():
                (self.folder / "previous").mkdir(exist_ok=True)
                shutil.move(self.folder / name, self.folder / "previous" / name)

    def record_source(self, location: str, fingerprint: str) -> None:
        """Record where the images of the run came from, and their fingerprint."""
        content = {"location": location, "fingerprint": fingerprint}
        files.write_json(self.folder / SOURCE, content)

    def source(self) -> tuple[str, str] | None:
        """Return location and fingerprint of the run's images, or None where none is recorded."""
        record = files.read_json(self.folder / SOURCE) or {}
        location = record.get("location", record.get("whence"))  # the key of earlier versions
        return (location, record["fingerprint"]) if location else None

    def other_source(self, location: str, fingerprint: str) -> str | None:
        """Return the location of the run's images if both location and images differ, else None.

        A copy of the same images counts as the same, and so does a folder whose images changed.
        """
        recorded, recorded_fingerprint = self.source() or (location, fingerprint)
        differs = recorded != location and recorded_fingerprint != fingerprint
        return recorded if differs else None

    @property
    def owner(self) -> str | None:
        """The process that holds the lock, such as ``"process 4711"``; None where none does."""
        return locks.holder(self.folder, owner=OWNER)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock; the system releases it however this process ends.

        The folder is removed at the end if no stage has begun in it.

        Raises
        ------
        Refused
            With exit code 5, naming the process that holds the lock.
        """
        advice = "wait for it, or give this run another name with --run"
        with locks.held(self.folder, lock=LOCK, owner=OWNER, advice=advice):
            try:
                files.remove_leftovers(self.folder)
                yield
            finally:
                files.remove_leftovers(self.folder)
                if {path.name for path in self.folder.iterdir()} <= {*LOCKS, SOURCE}:
                    shutil.rmtree(self.folder, ignore_errors=True)  # Windows keeps the lock file

    @contextmanager
    def writing(self, *, wait: float = WAIT) -> Iterator[None]:
        """Hold the lock of those who write stages: of a task, while the driver holds the run's.

        After a network cut, a task may still be running that the engine has started again elsewhere.

        Raises
        ------
        Refused
            With exit code 5, if another process still writes after ``wait`` seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        advice = "wait for it to end, then repeat the command"
        with locks.held(self.folder, lock=WRITING, owner=WRITER, wait=wait, advice=advice):
            try:
                files.remove_leftovers(self.folder)
                yield
            finally:  # only on this machine can be seen which processes have ended
                files.remove_leftovers(self.folder)

    def await_writer(self, *, wait: float) -> None:
        """Wait until no process writes stages, at most so many seconds."""
        if (self.folder / WRITING).exists():
            with suppress(Refused), self.writing(wait=wait):
                pass

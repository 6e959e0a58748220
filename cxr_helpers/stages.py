"""A stage: what one notebook reads, writes and declares, under one run's folder.

``<run>/stages/<stage>/`` holds the artifacts of a stage. ``declared.json`` is written last,
by the notebook itself; a stage without it did not finish. Only the runner writes there: a
notebook that is opened by hand reads the finished run and writes below ``<run>/scratch/``.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_helpers import atomic, digests
from cxr_helpers.store import Store

if TYPE_CHECKING:
    import pandas as pd

# Each stage, in the order of the report, with the stages whose artifacts it reads.
STAGES: dict[str, tuple[str, ...]] = {
    "01_data": (),
    "02_binary": ("01_data",),
    "03_categorical": ("01_data", "02_binary"),
    "04_autoencoder": ("01_data",),
    "05_knn": ("01_data", "02_binary", "03_categorical", "04_autoencoder"),
    "06_tsne": ("01_data", "05_knn"),
    "07_explainability": ("01_data", "02_binary", "03_categorical"),
}
DECLARED = "declared.json"
KEPT = "kept.txt"  # keys of the results in the store that a stage was or is made with
SCRATCH = "scratch"  # folder of a run for what notebooks that are opened by hand write
OWNER = ".owner"  # names the process that holds a run
STORE = Path(".cache") / "store"  # beside the runs
# Set by the runner in its kernels: the store's folder, and whether to compute all anew.
RUNNER, ANEW = "CXR_RUNNER_STORE", "CXR_ANEW"
PROGRESS = "» "  # opens the lines of a notebook's output that the conductor repeats


class MissingArtifact(FileNotFoundError):
    """An earlier stage did not write what this one reads."""


class Stage:
    """One notebook's view of a run: inputs by stage and name, outputs written whole.

    Parameters
    ----------
    name : str
        A key of ``STAGES``.
    run_dir : path
        The run's folder; made where it is missing.
    weights_from : path, optional
        Folder of an earlier run. ``earlier`` is then the folder of its artifacts of this
        stage, whose models are scored instead of trained; otherwise None.

    Raises
    ------
    ValueError
        If ``name`` is not a stage.
    MissingArtifact
        If an earlier stage has not finished in this run, or this one in the earlier run, or, by
        hand, earlier stages were made from different data.
    """

    def __init__(self, name: str, *, run_dir: str | Path, weights_from: str | Path = "") -> None:
        if name not in STAGES:
            raise ValueError(f"stage {name!r} is not one of {', '.join(STAGES)}")
        self.name = name
        self.run_dir = Path(run_dir).resolve()
        self.by_hand = RUNNER not in os.environ
        self.earlier: Path | None = None
        self._inputs = {earlier: self._finished(earlier) for earlier in STAGES[name]}
        if self.by_hand:
            self._agree()
        if weights_from:
            self.earlier = stage_folder(Path(weights_from), name)
            if declared(Path(weights_from), name) is None or damaged_output(
                Path(weights_from), name
            ):
                raise MissingArtifact(f"{weights_from} has no whole {name}: run it there again")
        own = self.run_dir / SCRATCH if self.by_hand else self.run_dir
        self.folder = stage_folder(own, name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / DECLARED).unlink(missing_ok=True)
        store = os.environ.get(RUNNER) or self.run_dir.parent / STORE
        record = self.folder / KEPT
        self.store = Store(Path(store), reuse=ANEW not in os.environ, record=record)
        self._outputs: dict[str, str] = {}
        self._start = time.monotonic()
        if self.by_hand:
            self._introduce()

    def _finished(self, earlier: str) -> tuple[Path, str]:
        """Return where a stage is read from, a run or its scratch, and the digest of its outputs."""
        if self.by_hand and _fits(self.run_dir, earlier):
            source = self.run_dir / SCRATCH
        else:
            source = self.run_dir
        digest = outputs_digest(source, earlier)
        if digest is None:
            owner = self.run_dir / OWNER
            busy = f" ({owner.read_text(encoding='utf-8')} is at it)" if owner.is_file() else ""
            others = self.run_dir.parent.glob(f"*/stages/{earlier}/{DECLARED}")
            known = ", ".join(sorted(path.parents[2].name for path in others))
            hint = f"; runs that have it: {known} (`run_dir`)" if known and self.by_hand else ""
            raise MissingArtifact(
                f"{self.name} reads what {earlier} writes, and {self.run_dir.name} has no finished "
                f"{earlier}{busy}: run notebooks/{earlier}.ipynb first, or `run_all.py`{hint}"
            )
        return source, digest

    def _agree(self) -> None:
        """Refuse earlier stages of which one was made from another's older or later artifacts."""
        for stage, (source, _) in self._inputs.items():
            for read, digest in declared(source, stage).get("inputs", {}).items():
                if digest != self._inputs.get(read, (source, digest))[1]:
                    raise MissingArtifact(
                        f"{stage} was made from another {read} than is there now: run "
                        f"notebooks/{stage}.ipynb first, or delete {self.run_dir.name}/{SCRATCH}"
                    )

    def _introduce(self) -> None:
        """Say in one line where a notebook that was opened by hand reads and writes."""
        own = [name for name, (source, _) in self._inputs.items() if source != self.run_dir]
        also = f"; {', '.join(own)} from there too" if own else ""
        run = self.run_dir.name
        if self._inputs:
            said = f"reads the run {run}, which stays as it is, and writes to {run}/{SCRATCH}{also}"
        else:
            said = f"writes to {run}/{SCRATCH}; the run {run} stays as it is"
        print(f"Opened by hand: {said}.")

    def input(self, stage: str, name: str) -> Path:
        """Return the path of an earlier stage's artifact, checked to be there.

        Raises
        ------
        ValueError
            If ``stage`` is not declared in ``STAGES`` as read by this one.
        MissingArtifact
            If the file is not there, or the stage was run again since this notebook began.
        """
        if stage not in STAGES[self.name]:
            raise ValueError(f"{self.name} does not declare that it reads {stage}")
        source, digest = self._inputs[stage]
        path = stage_folder(source, stage) / name
        if self.by_hand and outputs_digest(source, stage) != digest:
            raise MissingArtifact(
                f"{stage} was run again since this notebook began: run {self.name} from its first "
                "cell"
            )
        if not path.is_file():
            raise MissingArtifact(
                f"{self.name} reads {stage}/{name}, which is missing: "
                f"run notebooks/{stage}.ipynb again"
            )
        return path

    def checkpoint(self, key: str) -> Path:
        """Return where the training of this key is kept, see ``training.fit``."""
        return self.store.checkpoint(key)

    def cached(self, function: Callable, *args: object, **kwargs: object):
        """Return ``function(*args, **kwargs)``, computed once, see ``store.Store.call``."""
        return self.store.call(function, *args, **kwargs)

    def say(self, line: str) -> None:
        """Show a line of progress, in the notebook and in the conductor's log."""
        print(f"{PROGRESS}{line}", flush=True)

    def save(self, name: str, write: Callable, *args, **kwargs) -> Path:
        """Write an artifact: ``write(path, *args, **kwargs)``, renamed once it is complete.

        Parameters
        ----------
        name : str
            File name under the stage's folder.
        write : callable
            Such as ``numpy.save`` or ``model.save_weights``.

        Returns
        -------
        pathlib.Path
            Where the artifact now is.
        """
        path = self.folder / name
        with atomic.replacing(path) as partial:
            write(partial, *args, **kwargs)
        self._outputs[name] = digests.of_file(path)
        return path

    def adopt(self, name: str) -> Path:
        """Copy an artifact of the earlier run, byte for byte; return where it now is."""
        return self.save(name, lambda path: shutil.copyfile(self.earlier / name, path))

    def finish(
        self,
        *,
        scores: pd.DataFrame | None = None,
        predictions: pd.DataFrame | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Declare the stage complete: its scores, its facts and a digest of each artifact.

        Parameters
        ----------
        scores : pandas.DataFrame, optional
            As ``cxr_helpers.scores`` makes them; lands as ``scores.csv``.
        predictions : pandas.DataFrame, optional
            As ``cxr_helpers.scorecard`` makes them; lands as ``predictions.csv``.
        facts : mapping, optional
            Named numbers and words that the report's prose looks up; must be plain JSON.
        """
        for name, frame in (("scores.csv", scores), ("predictions.csv", predictions)):
            if frame is not None:
                self.save(name, _write_table, frame)
        declared = {
            "stage": self.name,
            "facts": dict(facts or {}),
            "outputs": dict(sorted(self._outputs.items())),
            "inputs": {earlier: digest for earlier, (_, digest) in self._inputs.items()},
            "seconds": round(time.monotonic() - self._start, 1),
            "peak_memory_bytes": peak_memory(),
        }
        keys = sorted(set(self.store.used))
        atomic.write_text(self.folder / KEPT, "".join(f"{key}\n" for key in keys))
        atomic.write_json(self.folder / DECLARED, declared)
        self.store.trim()


def upstream(names: Iterable[str]) -> set[str]:
    """Return the stages that some stages read, directly or through others."""
    found: set[str] = set()
    for name in names:
        found |= {*STAGES[name], *upstream(STAGES[name])}
    return found


def stage_folder(run_dir: Path, name: str) -> Path:
    """Return the folder of a stage's artifacts."""
    return run_dir / "stages" / name


def share(name: str, run_dir: Path, other: Path) -> None:
    """Give another run a finished stage of this one: hard links where possible, else copies."""
    for source in (stage_folder(run_dir, name), run_dir / "notebooks" / f"{name}.ipynb"):
        target = other / source.relative_to(run_dir)
        files = [p for p in source.rglob("*") if p.is_file()] if source.is_dir() else [source]
        for path in files:
            there = target / path.relative_to(source) if source.is_dir() else target
            there.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(there) as partial:
                try:
                    os.link(path, partial)
                except OSError:
                    shutil.copyfile(path, partial)


def declared(run_dir: Path, name: str) -> dict | None:
    """Return what a finished stage declared, or None where it did not finish."""
    found = atomic.read_json(stage_folder(run_dir, name) / DECLARED)
    return found if found and "outputs" in found else None


def outputs_digest(run_dir: Path, name: str) -> str | None:
    """Return a digest of all that a finished stage wrote, or None where it did not finish."""
    found = declared(run_dir, name)
    return found and digests.of(found["outputs"])


def _fits(run_dir: Path, name: str) -> bool:
    """Return whether a stage was finished by hand, from what would be read for it now."""
    found = declared(run_dir / SCRATCH, name)
    if found is None:
        return False
    for earlier, digest in found["inputs"].items():
        source = run_dir / SCRATCH if _fits(run_dir, earlier) else run_dir
        if outputs_digest(source, earlier) != digest:
            return False
    return True


def damaged_output(run_dir: Path, name: str) -> str | None:
    """Return the first artifact that is missing or not as it was declared, if any."""
    for output, digest in (declared(run_dir, name) or {"outputs": {}})["outputs"].items():
        path = stage_folder(run_dir, name) / output
        if not path.is_file() or digests.of_file(path) != digest:
            return output
    return None


def peak_memory() -> int | None:
    """Return the highest resident memory of this process in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _write_table(path: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(path, index=False, lineterminator="\n")

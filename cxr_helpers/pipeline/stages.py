"""A stage as its notebook sees it: inputs by stage and name, outputs that are written whole.

Only the runner writes to a run's own stages: a notebook that is opened by hand reads the
finished run and writes below ``<run>/scratch/``.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_helpers.pipeline.runs import DECLARED, FORMAT, KEPT, SCRATCH, Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import digests, files

if TYPE_CHECKING:
    import pandas as pd

STORE = Path(".cache") / "store"  # beside the runs
# Set by the runner in its kernels: the store's folder, and whether to compute everything anew.
RUNNER, ANEW = "CXR_RUNNER_STORE", "CXR_ANEW"
PROGRESS = "» "  # opens the lines of a notebook's output that the runner repeats


class MissingArtifact(FileNotFoundError):
    """An earlier stage did not write what this one reads."""


class Stage:
    """One notebook's view of a run.

    Parameters
    ----------
    name : str
        Stem of the notebook.
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
        If an earlier stage has not finished in this run, or this one in the earlier run, was made
        by an earlier version of this project, or, by hand, if earlier stages were made from
        different data.
    """

    def __init__(self, name: str, *, run_dir: str | Path, weights_from: str | Path = "") -> None:
        self.run = Run(Path(run_dir).resolve())
        if name not in self.run.graph:
            raise ValueError(f"stage {name!r} is not one of {', '.join(self.run.graph)}")
        self.name = name
        self.by_hand = RUNNER not in os.environ
        self.earlier: Path | None = None
        reads = self.run.graph[name].reads
        self._inputs = {earlier: self._finished(earlier) for earlier in reads}
        if self.by_hand:
            self._check_agreement()
        if weights_from:
            given = Run(Path(weights_from), self.run.graph)
            self.earlier = given.stage(name)
            if not given.is_readable(name) or given.damaged_output(name):
                raise MissingArtifact(f"{weights_from} has no complete {name}: run it there again")
        self.folder = (self.run.scratch if self.by_hand else self.run).stage(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / DECLARED).unlink(missing_ok=True)
        store = os.environ.get(RUNNER) or self.run_dir.parent / STORE
        self.store = Store(Path(store), reuse=ANEW not in os.environ, record=self.folder / KEPT)
        self._outputs: dict[str, str] = {}
        self._start = time.monotonic()
        if self.by_hand:
            self._introduce()

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return self.run.folder

    def _finished(self, earlier: str) -> tuple[Run, str]:
        """Return the run or scratch that a stage is read from, and the digest of its outputs."""
        source = self.run.scratch if self.by_hand and _fits(self.run, earlier) else self.run
        digest = source.outputs_digest(earlier)
        if digest is None:
            busy = f" ({self.run.owner} is running it)" if self.run.owner else ""
            others = self.run_dir.parent.glob(f"*/stages/{earlier}/{DECLARED}")
            known = ", ".join(sorted(path.parents[2].name for path in others))
            hint = f"; runs that have it: {known} (`run_dir`)" if known and self.by_hand else ""
            raise MissingArtifact(
                f"{self.name} reads what {earlier} writes, and {self.run.name} has no finished "
                f"{earlier}{busy}: run notebooks/{earlier}.ipynb first, or `run_all.py`{hint}"
            )
        if not source.is_readable(earlier):
            raise MissingArtifact(
                f"{earlier} of {self.run.name} was made by an earlier version of this project: "
                f"run `run_all.py --run {self.run.name}` again"
            )
        return source, digest

    def _check_agreement(self) -> None:
        """Refuse earlier stages of which one was made from another's older or later artifacts."""
        for stage, (source, _) in self._inputs.items():
            for read, digest in source.declared(stage).get("inputs", {}).items():
                if digest != self._inputs.get(read, (source, digest))[1]:
                    raise MissingArtifact(
                        f"{stage} was made from another {read} than the present one: run "
                        f"notebooks/{stage}.ipynb first, or delete {self.run.name}/{SCRATCH}"
                    )

    def _introduce(self) -> None:
        """Print in one line where a notebook that was opened by hand reads and writes."""
        run = self.run.name
        own = [name for name, (source, _) in self._inputs.items() if source.folder != self.run_dir]
        also = f"; {', '.join(own)} from there too" if own else ""
        if self._inputs:
            text = f"reads the run {run}, which stays as it is, and writes to {run}/{SCRATCH}{also}"
        else:
            text = f"writes to {run}/{SCRATCH}; the run {run} stays as it is"
        print(f"Opened by hand: {text}.")

    def input(self, stage: str, name: str) -> Path:
        """Return the path of an earlier stage's artifact, checked to be there.

        Raises
        ------
        ValueError
            If this notebook does not declare that it reads ``stage``.
        MissingArtifact
            If the file is not there, or the stage was run again since this notebook began.
        """
        if stage not in self._inputs:
            raise ValueError(f"{self.name} does not declare that it reads {stage}")
        source, digest = self._inputs[stage]
        path = source.stage(stage) / name
        if self.by_hand and source.outputs_digest(stage) != digest:
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
        """Return where the training of this key is stored, see ``training.fit``."""
        return self.store.checkpoint(key)

    def cached(self, function: Callable, *args: object, **kwargs: object):
        """Return ``function(*args, **kwargs)``, computed once, see ``store.Store.call``."""
        return self.store.call(function, *args, **kwargs)

    def log(self, line: str) -> None:
        """Print a line of progress, in the notebook and on the runner's terminal."""
        print(f"{PROGRESS}{line}", flush=True)

    def save(self, name: str, write: Callable, *args, **kwargs) -> Path:
        """Write an artifact: ``write(path, *args, **kwargs)``, renamed once it is complete.

        Parameters
        ----------
        name : str
            File name in the stage's folder.
        write : callable
            Such as ``numpy.save`` or ``model.save_weights``.

        Returns
        -------
        pathlib.Path
            Path of the artifact.
        """
        path = self.folder / name
        with files.replacing(path) as partial:
            write(partial, *args, **kwargs)
        self._outputs[name] = digests.sha256_of_file(path)
        return path

    def copy_earlier(self, name: str) -> Path:
        """Copy an artifact of the earlier run, byte for byte; return the copy's path."""
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
            ``Scorecard.table``; saved as ``scores.csv``.
        predictions : pandas.DataFrame, optional
            ``Scorecard.predictions``; saved as ``predictions.csv``.
        facts : mapping, optional
            Named numbers and words that the report's prose looks up; must be plain JSON.
        """
        for name, table in (("scores.csv", scores), ("predictions.csv", predictions)):
            if table is not None:
                self.save(name, _write_table, table)
        declared = {
            "stage": self.name,
            "format": FORMAT,
            "facts": dict(facts or {}),
            "outputs": dict(sorted(self._outputs.items())),
            "inputs": {earlier: digest for earlier, (_, digest) in self._inputs.items()},
            "seconds": round(time.monotonic() - self._start, 1),
            "peak_memory_bytes": peak_memory(),
        }
        keys = sorted(set(self.store.used))
        files.write_text(self.folder / KEPT, "".join(f"{key}\n" for key in keys))
        files.write_json(self.folder / DECLARED, declared)
        self.store.trim()


def _fits(run: Run, stage: str) -> bool:
    """Return whether a stage was finished by hand, from what would be read for it now."""
    found = run.scratch.declared(stage)
    if found is None or not run.scratch.is_readable(stage):
        return False
    for earlier, digest in found["inputs"].items():
        source = run.scratch if _fits(run, earlier) else run
        if source.outputs_digest(earlier) != digest:
            return False
    return True


def peak_memory() -> int | None:
    """Return the highest resident memory of this process in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _write_table(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n")

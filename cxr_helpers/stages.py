"""A stage: what one notebook reads, writes and declares, under one run's folder.

``<run>/stages/<stage>/`` holds the artifacts of a stage. ``declared.json`` is written last,
by the notebook itself; a stage without it did not finish.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_helpers import atomic

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
CHECKPOINTS = "checkpoints"
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
        If an earlier stage has not finished in this run, or this one in the earlier run.
    """

    def __init__(self, name: str, *, run_dir: str | Path, weights_from: str | Path = "") -> None:
        if name not in STAGES:
            raise ValueError(f"stage {name!r} is not one of {', '.join(STAGES)}")
        self.name = name
        self.run_dir = Path(run_dir).resolve()
        self.folder = stage_folder(self.run_dir, name)
        self.earlier: Path | None = None
        for earlier in STAGES[name]:
            self._finished(earlier)
        if weights_from:
            self.earlier = stage_folder(Path(weights_from), name)
            if declared(Path(weights_from), name) is None or damaged_output(
                Path(weights_from), name
            ):
                raise MissingArtifact(f"{weights_from} has no whole {name}: run it there again")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / DECLARED).unlink(missing_ok=True)
        self._outputs: dict[str, str] = {}
        self._start = time.monotonic()

    def _finished(self, earlier: str) -> None:
        if not (stage_folder(self.run_dir, earlier) / DECLARED).is_file():
            raise MissingArtifact(
                f"{self.name} reads what {earlier} writes, and {self.run_dir.name} has no finished "
                f"{earlier}: run notebooks/{earlier}.ipynb first, or `run_all.py`"
            )

    def input(self, stage: str, name: str) -> Path:
        """Return the path of an earlier stage's artifact, checked to be there.

        Raises
        ------
        ValueError
            If ``stage`` is not declared in ``STAGES`` as read by this one.
        MissingArtifact
            If the file is not there.
        """
        if stage not in STAGES[self.name]:
            raise ValueError(f"{self.name} does not declare that it reads {stage}")
        path = stage_folder(self.run_dir, stage) / name
        if not path.is_file():
            raise MissingArtifact(
                f"{self.name} reads {stage}/{name}, which is missing: "
                f"run notebooks/{stage}.ipynb again"
            )
        return path

    def checkpoint(self, name: str) -> Path:
        """Return where a training keeps what it needs to go on; gone once the stage finished."""
        return self.folder / CHECKPOINTS / f"{name}.npz"

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
        self._outputs[name] = file_digest(path)
        return path

    def adopt(self, name: str) -> Path:
        """Copy an artifact of the earlier run, byte for byte; return where it now is."""
        return self.save(name, lambda path: shutil.copyfile(self.earlier / name, path))

    def finish(
        self, *, scores: pd.DataFrame | None = None, facts: Mapping[str, object] | None = None
    ) -> None:
        """Declare the stage complete: its scores, its facts and a digest of each artifact.

        Parameters
        ----------
        scores : pandas.DataFrame, optional
            As ``cxr_helpers.scores`` makes them; lands as ``scores.csv``.
        facts : mapping, optional
            Named numbers and words that the report's prose looks up; must be plain JSON.
        """
        if scores is not None:
            self.save("scores.csv", _write_table, scores)
        declared = {
            "stage": self.name,
            "facts": dict(facts or {}),
            "outputs": dict(sorted(self._outputs.items())),
            "seconds": round(time.monotonic() - self._start, 1),
            "peak_memory_bytes": peak_memory(),
        }
        atomic.write_json(self.folder / DECLARED, declared)
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)


def upstream(names: Iterable[str]) -> set[str]:
    """Return the stages that some stages read, directly or through others."""
    found: set[str] = set()
    for name in names:
        found |= {*STAGES[name], *upstream(STAGES[name])}
    return found


def stage_folder(run_dir: Path, name: str) -> Path:
    """Return the folder of a stage's artifacts."""
    return run_dir / "stages" / name


def declared(run_dir: Path, name: str) -> dict | None:
    """Return what a finished stage declared, or None where it did not finish."""
    found = atomic.read_json(stage_folder(run_dir, name) / DECLARED)
    return found if found and "outputs" in found else None


def damaged_output(run_dir: Path, name: str) -> str | None:
    """Return the first artifact that is missing or not as it was declared, if any."""
    for output, digest in (declared(run_dir, name) or {"outputs": {}})["outputs"].items():
        path = stage_folder(run_dir, name) / output
        if not path.is_file() or file_digest(path) != digest:
            return output
    return None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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

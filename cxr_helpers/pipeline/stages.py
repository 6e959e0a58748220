"""A stage as its notebook uses it: inputs by stage and name, outputs written atomically.

Only the runner writes to the stages of a run: a notebook that is opened by hand reads the finished
run and writes to ``<run>/scratch/``. Where the run lacks a stage that it reads, it reads a quick run
on phantoms instead, which is made if need be (see ``standalone``).
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_helpers.pipeline import parameters, standalone
from cxr_helpers.pipeline.runs import DECLARED, FORMAT, KEPT, SCRATCH, Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import accelerators, digests, environment, files
from cxr_helpers.system.errors import DataError, Expected, did_you_mean
from cxr_helpers.system.terminal import short_path

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from cxr_helpers.pipeline.graph import Row

STORE = Path(".cache") / "store"  # beside the runs
# Set by the runner in its kernels: the folder of the store, the stage, and, to compute cached
# results again, any value.
RUNNER, RUNNING, RECOMPUTE = "CXR_RUNNER_STORE", "CXR_RUNNING", "CXR_RECOMPUTE"
PROGRESS = "» "  # begins the lines of a notebook's output that the runner logs


class MissingArtifact(Expected, FileNotFoundError):
    """An artifact that a stage reads is missing or does not fit the others."""


class Stage:
    """One notebook's view of a run.

    To open it makes TensorFlow's operations deterministic, see ``accelerators.prepare``.

    Parameters
    ----------
    name : str
        Stem of the notebook, such as ``"02_binary"``.
    run_dir : path
        The run's folder; created if it is missing.
    weights_from : path, optional
        Folder of an earlier run, whose models are scored instead of trained. ``earlier`` is then
        the folder of its artifacts of this stage, otherwise None.

    Raises
    ------
    ValueError
        If ``name`` is not a stage, or not that of the notebook.
    MissingArtifact
        If a stage that this one reads is not finished in this run (by hand: while it is running),
        or this stage in the earlier run, if one of them was made by another version of this
        project, or, by hand, if they were made from different data.
    DataError
        By hand, if a parameter of the notebook has a value that it does not allow.
    Refused
        By hand, if a stage that the quick run lacks fails.
    """

    def __init__(self, name: str, *, run_dir: str | Path, weights_from: str | Path = "") -> None:
        accelerators.prepare()
        self.run = Run(Path(run_dir).resolve())
        if name not in self.run.graph:
            raise ValueError(f"stage {name!r} is not one of {', '.join(self.run.graph)}")
        if (running := os.environ.get(RUNNING, name)) != name:
            raise ValueError(f"{running}.ipynb opens Stage({name!r}): it must open {running!r}")
        self.name = name
        self.by_hand = RUNNER not in os.environ
        self.earlier: Path | None = None
        reads = self.run.graph[name].reads
        if self.by_hand:
            self._check_parameters()
        if self.by_hand and self.run.owner is None:
            missing = [e for e in reads if self._source(e).outputs_digest(e) is None]
            if missing:
                self.run = standalone.quick_run(self.run, reads, missing=missing)
        self._inputs = {earlier: self._finished(earlier) for earlier in reads}
        if self.by_hand:
            self._check_agreement()
        if weights_from:
            trained = Run(Path(weights_from), self.run.graph)
            self.earlier = trained.stage(name)
            if trained.declared(name) is None or trained.damaged_output(name):
                raise MissingArtifact(f"{weights_from} has no complete {name}: run it again first")
            _check_version(trained, name)
        self.folder = (self.run.scratch if self.by_hand else self.run).stage(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / DECLARED).unlink(missing_ok=True)
        store = os.environ.get(RUNNER) or self.run_dir.parent / STORE
        self.store = Store(
            Path(store), reuse=RECOMPUTE not in os.environ, record=self.folder / KEPT, log=self.log
        )
        self._outputs: dict[str, str] = {}
        self._start = time.monotonic()
        if self.by_hand:
            self._introduce()

    def _check_parameters(self) -> None:
        """Refuse values that the notebook's parameters do not allow, as the runner does beforehand."""
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if shell is None:
            return
        try:
            known = parameters.read(self.run.graph[self.name].notebook)
        except ValueError:  # the file is being edited
            return
        missing = set(known) - set(shell.user_ns)
        if len(missing) == 1:  # with more, it is another notebook
            (name,) = missing
            hint = did_you_mean(name, filter(str.isidentifier, shell.user_ns))
            raise DataError(f"the parameter {name} has no value{hint}")
        for name in set(known) - missing:
            try:
                known[name].check(shell.user_ns[name])
            except ValueError as error:
                raise DataError(str(error)) from None

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @property
    def rows(self) -> list[Row]:
        """The rows of Table 1, whose labels the tables of the chapters show."""
        from cxr_helpers.pipeline import results  # with pandas, which most that import stages lack

        return results.rows(self.run)

    @property
    def captions(self) -> Path:
        """The file of the notebook's captions and sentences, see ``figures.captions``."""
        return self.run.graph[self.name].captions

    def _source(self, earlier: str) -> Run:
        """Return the run that a stage is read from, or its scratch."""
        return self.run.scratch if self.by_hand and _fits(self.run, earlier) else self.run

    def _finished(self, earlier: str) -> tuple[Run, str]:
        """Return the run that a stage is read from, or its scratch, and the digest of its outputs."""
        source = self._source(earlier)
        digest = source.outputs_digest(earlier)
        if digest is None:
            lacking = f"{self.name} reads {earlier}, and {self.run.name} has no finished {earlier}"
            if self.run.owner:
                lacking += f" ({self.run.owner} is running it): wait until it is finished"
            else:
                lacking += f": run notebooks/{earlier}.ipynb first, or `run_all.py`"
            raise MissingArtifact(lacking)
        _check_version(source, earlier)
        return source, digest

    def _check_agreement(self) -> None:
        """Refuse inputs that were made from different versions of the same artifacts."""
        for stage, (source, _) in self._inputs.items():
            for read, digest in source.declared(stage).get("inputs", {}).items():
                if digest != self._inputs.get(read, (source, digest))[1]:
                    raise MissingArtifact(
                        f"{stage} was made from another version of {read}: run notebooks/{stage}.ipynb "
                        f"first, or delete {short_path(self.run.scratch.folder)}, which has "
                        "what was written by hand"
                    )

    def _introduce(self) -> None:
        """Print in one line where a notebook that was opened by hand reads and writes."""
        run = self.run.name
        own = [name for name, (source, _) in self._inputs.items() if source.folder != self.run_dir]
        text = f"writes to {run}/{SCRATCH}"
        text += f", reads {', '.join(own)} from there" if own else ""
        text += f" and reads the run {run}" if len(own) < len(self._inputs) else ""
        print(f"Opened by hand: {text}. The run stays unchanged.")

    def input(self, stage: str, name: str) -> Path:
        """Return the path of an artifact of an earlier stage, which is checked to exist.

        Raises
        ------
        ValueError
            If this notebook does not declare that it reads ``stage``.
        MissingArtifact
            If the file does not exist, or the stage was run again after this notebook began.
        """
        if stage not in self._inputs:
            raise ValueError(f"{self.name} does not declare that it reads {stage}")
        source, digest = self._inputs[stage]
        path = source.stage(stage) / name
        if self.by_hand and source.outputs_digest(stage) != digest:
            raise MissingArtifact(
                f"{stage} was run again after this notebook began: run {self.name} again from its "
                "first cell"
            )
        if not path.is_file():
            raise MissingArtifact(
                f"{self.name} reads {stage}/{name}, which is missing: "
                f"run notebooks/{stage}.ipynb again"
            )
        return path

    def checkpoint(self, key: str) -> Path:
        """Return the path of the training of this key, see ``training.fit``."""
        return self.store.checkpoint(key)

    def cached(self, function: Callable, *args: object, **kwargs: object):
        """Return ``function(*args, **kwargs)``, computed once, see ``Store.call``."""
        return self.store.call(function, *args, **kwargs)

    def begin(self, function: Callable, *args: object, **kwargs: object) -> Callable[[], object]:
        """Begin ``cached(function, *args, **kwargs)``; return a function that returns its result.

        A small run leaves a core idle, on which it is computed meanwhile, see ``Store.begin``.
        """
        return self.store.begin(function, *args, **kwargs)

    def train(
        self,
        name: str,
        fit: Callable[..., pd.DataFrame],
        model: keras.Model,
        *args: object,
        save_weights: bool = True,
        **kwargs: object,
    ) -> pd.DataFrame:
        """Train a model with ``fit(model, *args, **kwargs)``; save its weights and learning curves.

        Where the models are those of an earlier run (``weights_from``), nothing is trained: the
        model gets that run's weights, and the curves are that run's.

        Parameters
        ----------
        name : str
            Of the files ``<name>.weights.h5`` and ``<name>_history.csv``.
        fit : callable
            ``training.fit`` or a function that also takes ``log`` and ``checkpoint``.
        model : keras.Model
        save_weights : bool
            False where only the curves are of use.

        Returns
        -------
        pandas.DataFrame
            The learning curves, as ``training.fit`` returns them.
        """
        import pandas as pd

        weights, curves = f"{name}.weights.h5", f"{name}_history.csv"
        if self.earlier:
            if save_weights:
                model.load_weights(self.copy_earlier(weights))
            return pd.read_csv(self.copy_earlier(curves))
        self.log(name.replace("_", " "))
        history = fit(model, *args, log=self.log, checkpoint=self.checkpoint, **kwargs)
        if save_weights:
            self.save(weights, model.save_weights)
        self.save(curves, _write_table, history)
        return history

    def log(self, line: str) -> None:
        """Print a line of progress, which the runner repeats on the terminal."""
        print(f"{PROGRESS}{line}", flush=True)

    def save(self, name: str, write: Callable, *args, **kwargs) -> None:
        """Write an artifact atomically with ``write(path, *args, **kwargs)``.

        Parameters
        ----------
        name : str
            File name in the folder of the stage.
        write : callable
            Such as ``numpy.save`` or ``model.save_weights``.
        """
        path = self.folder / name
        with files.replacing(path) as partial:
            write(partial, *args, **kwargs)
        self._outputs[name] = digests.sha256_of_file(path)

    def earlier_names(self, pattern: str) -> list[str]:
        """Return the names of the declared artifacts of the earlier run that match a pattern.

        The folder may hold others, left over from a run with other parameters.
        """
        declared = files.read_json(self.earlier / DECLARED) or {}
        return sorted(fnmatch.filter(declared.get("outputs", {}), pattern))

    def copy_earlier(self, name: str) -> Path:
        """Copy an artifact of the earlier run, byte for byte; return the path of the copy.

        Raises
        ------
        DataError
            If it has none, as where a network was added since that run was made.
        """
        if not (self.earlier / name).is_file():
            raise DataError(f"{self.earlier.parent.parent} has no {name}: make that run again")
        self.save(name, lambda path: shutil.copyfile(self.earlier / name, path))
        return self.folder / name

    def finish(
        self,
        *,
        scores: pd.DataFrame | None = None,
        predictions: pd.DataFrame | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Declare the stage finished, with its scores, its facts and a digest of each artifact.

        Parameters
        ----------
        scores : pandas.DataFrame, optional
            ``Scorecard.table``; saved as ``scores.csv``.
        predictions : pandas.DataFrame, optional
            ``Scorecard.predictions``; saved as ``predictions.csv``.
        facts : mapping, optional
            Named numbers and texts for the prose of the report; must be plain JSON.
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
            "peak_memory_bytes": environment.peak_memory(),
        }
        keys = sorted(set(self.store.used))
        files.write_text(self.folder / KEPT, "".join(f"{key}\n" for key in keys))
        files.write_json(self.folder / DECLARED, declared)
        self.store.trim()


def _fits(run: Run, stage: str) -> bool:
    """Return whether a stage was finished by hand, from the inputs that it would read now."""
    declared = run.scratch.declared(stage)
    if declared is None or not run.scratch.is_readable(stage):
        return False
    for earlier, digest in declared["inputs"].items():
        source = run.scratch if _fits(run, earlier) else run
        if source.outputs_digest(earlier) != digest:
            return False
    return True


def _check_version(run: Run, stage: str) -> None:
    """Refuse a finished stage that another version of this project made."""
    if not run.is_readable(stage):
        raise MissingArtifact(
            f"{stage} of the run {run.name} was made by another version of this project: "
            f"run `run_all.py --run {run.name}` again with its options"
        )


def _write_table(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n")

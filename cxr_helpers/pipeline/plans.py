"""What is to be done for one run: as tasks for workers, and what became of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cxr_helpers.pipeline.grid import Variant
from cxr_helpers.pipeline.runner import Log
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.tasks import FAILED, NOT_RUN, Outcome, Task
from cxr_helpers.system.errors import Refused


@dataclass(frozen=True)
class Plan:
    """A run whose images and parameters have been checked.

    Attributes
    ----------
    variant : Variant
    run : Run
    values : mapping of stage to parameters
        As they are injected into the notebooks.
    chosen : sequence of str
        The stages that may run.
    fingerprint : str
        Of the images.
    seconds : mapping of stage to float
        Expected times, see ``forecast``.
    """

    variant: Variant
    run: Run
    values: Mapping[str, Mapping[str, object]]
    chosen: Sequence[str]
    fingerprint: str
    seconds: Mapping[str, float]

    @property
    def options(self) -> argparse.Namespace:
        """The options of this run."""
        return self.variant.options

    @property
    def other_seeds(self) -> list[int]:
        """The seeds with which it is trained again."""
        return (self.options.seeds or [])[1:]

    def task_name(self, seed: int | None = None) -> str:
        """Return the name of the run's task, or of that of another seed."""
        return self.run.name if seed is None else f"{self.run.name}, seed {seed}"

    def tasks(self, *, store: str, threads: int) -> list[Task]:
        """Return the task of the run, then one for each other seed."""
        return [
            Task(
                name=self.task_name(seed),
                folder=str(self.run.folder),
                values=self.values,
                chosen=list(self.chosen),
                fingerprint=self.fingerprint,
                store=store,
                force=self.options.force,
                only=self.options.only,
                timeout=self.options.timeout,
                seconds=self.seconds,
                seed=seed,
                after=None if seed is None else self.task_name(),
                threads=threads,
            )
            for seed in (None, *self.other_seeds)
        ]

    def log(self, outcomes: Mapping[str, Outcome]) -> tuple[Log, list[str]]:
        """Return what its tasks did, and the stages that are not up to date."""
        own = [outcomes[self.task_name(seed)] for seed in (None, *self.other_seeds)]
        return [tuple(entry) for each in own for entry in each.log], own[0].stale

    def failure(self, outcomes: Mapping[str, Outcome]) -> Refused | None:
        """Return the failure of its tasks, which names the seeds; None where all succeeded."""
        failed = {
            seed: outcome
            for seed in (None, *self.other_seeds)
            if (outcome := outcomes[self.task_name(seed)]).code not in (0, NOT_RUN)
        }
        if not failed:
            return None
        reason = next(iter(failed.values())).message
        if None in failed:
            return Refused(_code(failed.values()), f"{self.run.name} failed: {reason}")
        seeds = ", ".join(map(str, failed))
        word = "seed" if len(failed) == 1 else "seeds"
        return Refused(
            _code(failed.values()), f"{word} {seeds} of {self.run.name} failed: {reason}"
        )


def _code(outcomes: Iterable[Outcome]) -> int:
    """Return the exit code that outcomes have in common, else that of failed notebooks."""
    codes = {outcome.code for outcome in outcomes}
    return codes.pop() if len(codes) == 1 and max(codes) < 128 else FAILED


def together(failures: Sequence[Refused], *, of: int) -> Refused:
    """Return the failure of several runs as one, with the message of the first."""
    codes = {error.code for error in failures}
    code = codes.pop() if len(codes) == 1 else FAILED
    if of == 1:
        return Refused(code, str(failures[0]))
    return Refused(code, f"{len(failures)} of {of} runs failed; the first: {failures[0]}")

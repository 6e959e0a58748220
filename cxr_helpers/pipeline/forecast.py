"""How long a run will take: the times of the notebooks' declarations, corrected as stages end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cxr_helpers.pipeline.graph import STANDARD, Graph

REFERENCE_IMAGES = 5856  # of the dataset for which the times of the standard preset are declared


def declared(
    graph: Graph,
    *,
    preset: str,
    n_images: int,
    phantoms: bool = True,
    precision: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Return the seconds that each stage took where the project was measured.

    Times of the standard preset are declared for the whole dataset and grow with the number of
    images; those of the other presets are for the phantoms of the preset.

    Parameters
    ----------
    graph : Graph
    preset : str
        Without times of its own, it takes as long as the standard preset.
    n_images : int
        Images of the run.
    phantoms : bool
        Whether they are phantoms. The times of other presets than the standard one were measured on
        phantoms, and are not known for other images.
    precision : mapping of stage to str
        The precision of those that have one, such as ``"mixed_bfloat16"``.

    Returns
    -------
    dict of stage to float
        Without the stages that declare no time.
    """
    seconds = {}
    for name, spec in graph.items():
        known = preset if preset in spec.seconds else STANDARD
        if known not in spec.seconds or (known != STANDARD and not phantoms):
            continue
        expected = float(spec.seconds.get(f"{known} {precision.get(name)}", spec.seconds[known]))
        seconds[name] = expected * n_images / REFERENCE_IMAGES if known == STANDARD else expected
    return seconds


class Forecast:
    """Time left, from the pace of the stages that have ended.

    Parameters
    ----------
    seconds : mapping of stage to float
        Expected on the machine that was measured; this one may be slower or faster.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)
        self._expected = self._taken = 0.0

    def ended(self, stage: str, seconds: float) -> None:
        """Record that a stage has run, and how many seconds it took."""
        if stage in self.seconds:
            self._expected += self.seconds[stage]
            self._taken += seconds

    def left(
        self,
        stages: Iterable[str],
        *,
        reads: Mapping[str, Iterable[str]] = MappingProxyType({}),
        running: Mapping[str, float] = MappingProxyType({}),
        at_once: int = 1,
    ) -> float | None:
        """Return the seconds until all stages have run.

        Parameters
        ----------
        stages : iterable of str
            Those that have not begun, in the order in which they begin.
        reads : mapping of stage to stages
            Which of the others must have ended before one begins.
        running : mapping of stage to float
            Those that have begun, with the seconds since.
        at_once : int
            How many may run at once.

        Returns
        -------
        float or None
            None where a stage has no expected time.
        """
        waiting = list(stages)
        if not all(stage in self.seconds for stage in (*waiting, *running)):
            return None
        pace = self._taken / self._expected if self._expected else 1.0
        ends = {s: max(0, pace * self.seconds[s] - since) for s, since in running.items()}
        now = 0.0
        while waiting or ends:
            unfinished = {*waiting, *ends}
            ready = [s for s in waiting if not unfinished.intersection(reads.get(s, ()))]
            for stage in ready[: max(0, at_once - len(ends))]:
                waiting.remove(stage)
                ends[stage] = now + pace * self.seconds[stage]
            now = ends.pop(min(ends, key=ends.get))
        return now


def as_text(seconds: float | None) -> str:
    """Return a time as words: ``about 4 min left in all``; empty for None."""
    return "" if seconds is None else f"{duration(seconds)} left in all"


def duration(seconds: float) -> str:
    """Return a duration as words: ``less than a minute`` or ``about 4 min``."""
    return "less than a minute" if seconds < 45 else f"about {round(seconds / 60) or 1} min"

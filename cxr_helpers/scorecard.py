"""The rows of one stage: each scored in one way on every split, with intervals and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxr_helpers import frame_groups, intervals, scores
from cxr_helpers.dataset import Dataset


@dataclass
class Scorecard:
    """Scores and predictions of a stage's rows.

    All arrays given to it have a row for every film of ``radiographs``, in their order; those
    of splits that are not scored are not looked at. Labels of test are read here, so a notebook
    calls it in cells that declare ``radiographs.evaluation()``.

    Attributes
    ----------
    radiographs : Dataset
    seed : int
        Of the bootstrap's draws; rows on the same films share them.
    """

    radiographs: Dataset
    seed: int = 0
    _scores: list[pd.DataFrame] = field(default_factory=list)
    _predictions: list[pd.DataFrame] = field(default_factory=list)
    _frame: dict[str, tuple] = field(default_factory=dict)  # by split: its AUROC, the films' sides

    def binary(
        self,
        row: str,
        *,
        predicted: np.ndarray,
        score: np.ndarray | None = None,
        probability: np.ndarray | None = None,
        splits: Sequence[str] | None = None,
        groups: bool = True,
    ) -> None:
        """Score normal-or-pneumonia predictions, see ``scores.binary``.

        ``groups`` says whether the groups of ``frame_groups`` are scored too: not for the frame's
        own rows, which are wrong on what the frame contradicts by definition.
        """
        given = {"predicted": predicted, "score": score, "probability": probability}
        truth = (self.radiographs.index["class_name"] != "normal").to_numpy(dtype=int)
        self._add(row, truth, given, kind=scores.binary, splits=splits, by_frame=groups)

    def categorical(
        self,
        row: str,
        *,
        predicted: np.ndarray,
        probabilities: np.ndarray | None = None,
        splits: Sequence[str] | None = None,
        groups: bool = True,
    ) -> None:
        """Score three-class predictions, see ``scores.categorical``; unknown kinds are left out.

        Where three classes cannot be told apart, see ``Dataset.three_classes``, nothing is scored.
        """
        if not self.radiographs.three_classes:
            return
        given = {"predicted": predicted, "probabilities": probabilities}
        self._add(
            row,
            self.radiographs.category,
            given,
            kind=scores.categorical,
            splits=splits,
            by_frame=groups,
        )

    def unavailable(self, row: str) -> None:
        """Note a row that cannot be scored on these films."""
        n = len(self.radiographs["test"])
        self._scores.append(scores.unavailable(row, "test", n))

    def _add(self, row, truth, given, *, kind, splits, by_frame) -> None:
        index = self.radiographs.index
        ranked = next((v for v in list(given.values())[1:] if v is not None and v.ndim == 1), None)
        for split in splits or self.radiographs.scored():
            films = np.flatnonzero((index["split"] == split) & (truth >= 0))
            of_split = {name: v if v is None else np.asarray(v)[films] for name, v in given.items()}
            groups = index["group"].iloc[films].to_numpy()
            lines = kind(row, split, truth[films], **of_split, groups=groups, seed=self.seed)
            score = None if ranked is None else np.asarray(ranked)[films]
            _, sides = self._frame_of(split)
            side, right = sides[films], of_split["predicted"] == truth[films]
            draws = intervals.resamples(groups, truth[films], seed=self.seed)
            normal = (index["class_name"].iloc[films] == "normal").to_numpy()
            found = {}
            if by_frame:
                found["worst_group_accuracy"] = frame_groups.worst(right, normal, side, draws)
            if by_frame and kind is scores.binary and score is not None:
                found["contradicted_auroc"] = frame_groups.contradicted_auroc(
                    truth[films], score, side, draws
                )
            extra = [(row, split, name, *line) for name, line in found.items() if line]
            self._scores.append(lines)
            if extra:
                self._scores.append(pd.DataFrame(extra, columns=scores.COLUMNS))
            self._predictions.append(
                pd.DataFrame(
                    {
                        "row": row,
                        "split": split,
                        "film": films,
                        "truth": truth[films],
                        "predicted": of_split["predicted"].astype(int),  # not True beside 1
                        "score": np.nan if score is None else score,
                    }
                )
            )

    def _frame_of(self, split: str) -> tuple[tuple[float, float, float], np.ndarray]:
        """Return the AUROC of the frame alone on a split, and the side of each film of the run."""
        if split not in self._frame:
            index = self.radiographs.index
            own = (index["split"] == split).to_numpy()
            sides = np.zeros(len(index), dtype=int)
            sides[own] = frame_groups.sides(index[own], seed=self.seed)
            self._frame[split] = frame_groups.auroc(index[own], seed=self.seed), sides
        return self._frame[split]

    def note(self, *metrics: str) -> str:
        """Return what a caption says of metrics by frame, see ``frame_groups.note``."""
        found = [name for name in metrics if (self.table["metric"] == name).any()]
        return frame_groups.note({split: auroc for split, (auroc, _) in self._frame.items()}, found)

    @property
    def table(self) -> pd.DataFrame:
        """All scores, a line a row, split and metric, as ``scores.COLUMNS``."""
        return pd.concat(self._scores, ignore_index=True)

    @property
    def predictions(self) -> pd.DataFrame:
        """What every row said of every scored film: row, split, film, truth, predicted, score."""
        return pd.concat(self._predictions, ignore_index=True)

    @property
    def of_test(self) -> pd.Series:
        """The test scores by row and metric."""
        table = self.table
        return table[table["split"] == "test"].set_index(["row", "metric"])["value"]

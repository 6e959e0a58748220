"""The rows of one stage: each scored in one way on every split, with intervals and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxr_helpers import frame_groups, scores, weighted
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

    def binary(
        self,
        row: str,
        *,
        predicted: np.ndarray,
        score: np.ndarray | None = None,
        probability: np.ndarray | None = None,
        splits: Sequence[str] | None = None,
    ) -> None:
        """Score normal-or-pneumonia predictions, see ``scores.binary``."""
        given = {"predicted": predicted, "score": score, "probability": probability}
        truth = (self.radiographs.index["class_name"] != "normal").to_numpy(dtype=int)
        self._add(row, truth, given, kind=scores.binary, splits=splits)

    def categorical(
        self,
        row: str,
        *,
        predicted: np.ndarray,
        probabilities: np.ndarray | None = None,
        splits: Sequence[str] | None = None,
    ) -> None:
        """Score three-class predictions, see ``scores.categorical``; unknown kinds are left out."""
        given = {"predicted": predicted, "probabilities": probabilities}
        self._add(row, self.radiographs.category, given, kind=scores.categorical, splits=splits)

    def unavailable(self, row: str) -> None:
        """Note a row that cannot be scored on these films."""
        n = len(self.radiographs["test"])
        self._scores.append(scores.unavailable(row, "test", n))

    def _add(self, row, truth, given, *, kind, splits) -> None:
        index = self.radiographs.index
        ranked = next((v for v in list(given.values())[1:] if v is not None and v.ndim == 1), None)
        for split in splits or self.radiographs.scored():
            films = np.flatnonzero((index["split"] == split) & (truth >= 0))
            of_split = {name: v if v is None else np.asarray(v)[films] for name, v in given.items()}
            groups = index["group"].iloc[films].to_numpy()
            lines = kind(row, split, truth[films], **of_split, groups=groups, seed=self.seed)
            right = of_split["predicted"] == truth[films]
            worst = frame_groups.worst(index.iloc[films], right)
            score = None if ranked is None else np.asarray(ranked)[films]
            against = frame_groups.contradicts(index.iloc[films])
            auroc = np.nan
            if score is not None and against.any():
                once = np.ones((1, against.sum()))
                auroc = weighted.auroc(truth[films][against], score[against], once)[0]
            extra = [("worst_group_accuracy", worst)]
            extra += [("contradicted_auroc", auroc)] if kind is scores.binary else []
            self._scores += [
                lines,
                pd.DataFrame(
                    [(row, split, name, v, np.nan, np.nan, len(films)) for name, v in extra],
                    columns=scores.COLUMNS,
                ),
            ]
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

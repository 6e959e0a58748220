"""Scores and predictions of the rows of one stage: every split and metric, with intervals.

Undefined scores are missing, not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from cxr_helpers.evaluation import bootstrap, metrics, shortcut_groups

COLUMNS = ["row", "split", "metric", "value", "low", "high", "n"]


class Labelled(Protocol):
    """Images with labels, such as ``cxr_helpers.data.dataset.Dataset``.

    Attributes
    ----------
    index : pandas.DataFrame, n rows
        ``split``, ``class_name``, ``group``, and ``border_<class>`` probabilities.
    category : ndarray of int, shape (n,)
        Class from 0; -1 where unknown.
    three_classes : bool
        Whether bacterial and viral pneumonia are distinguished.
    """

    index: pd.DataFrame
    category: np.ndarray
    three_classes: bool

    def scored(self) -> Sequence[str]:
        """Return the names of the splits to be scored."""


def score_binary(
    row: str,
    split: str,
    y_true: np.ndarray,
    *,
    y_pred: np.ndarray,
    y_score: np.ndarray | None = None,
    y_prob: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions of normal or pneumonia.

    Parameters
    ----------
    row, split : str
        Names of the classifier and of the images.
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    y_pred : array of int, shape (n,)
        Predicted classes.
    y_score : array of float, shape (n,), optional
        Higher means pneumonia, on any scale. AUROC and average precision need it or ``y_prob``.
    y_prob : array of float, shape (n,), range [0, 1], optional
        Probability of pneumonia. Adds the Brier score and the calibration error, and serves as
        ``y_score`` where that is missing.
    groups : array of str or int, shape (n,), optional
        Patient of each image. With it, intervals are computed: whole patients are resampled,
        within each class.
    seed : int
        Seed of the bootstrap. Rows with the same images and seed share their resamples.

    Returns
    -------
    pandas.DataFrame
        Columns ``row, split, metric, value, low, high, n``. ``value`` is NaN where the metric
        needs both classes and only one occurs; ``low`` and ``high`` are the 95 % bootstrap
        interval, NaN without groups. That of the calibration error is biased upwards (see
        ``metrics.calibration_error``).

    Raises
    ------
    ValueError
        If the arrays differ in length, a score is not finite, or a probability is out of range.
    """
    y_score = y_prob if y_score is None else y_score
    inputs = {
        "accuracy": (metrics.accuracy, y_pred),
        "balanced_accuracy": (metrics.balanced_accuracy, y_pred),
        "sensitivity": (metrics.sensitivity, y_pred),
        "specificity": (metrics.specificity, y_pred),
        "auroc": (metrics.auroc, y_score),
        "average_precision": (metrics.average_precision, y_score),
        "brier": (metrics.brier, y_prob),
        "calibration_error": (metrics.calibration_error, y_prob),
    }
    return _score(row, split, y_true, inputs, groups=groups, seed=seed)


def score_categorical(
    row: str,
    split: str,
    y_true: np.ndarray,
    *,
    y_pred: np.ndarray,
    y_prob: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions of three classes.

    Parameters
    ----------
    row, split : str
        Names of the classifier and of the images.
    y_true, y_pred : array of int, shape (n,)
        Positions in ``class_names.CLASSES``.
    y_prob : array of float, shape (n, 3), optional
        Rows sum to 1. Without it AUROC is left out.
    groups, seed : optional
        As for ``score_binary``.

    Returns
    -------
    pandas.DataFrame
        Columns as for ``score_binary``. AUROC is the mean over classes of one against the rest.
    """
    inputs = {
        "accuracy": (metrics.accuracy, y_pred),
        "balanced_accuracy": (metrics.balanced_accuracy, y_pred),
        "auroc": (metrics.macro_auroc, y_prob),
    }
    return _score(row, split, y_true, inputs, groups=groups, seed=seed)


def _score(
    row: str,
    split: str,
    y_true: np.ndarray,
    inputs: Mapping[str, tuple[bootstrap.Metric, np.ndarray | None]],
    *,
    groups: np.ndarray | None,
    seed: int,
) -> pd.DataFrame:
    """Return one line for each metric whose predictions are available."""
    y_true = np.asarray(y_true)
    weights = None if groups is None else bootstrap.resamples(groups, y_true, seed=seed)
    lines = [
        (
            row,
            split,
            name,
            *bootstrap.estimate(metric, y_true, values, weights=weights),
            len(y_true),
        )
        for name, (metric, values) in inputs.items()
        if values is not None
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def unavailable(row: str, split: str, n: int) -> pd.DataFrame:
    """Return the line of a row that could not be scored: its accuracy is missing."""
    return pd.DataFrame([(row, split, "accuracy", np.nan, np.nan, np.nan, n)], columns=COLUMNS)


@dataclass
class Scorecard:
    """Scores and predictions of the rows of one stage.

    All arrays given to it have one element for every image of ``radiographs``, in the same
    order; those of splits that are not scored are ignored. It reads the labels of test images,
    so a notebook calls it in cells that declare ``radiographs.evaluation()``.

    Attributes
    ----------
    radiographs : Labelled
    seed : int
        Seed of the bootstrap; rows on the same images share their resamples.
    """

    radiographs: Labelled
    seed: int = 0
    _scores: list[pd.DataFrame] = field(default_factory=list)
    _predictions: list[pd.DataFrame] = field(default_factory=list)
    # by split: AUROC of the border networks, alignment of every image
    _border: dict[str, tuple] = field(default_factory=dict)

    def binary(
        self,
        row: str,
        *,
        y_pred: np.ndarray,
        y_score: np.ndarray | None = None,
        y_prob: np.ndarray | None = None,
        splits: Sequence[str] | None = None,
        groups: bool = True,
    ) -> None:
        """Score predictions of normal or pneumonia, see ``score_binary``.

        ``groups``: whether the groups of ``shortcut_groups`` are scored too. They are not for the
        border networks' own rows, which are wrong on conflicting images by definition.
        """
        predictions = {"y_pred": y_pred, "y_score": y_score, "y_prob": y_prob}
        y_true = (self.radiographs.index["class_name"] != "normal").to_numpy(dtype=int)
        self._add(row, y_true, predictions, score=score_binary, splits=splits, by_group=groups)

    def categorical(
        self,
        row: str,
        *,
        y_pred: np.ndarray,
        y_prob: np.ndarray | None = None,
        splits: Sequence[str] | None = None,
        groups: bool = True,
    ) -> None:
        """Score predictions of three classes, see ``score_categorical``.

        Pneumonia of unknown subtype is left out. Nothing is scored where the data distinguish only
        two classes.
        """
        if not self.radiographs.three_classes:
            return
        predictions = {"y_pred": y_pred, "y_prob": y_prob}
        y_true = self.radiographs.category
        self._add(row, y_true, predictions, score=score_categorical, splits=splits, by_group=groups)

    def unavailable(self, row: str) -> None:
        """Record a row that cannot be scored on these images."""
        n = int((self.radiographs.index["split"] == "test").sum())
        self._scores.append(unavailable(row, "test", n))

    def _add(self, row, y_true, predictions, *, score, splits, by_group) -> None:
        """Score a row on every split and keep its predictions."""
        index = self.radiographs.index
        rankings = [predictions.get(name) for name in ("y_score", "y_prob")]
        ranking = next((v for v in rankings if v is not None and v.ndim == 1), None)
        for split in splits or self.radiographs.scored():
            images = np.flatnonzero((index["split"] == split) & (y_true >= 0))
            part = {
                name: v if v is None else np.asarray(v)[images] for name, v in predictions.items()
            }
            groups = index["group"].iloc[images].to_numpy()
            self._scores.append(
                score(row, split, y_true[images], **part, groups=groups, seed=self.seed)
            )
            y_score = None if ranking is None else np.asarray(ranking)[images]
            alignment = self._border_of(split)[1][images]
            if by_group:
                ranked = y_score if score is score_binary else None
                self._score_groups(
                    row,
                    split,
                    index.iloc[images],
                    y_true[images],
                    part["y_pred"],
                    ranked,
                    alignment,
                )
            self._predictions.append(
                pd.DataFrame(
                    {
                        "row": row,
                        "split": split,
                        "image": images,
                        "y_true": y_true[images],
                        "y_pred": part["y_pred"].astype(int),  # not True beside 1
                        "y_score": np.nan if y_score is None else y_score,
                    }
                )
            )

    def _score_groups(self, row, split, index, y_true, y_pred, y_score, alignment) -> None:
        """Add the worst-group accuracy and, given a score, the AUROC of conflicting images."""
        weights = bootstrap.resamples(index["group"], y_true, seed=self.seed)
        normal = (index["class_name"] == "normal").to_numpy()
        scores = {
            "worst_group_accuracy": shortcut_groups.worst_group_accuracy(
                y_pred == y_true, normal, alignment, weights
            )
        }
        if y_score is not None:
            scores["conflicting_auroc"] = shortcut_groups.conflicting_auroc(
                y_true, y_score, alignment, weights
            )
        lines = [(row, split, name, *line) for name, line in scores.items() if line]
        if lines:
            self._scores.append(pd.DataFrame(lines, columns=COLUMNS))

    def _border_of(self, split: str) -> tuple[tuple[float, float, float], np.ndarray]:
        """Return the AUROC of the border alone on a split, and the alignment of every image."""
        if split not in self._border:
            index = self.radiographs.index
            in_split = (index["split"] == split).to_numpy()
            alignment = np.zeros(len(index), dtype=int)
            alignment[in_split] = shortcut_groups.alignment(index[in_split], seed=self.seed)
            auroc = shortcut_groups.auroc(index[in_split], seed=self.seed)
            self._border[split] = auroc, alignment
        return self._border[split]

    def note(self, *metrics: str) -> str:
        """Return the note of a caption on metrics by group, see ``shortcut_groups.note``."""
        scored = [name for name in metrics if (self.table["metric"] == name).any()]
        return shortcut_groups.note(
            {split: auroc for split, (auroc, _) in self._border.items()}, scored
        )

    @property
    def table(self) -> pd.DataFrame:
        """All scores, one line for each row, split and metric, with the columns ``COLUMNS``."""
        return pd.concat(self._scores, ignore_index=True)

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of every row: ``row, split, image, y_true, y_pred, y_score``."""
        return pd.concat(self._predictions, ignore_index=True)

    @property
    def of_test(self) -> pd.Series:
        """Test scores by row and metric."""
        table = self.table
        return table[table["split"] == "test"].set_index(["row", "metric"])["value"]

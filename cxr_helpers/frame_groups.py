"""Films by what their frame says of their class, for or against: where leaning on style fails.

The frame says something only where it knows something: on a split where the AUROC of the frame
networks (see ``frame``) may be one half, no film has a side and there is no group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import special

from cxr_helpers import intervals, weighted

SMALLEST = 5  # films: the accuracy of fewer says nothing
# A likelihood ratio nearer to 1 is "rarely important" (Jaeschke, Guyatt & Sackett 1994, JAMA 271,
# 703-707): the frame then speaks neither for normal nor for pneumonia.
DECISIVE = 2.0
MEANING = {  # of each metric, for captions
    "worst_group_accuracy": "Worst group: lowest accuracy of normal or pneumonia with the frame "
    "speaking for or against the class; its interval lies low, as the lowest of several does.",
    "contradicted_auroc": "Contradicted AUROC: only the films whose frame speaks against their "
    "class.",
}


def prior(index: pd.DataFrame) -> float:
    """Return the share of normal films among what the frame networks were trained on.

    Their classes were drawn equally often: 1/3 for three classes, 1/2 for two.

    Parameters
    ----------
    index : pandas.DataFrame
        A column ``frame_<class>`` for each class; one that is empty or 0 throughout is none.
    """
    return 1 / max(1, (index.filter(regex="^frame_") > 0).any().sum())


def auroc(index: pd.DataFrame, *, seed: int) -> tuple[float, float, float]:
    """Return how well the frame alone tells pneumonia from normal, and the 95 % interval.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        The films of one split: ``class_name``, ``group`` and ``frame_normal``, the frame's
        probability of normal, 0 to 1.
    seed : int
        Of the bootstrap's draws: whole groups, within each class.

    Returns
    -------
    (value, low, high) : floats
        NaN where a class is missing or the frame networks judged none of the films.
    """
    normal = index["frame_normal"].to_numpy(dtype=float)
    if np.isnan(normal).any() or not len(normal):
        return np.nan, np.nan, np.nan
    truth = (index["class_name"] != "normal").to_numpy(dtype=int)
    weights = intervals.resamples(index["group"], truth, seed=seed)
    return intervals.estimate(weighted.auroc, truth, 1 - normal, weights=weights)


def sides(index: pd.DataFrame, *, seed: int) -> np.ndarray:
    """Say of which films the frame speaks for their class and of which against it.

    The frame's odds of normal are compared with those of the networks' training: at least
    ``DECISIVE`` times as high speaks for normal, as low for pneumonia.

    Parameters
    ----------
    index, seed
        As for ``auroc``, with the other ``frame_`` columns, see ``prior``.

    Returns
    -------
    ndarray of int, shape (n,)
        1 for the class, -1 against it, 0 neither. All 0 where the interval of ``auroc`` holds one
        half: such a frame knows nothing that a label could contradict.
    """
    if not _knows(*auroc(index, seed=seed)):
        return np.zeros(len(index), dtype=int)
    said = np.clip(index["frame_normal"].to_numpy(dtype=float), 1e-7, 1 - 1e-7)
    ratio = special.logit(said) - special.logit(prior(index))
    spoken = np.where(np.abs(ratio) < np.log(DECISIVE), 0, np.sign(ratio)).astype(int)
    return np.where(index["class_name"] == "normal", spoken, -spoken)


def counts(index: pd.DataFrame, *, seed: int) -> dict[str, int]:
    """Count the films of a split by ``sides``, those that the frame contradicts by class."""
    side = sides(index, seed=seed)
    normal = (index["class_name"] == "normal").to_numpy()
    return {
        "films": len(index),
        "frame for the class": int((side > 0).sum()),
        "normal, frame against": int((normal & (side < 0)).sum()),
        "pneumonia, frame against": int((~normal & (side < 0)).sum()),
        "neither": int((side == 0).sum()),
    }


def worst(
    right: np.ndarray, normal: np.ndarray, side: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int] | None:
    """Return the accuracy in the worst of four groups: normal or pneumonia, frame for or against.

    Sagawa et al. (2020), *Distributionally robust neural networks for group shifts*.

    Parameters
    ----------
    right, normal : array of bool, shape (n,)
        Whether the film's prediction was right; whether it is normal.
    side : array of int, shape (n,)
        From ``sides``.
    weights : array of int, shape (draws, n)
        From ``intervals.resamples``.

    Returns
    -------
    (value, low, high, n) or None
        Over the groups of at least ``SMALLEST`` films; n is the worst group's. The interval is
        that of the lowest accuracy in each draw, whichever group it is of, and so lies low. None
        where neither group that the frame contradicts is so large.
    """
    groups = list(_large(normal, side))
    if not any((side[group] < 0).all() for group in groups):
        return None
    truth = np.ones(len(right), dtype=int)

    def accuracies(weights: np.ndarray) -> np.ndarray:
        parts = [weighted.accuracy(truth[g], right[g], weights[:, g]) for g in groups]
        return np.array(parts)

    found = accuracies(np.ones((1, len(right))))[:, 0]
    lowest = np.fmin.reduce(accuracies(weights))
    size = len(groups[found.argmin()])
    return float(found.min()), *intervals.percentile(lowest), size


def contradicted_auroc(
    truth: np.ndarray, score: np.ndarray, side: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int] | None:
    """Return the AUROC of a score over the films that the frame contradicts.

    Parameters
    ----------
    truth : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    score : array of float, shape (n,)
    side, weights
        As for ``worst``.

    Returns
    -------
    (value, low, high, n) or None
        None where fewer than ``SMALLEST`` such films are normal, or have pneumonia.
    """
    against = np.flatnonzero(side < 0)
    if np.bincount(truth[against], minlength=2).min() < SMALLEST:
        return None
    found = intervals.estimate(
        weighted.auroc, truth[against], score[against], weights=weights[:, against]
    )
    return *found, len(against)


def note(aurocs: Mapping[str, tuple[float, float, float]], metrics: Collection[str]) -> str:
    """Return the sentences of a caption that say what the groups are, or why there are none.

    Parameters
    ----------
    aurocs : mapping of split to (value, low, high)
        From ``auroc``.
    metrics : collection of str
        The keys of ``MEANING`` that the table has.
    """
    if metrics:
        n = (
            "n is the number of films in the group; a dash means that there is no such group, or "
            "that the row is the frame's own."
        )
        return " ".join([*(MEANING[name] for name in metrics), n])
    known = {split: found for split, found in aurocs.items() if not np.isnan(found[0])}
    few = {split: found for split, found in known.items() if _knows(*found)}
    said = []
    if set(known) > set(few) or not known:
        said.append(
            f"The frame alone does not tell normal from pneumonia here{_measured(known, few)}: there "
            "is nothing for a label to contradict, and so no score by what the frame says."
        )
    if few:
        said.append(
            f"The frame contradicts the class of too few films{_measured(few)} for a group of "
            "their own."
        )
    return " ".join(said)


def _measured(aurocs: Mapping, without: Collection[str] = ()) -> str:
    """Return the AUROC of some splits in brackets, as text; nothing where there is none."""
    found = "; ".join(
        f"{split} {value:.3f} [{low:.2f}, {high:.2f}]"
        for split, (value, low, high) in aurocs.items()
        if split not in without
    )
    return f" (AUROC: {found})" * bool(found)


def _knows(_: float, low: float, high: float) -> bool:
    """Return whether an AUROC's interval excludes one half; an undefined one does not."""
    return low > 0.5 or high < 0.5


def _large(normal: np.ndarray, side: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of each of the four groups that has enough films."""
    for is_normal in (True, False):
        for of_side in (1, -1):
            rows = np.flatnonzero((normal == is_normal) & (side == of_side))
            if len(rows) >= SMALLEST:
                yield rows

"""Images by what their border says of their class, for or against: where leaning on style fails.

The border says something only where it knows something: on a split where the AUROC of the border
networks (see ``border``) may be one half, no image has a side and there is no group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import special

from cxr_helpers.evaluation import bootstrap, metrics

MINIMUM_IMAGES = 5  # images: the accuracy of fewer says nothing
# A likelihood ratio nearer to 1 is "rarely important" (Jaeschke, Guyatt & Sackett 1994, JAMA 271,
# 703-707): the border then speaks neither for normal nor for pneumonia.
MINIMUM_RATIO = 2.0
MEANING = {  # of each metric, for captions
    "worst_group_accuracy": "Worst group: lowest accuracy of normal or pneumonia with the border "
    "speaking for or against the class; its interval lies low, as the lowest of several does.",
    "conflicting_auroc": "Conflicting AUROC: only the images whose border speaks against their "
    "class.",
}


def prior(index: pd.DataFrame) -> float:
    """Return the share of normal images among what the border networks were trained on.

    Their classes were drawn equally often: 1/3 for three classes, 1/2 for two.

    Parameters
    ----------
    index : pandas.DataFrame
        A column ``border_<class>`` for each class; one that is empty or 0 throughout is none.
    """
    return 1 / max(1, (index.filter(regex="^border_") > 0).any().sum())


def auroc(index: pd.DataFrame, *, seed: int) -> tuple[float, float, float]:
    """Return how well the border alone tells pneumonia from normal, and the 95 % interval.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        The images of one split: ``class_name``, ``group`` and ``border_normal``, the border's
        probability of normal, 0 to 1.
    seed : int
        Of the bootstrap's draws: whole groups, within each class.

    Returns
    -------
    (value, low, high) : floats
        NaN where a class is missing or the border networks judged none of the images.
    """
    normal = index["border_normal"].to_numpy(dtype=float)
    if np.isnan(normal).any() or not len(normal):
        return np.nan, np.nan, np.nan
    y_true = (index["class_name"] != "normal").to_numpy(dtype=int)
    weights = bootstrap.resamples(index["group"], y_true, seed=seed)
    return bootstrap.estimate(metrics.auroc, y_true, 1 - normal, weights=weights)


def alignment(index: pd.DataFrame, *, seed: int) -> np.ndarray:
    """Say of which images the border speaks for their class and of which against it.

    The border's odds of normal are compared with those of the networks' training: at least
    ``DECISIVE`` times as high speaks for normal, as low for pneumonia.

    Parameters
    ----------
    index, seed
        As for ``auroc``, with the other ``border_`` columns, see ``prior``.

    Returns
    -------
    ndarray of int, shape (n,)
        1 for the class, -1 against it, 0 neither. All 0 where the interval of ``auroc`` holds one
        half: such a border knows nothing that a label could contradict.
    """
    if not _knows(*auroc(index, seed=seed)):
        return np.zeros(len(index), dtype=int)
    said = np.clip(index["border_normal"].to_numpy(dtype=float), 1e-7, 1 - 1e-7)
    ratio = special.logit(said) - special.logit(prior(index))
    spoken = np.where(np.abs(ratio) < np.log(MINIMUM_RATIO), 0, np.sign(ratio)).astype(int)
    return np.where(index["class_name"] == "normal", spoken, -spoken)


def counts(index: pd.DataFrame, *, seed: int) -> dict[str, int]:
    """Count the images of a split by ``sides``, those that the border contradicts by class."""
    side = alignment(index, seed=seed)
    normal = (index["class_name"] == "normal").to_numpy()
    return {
        "images": len(index),
        "border for the class": int((side > 0).sum()),
        "normal, border against": int((normal & (side < 0)).sum()),
        "pneumonia, border against": int((~normal & (side < 0)).sum()),
        "neither": int((side == 0).sum()),
    }


def worst_group_accuracy(
    right: np.ndarray, normal: np.ndarray, side: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int] | None:
    """Return the accuracy in the worst of four groups: normal or pneumonia, border for or against.

    Sagawa et al. (2020), *Distributionally robust neural networks for group shifts*.

    Parameters
    ----------
    right, normal : array of bool, shape (n,)
        Whether the image's prediction was right; whether it is normal.
    side : array of int, shape (n,)
        From ``sides``.
    weights : array of int, shape (draws, n)
        From ``intervals.resamples``.

    Returns
    -------
    (value, low, high, n) or None
        Over the groups of at least ``SMALLEST`` images; n is the worst group's. The interval is
        that of the lowest accuracy in each draw, whichever group it is of, and so lies low. None
        where neither group that the border contradicts is so large.
    """
    groups = list(_large(normal, side))
    if not any((side[group] < 0).all() for group in groups):
        return None
    y_true = np.ones(len(right), dtype=int)

    def accuracies(weights: np.ndarray) -> np.ndarray:
        parts = [metrics.accuracy(y_true[g], right[g], weights[:, g]) for g in groups]
        return np.array(parts)

    found = accuracies(np.ones((1, len(right))))[:, 0]
    lowest = np.fmin.reduce(accuracies(weights))
    size = len(groups[found.argmin()])
    return float(found.min()), *bootstrap.percentile(lowest), size


def conflicting_auroc(
    y_true: np.ndarray, score: np.ndarray, side: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int] | None:
    """Return the AUROC of a score over the images that the border contradicts.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    score : array of float, shape (n,)
    side, weights
        As for ``worst``.

    Returns
    -------
    (value, low, high, n) or None
        None where fewer than ``SMALLEST`` such images are normal, or have pneumonia.
    """
    against = np.flatnonzero(side < 0)
    if np.bincount(y_true[against], minlength=2).min() < MINIMUM_IMAGES:
        return None
    found = bootstrap.estimate(
        metrics.auroc, y_true[against], score[against], weights=weights[:, against]
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
            "n is the number of images in the group; a dash means that there is no such group, or "
            "that the row is the border's own."
        )
        return " ".join([*(MEANING[name] for name in metrics), n])
    known = {split: found for split, found in aurocs.items() if not np.isnan(found[0])}
    few = {split: found for split, found in known.items() if _knows(*found)}
    said = []
    if set(known) > set(few) or not known:
        said.append(
            f"The border alone does not tell normal from pneumonia here{_measured(known, few)}: there "
            "is nothing for a label to contradict, and so no score by what the border says."
        )
    if few:
        said.append(
            f"The border contradicts the class of too few images{_measured(few)} for a group of "
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
    """Yield the rows of each of the four groups that has enough images."""
    for is_normal in (True, False):
        for of_side in (1, -1):
            rows = np.flatnonzero((normal == is_normal) & (side == of_side))
            if len(rows) >= MINIMUM_IMAGES:
                yield rows

"""Shortcut-aligned and shortcut-conflicting images: where relying on image style fails.

An image is aligned if a network that sees only its border predicts its class, and conflicting if
that network predicts another. Groups exist only on splits where the border is informative (the 95 %
interval of the border networks' AUROC lies above one half, from ``MINIMUM_PATIENTS`` of each class), and
where these networks predict either class for ``MINIMUM_IMAGES`` or more: if they predict one class only,
the groups are the classes themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import special

from cxr_helpers.evaluation import bootstrap, metrics
from cxr_helpers.evaluation.tables import with_interval

MINIMUM_IMAGES = 5  # of a group: the accuracy on fewer is not informative
# Of a class: from fewer, the border is not shown to be informative.
MINIMUM_PATIENTS = bootstrap.FEWEST
# A likelihood ratio nearer to 1 is "rarely important" (Jaeschke, Guyatt & Sackett 1994, JAMA 271,
# 703-707): the image is then neither aligned nor conflicting.
MINIMUM_RATIO = 2.0
MEANING = {  # of each metric, for captions
    "worst_group_accuracy": "Worst group: lowest accuracy among normal and pneumonia images whose "
    "border predicts their class (aligned) or the other (conflicting); its interval is biased "
    "downwards, as that of a minimum is.",
    "conflicting_auroc": "Conflicting AUROC: only images whose border predicts the other class.",
}


def prior(index: pd.DataFrame) -> float:
    """Return the share of normal images in the training of the border networks.

    Their classes were sampled equally often: 1/3 for three classes, 1/2 for two.

    Parameters
    ----------
    index : pandas.DataFrame
        One column ``border_<class>`` per class; empty or all-zero columns are ignored.
    """
    return 1 / max(1, (index.filter(regex="^border_") > 0).any().sum())


def auroc(index: pd.DataFrame, *, seed: int) -> tuple[float, float, float]:
    """Return the AUROC of the border alone for pneumonia against normal, and its 95 % interval.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        The images of one split: ``class_name``, ``group`` and ``border_normal``, the border
        network's probability of normal, 0 to 1.
    seed : int
        Seed of the bootstrap, which resamples whole groups within each class.

    Returns
    -------
    (value, low, high) : floats
        NaN where a class is missing or the border networks predicted no image; the interval also
        where a class has fewer than ``MINIMUM_PATIENTS``.
    """
    normal = index["border_normal"].to_numpy(dtype=float)
    if np.isnan(normal).any() or not len(normal):
        return np.nan, np.nan, np.nan
    y_true = (index["class_name"] != "normal").to_numpy(dtype=int)
    weights = bootstrap.resamples(index["group"], y_true, seed=seed)
    value, *interval = bootstrap.estimate(metrics.auroc, y_true, 1 - normal, weights=weights)
    enough = bootstrap.fewest_patients(index["group"], y_true) >= MINIMUM_PATIENTS
    return value, *(interval if enough else (np.nan, np.nan))


def alignment(index: pd.DataFrame, *, seed: int) -> np.ndarray:
    """Return which images are shortcut-aligned and which are shortcut-conflicting.

    The border network's odds of normal are divided by the odds in its training. A ratio of at
    least ``MINIMUM_RATIO`` predicts normal, one of at most ``1 / MINIMUM_RATIO`` pneumonia.

    Parameters
    ----------
    index, seed
        As for ``auroc``, with the remaining ``border_`` columns, see ``prior``.

    Returns
    -------
    ndarray of int, shape (n,)
        1 aligned, -1 conflicting, 0 neither. All 0 where the interval of ``auroc`` does not lie
        above one half, and where fewer than ``MINIMUM_IMAGES`` images are predicted as normal, or as
        pneumonia.
    """
    if not _is_informative(auroc(index, seed=seed)):
        return np.zeros(len(index), dtype=int)
    y_prob = np.clip(index["border_normal"].to_numpy(dtype=float), 1e-7, 1 - 1e-7)
    log_ratio = special.logit(y_prob) - special.logit(prior(index))
    towards_normal = np.where(np.abs(log_ratio) < np.log(MINIMUM_RATIO), 0, np.sign(log_ratio))
    towards_normal = towards_normal.astype(int)
    if min((towards_normal == side).sum() for side in (1, -1)) < MINIMUM_IMAGES:
        return np.zeros(len(index), dtype=int)
    return np.where(index["class_name"] == "normal", towards_normal, -towards_normal)


def balancing_weights(index: pd.DataFrame) -> np.ndarray:
    """Return weights of images with which their border says little about their class.

    It says nothing if the border networks' probabilities are calibrated, which is not checked.

    Each image is weighted by the probability of the *other* class given its border (overlap
    weights: Li, Morgan and Zaslavsky 2018, doi:10.1080/01621459.2016.1260466). Scores with these
    weights estimate those in a hospital where image style is not associated with disease; unlike
    the conflicting images, all images count.

    Parameters
    ----------
    index : pandas.DataFrame, n rows
        As for ``alignment``.

    Returns
    -------
    ndarray of float, shape (n,), range (0, 1)
    """
    y_prob = np.clip(index["border_normal"].to_numpy(dtype=float), 1e-6, 1 - 1e-6)
    is_normal = (index["class_name"] == "normal").to_numpy()
    log_odds = special.logit(y_prob) - special.logit(prior(index)) + special.logit(is_normal.mean())
    normal = special.expit(log_odds)
    return np.where(is_normal, 1 - normal, normal)


def counts(index: pd.DataFrame, *, seed: int) -> dict[str, int]:
    """Count the images of a split by ``alignment``, the conflicting ones by class."""
    aligned = alignment(index, seed=seed)
    normal = (index["class_name"] == "normal").to_numpy()
    return {
        "images": len(index),
        "aligned": int((aligned > 0).sum()),
        "normal, conflicting": int((normal & (aligned < 0)).sum()),
        "pneumonia, conflicting": int((~normal & (aligned < 0)).sum()),
        "neither": int((aligned == 0).sum()),
    }


def worst_group_accuracy(
    right: np.ndarray, normal: np.ndarray, aligned: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int] | None:
    """Return the lowest accuracy of four groups: normal or pneumonia, aligned or conflicting.

    Sagawa et al. (2020), *Distributionally robust neural networks for group shifts*.

    Parameters
    ----------
    right, normal : array of bool, shape (n,)
        Whether the image's prediction is correct; whether the image is normal.
    aligned : array of int, shape (n,)
        From ``alignment``.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    (value, low, high, n) or None
        Over the groups of at least ``MINIMUM_IMAGES`` images; n is the size of the worst one. The
        interval is that of the lowest accuracy in each resample, whichever group it belongs to,
        and is therefore biased downwards. None where no conflicting group is large enough.
    """
    groups = list(_large_groups(normal, aligned))
    if not any((aligned[group] < 0).all() for group in groups):
        return None
    y_true = np.ones(len(right), dtype=int)

    def accuracies(weights: np.ndarray) -> np.ndarray:
        each = [metrics.accuracy(y_true[g], right[g], weights[:, g]) for g in groups]
        return np.array(each)

    values = accuracies(np.ones((1, len(right))))[:, 0]
    lowest = np.fmin.reduce(bootstrap.in_blocks(accuracies, weights))
    n = len(groups[values.argmin()])
    return float(values.min()), *bootstrap.percentile(lowest), n


def conflicting_auroc(
    y_true: np.ndarray, y_score: np.ndarray, aligned: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int] | None:
    """Return the AUROC on the shortcut-conflicting images.

    Parameters
    ----------
    y_true : array of int, shape (n,)
        1 for pneumonia, 0 for normal.
    y_score : array of float, shape (n,)
        Higher means pneumonia, on any scale.
    aligned, weights
        As for ``worst_group_accuracy``.

    Returns
    -------
    (value, low, high, n) or None
        None where fewer than ``MINIMUM_IMAGES`` of either class are conflicting.
    """
    rows = np.flatnonzero(aligned < 0)
    if np.bincount(y_true[rows], minlength=2).min() < MINIMUM_IMAGES:
        return None
    auroc = bootstrap.estimate(metrics.auroc, y_true[rows], y_score[rows], weights=weights[:, rows])
    return *auroc, len(rows)


def note(aurocs: Mapping[str, tuple[float, float, float]], metrics: Collection[str]) -> str:
    """Return the sentences of a caption that define the groups, or state why there are none.

    Parameters
    ----------
    aurocs : mapping of split to (value, low, high)
        From ``auroc``.
    metrics : collection of str
        The keys of ``MEANING`` that the table has.
    """
    if metrics:
        n = (
            f"n is the number of images in the group. Groups of fewer than {MINIMUM_IMAGES} images are not "
            "scored; a dash means that all are smaller, or that the row is a border network."
        )
        return " ".join([*(MEANING[name] for name in metrics), n])
    defined = {split: auroc for split, auroc in aurocs.items() if not np.isnan(auroc[0])}
    informative = {split: auroc for split, auroc in defined.items() if _is_informative(auroc)}
    sentences = []
    if set(defined) > set(informative) or not defined:
        sentences.append(
            "The border alone is not shown to rank images with pneumonia above normal ones here"
            f"{_in_brackets(defined, without=informative)}: no image counts as aligned or "
            "conflicting, and no group is scored."
        )
        if any(np.isnan(low) for _, low, _ in defined.values()):
            sentences.append(
                f"AUROCs without an interval are of fewer than {MINIMUM_PATIENTS} patients of a class."
            )
    if informative:
        sentences.append(
            f"On splits where the border is informative{_in_brackets(informative)}, it predicts "
            f"normal, or pneumonia, for fewer than {MINIMUM_IMAGES} images, or fewer than "
            f"{MINIMUM_IMAGES} are conflicting (for an AUROC: of either class): no group is scored."
        )
    return " ".join(sentences)


def _in_brackets(aurocs: Mapping, *, without: Collection[str] = ()) -> str:
    """Return the AUROC of each split as text in brackets; an empty string without any."""
    text = "; ".join(
        f"{split} {with_interval(*auroc)}"
        for split, auroc in aurocs.items()
        if split not in without
    )
    return f" (AUROC: {text})" * bool(text)


def _is_informative(auroc: tuple[float, float, float]) -> bool:
    """Return whether the interval of an AUROC lies above one half; an undefined one does not."""
    _, low, _ = auroc
    return low > 0.5


def _large_groups(normal: np.ndarray, aligned: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of each of the four groups with at least ``MINIMUM_IMAGES`` images."""
    for is_normal in (True, False):
        for sign in (1, -1):
            rows = np.flatnonzero((normal == is_normal) & (aligned == sign))
            if len(rows) >= MINIMUM_IMAGES:
                yield rows

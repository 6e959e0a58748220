"""Scores under changes of image style: how far a network would fall in another hospital."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from cxr_helpers.evaluation import bootstrap, metrics
from cxr_helpers.evaluation.tables import with_interval

UNCHANGED = "unchanged"


def scores(
    versions: Iterable[tuple[str, np.ndarray]],
    predictors: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    y_true: np.ndarray,
    *,
    groups: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """Score networks on the same images in several versions.

    Parameters
    ----------
    versions : iterable of (name, images)
        The images, ``UNCHANGED`` and after each change; read one after the other.
    predictors : mapping of network to callable
        Takes images, returns the probability of pneumonia, shape (n,).
    y_true : ndarray of int, shape (n,)
        1 for pneumonia, 0 for normal.
    groups : ndarray, shape (n,)
        Images of one group are resampled together.
    seed : int
        Of the bootstrap; all versions and networks share the resamples.

    Returns
    -------
    pandas.DataFrame
        Columns ``network, change, metric, value, low, high``; metrics ``accuracy`` (threshold
        0.5) and ``auroc``, with 95 % intervals.
    """
    weights = bootstrap.resamples(groups, y_true, seed=seed)
    lines = []
    for change, images in versions:
        for network, predict in predictors.items():
            y_prob = predict(images)
            for name, metric, values in (
                ("accuracy", metrics.accuracy, (y_prob >= 0.5).astype(int)),
                ("auroc", metrics.auroc, y_prob),
            ):
                estimate = bootstrap.estimate(metric, y_true, values, weights=weights)
                lines.append((network, change, name, *estimate))
    return pd.DataFrame(lines, columns=["network", "change", "metric", "value", "low", "high"])


def summary(table: pd.DataFrame, metric: str = "auroc") -> pd.DataFrame:
    """Return what the changes do to each network.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``scores``.
    metric : str
        ``"accuracy"`` or ``"auroc"``.

    Returns
    -------
    pandas.DataFrame, indexed by network
        ``unchanged``, ``mean`` over the changes, ``worst`` with its interval ``low`` and ``high``, and
        the name of the ``worst_change``.
    """
    of_metric = table[table["metric"] == metric]
    values = of_metric.pivot(index="network", columns="change", values="value")
    values = values.reindex(dict.fromkeys(of_metric["network"]))
    changed = values.drop(columns=UNCHANGED)
    worst = changed.fillna(np.inf).idxmin(axis=1)  # NaN where the test images are of one class
    interval = of_metric.set_index(["network", "change"])[["low", "high"]]
    interval = interval.loc[list(worst.items())].reset_index("change", drop=True)
    return pd.DataFrame(
        {
            "unchanged": values[UNCHANGED],
            "mean": changed.mean(axis=1),
            "worst": changed.min(axis=1),
            "low": interval["low"],
            "high": interval["high"],
            "worst_change": worst,
        }
    )


def as_text(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one line for each change and one column for each network, values as text.

    Parameters are those of ``summary``.

    Returns
    -------
    pandas.DataFrame
        Column ``change``, then one for each network, with text as ``tables.with_interval`` writes it.
    """
    of_metric = table[table["metric"] == metric]
    text = [with_interval(*line) for line in of_metric[["value", "low", "high"]].to_numpy()]
    lines = of_metric.assign(text=text).pivot(index="change", columns="network", values="text")
    order = dict.fromkeys(of_metric["change"]), dict.fromkeys(of_metric["network"])
    return lines.loc[list(order[0]), list(order[1])].rename_axis(columns=None).reset_index()

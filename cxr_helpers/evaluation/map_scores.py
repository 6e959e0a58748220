"""Heat maps compared with maps that no model made, on the same resamples of patients."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from cxr_helpers.evaluation import bootstrap, metrics

VERDICTS = ("better", "no", "worse")


def against_controls(
    table: pd.DataFrame, metric: str, *, controls: Collection[str], weights: np.ndarray
) -> pd.DataFrame:
    """Return the mean of a metric for each network and method, and whether it beats the best control.

    The control with the highest mean on these very images is taken, which favours the control.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network``, ``method``, ``image`` (position, 0 to n - 1) and the metric, of which
        more is better; NaN where it is not defined.
    metric : str
    controls : collection of str
        Methods that are controls.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``value``, ``low``, ``high``, ``control`` (the best one of
        this network) and ``verdict``: ``better`` or ``worse`` only where the 95 % interval of the
        difference from it excludes 0. One row for each method, and one for the best control,
        without a verdict.
    """
    lines = []
    for network, part in table.groupby("network", sort=False):
        values = part.pivot(index="method", columns="image", values=metric)
        values = values.loc[part["method"].unique()]
        best = values.loc[values.index.isin(controls)].mean(axis=1).idxmax()
        for method, own in values.iterrows():
            if method in controls and method != best:
                continue
            own, other = own.to_numpy(), values.loc[best].to_numpy()
            estimate = bootstrap.estimate(metrics.mean, own, own, weights=weights)
            lines.append((network, method, *estimate, best, _verdict(own, other, weights)))
            if method == best:
                lines[-1] = (*lines[-1][:-1], "")
    names = ["network", "method", "value", "low", "high", "control", "verdict"]
    return pd.DataFrame(lines, columns=names)


def _verdict(own: np.ndarray, other: np.ndarray, weights: np.ndarray) -> str:
    """Return one of ``VERDICTS``; a dash where the metric is defined on no image."""
    gap = own - other  # NaN where either is not defined: compared on the same images
    _, low, high = bootstrap.estimate(metrics.mean, gap, gap, weights=weights)
    if np.isnan(low):
        return "–"
    return VERDICTS[0] if low > 0 else VERDICTS[2] if high < 0 else VERDICTS[1]

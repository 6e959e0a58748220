"""Heat maps compared with controls, on the same resamples of patients."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from cxr_helpers.evaluation import bootstrap, metrics, tables

VERDICTS = ("better", "no", "worse")
FALSE_ALARMS = 0.05  # share of images


def against_controls(
    table: pd.DataFrame,
    metric: str,
    *,
    controls: Collection[str],
    bounds: Collection[str] = (),
    weights: np.ndarray,
) -> pd.DataFrame:
    """Return the mean of a metric for each network and method, and whether it beats the best control.

    The control with the highest mean over all images is taken for every method of a network: chosen
    on the images that it is compared on, which favours the control.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network``, ``method``, ``image`` (position, 0 to n - 1) and the metric, of which
        more is better; NaN where it is not defined.
    metric : str
    controls : collection of str
        Methods that are controls.
    bounds : collection of str
        Methods that no map can be better than, such as the true outline: they get no verdict.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``value``, ``low``, ``high``, ``control`` (the best one of
        this network) and ``verdict``: ``better`` or ``worse`` only where the 95 % interval of the
        difference from it excludes 0. One row for each method, and, without a verdict, for each
        bound and the best control. Below ``bootstrap.FEWEST`` patients the interval is NaN, and the
        verdict a dash.
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
            judged = method != best and method not in bounds
            verdict = _verdict(own, other, weights) if judged else ""
            lines.append((network, method, *mean(own, weights), best, verdict))
    names = ["network", "method", "value", "low", "high", "control", "verdict"]
    return pd.DataFrame(lines, columns=names)


def _verdict(own: np.ndarray, other: np.ndarray, weights: np.ndarray) -> str:
    """Return one of ``VERDICTS``; a dash where the images of too few patients have both, see ``mean``."""
    gap = own - other  # NaN where either is not defined: compared on the same images
    _, low, high = mean(gap, weights)
    if np.isnan(low):
        return "–"
    return VERDICTS[0] if low > 0 else VERDICTS[2] if high < 0 else VERDICTS[1]


def mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval, NaN below ``bootstrap.FEWEST`` patients with a value.

    Parameters are those of ``bootstrap.mean``.
    """
    return bootstrap.mean(values, weights=weights, fewest=bootstrap.FEWEST)


def means(table: pd.DataFrame, *, weights: np.ndarray) -> pd.DataFrame:
    """Return the mean of every score of each network and method, with its 95 % interval.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network``, ``method``, ``image`` (position, 0 to n - 1), and scores; NaN, or no
        line, where a score is not defined on an image.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``score``, ``n`` (images), ``value``, ``low``, ``high``; the
        interval is NaN below ``bootstrap.FEWEST`` patients. A score that is defined on no image of a
        method has no line.
    """
    lines, keys = [], ["network", "method"]
    images = range(weights.shape[1])
    for (network, method), part in table.set_index("image").groupby(keys, sort=False):
        for score, values in part.drop(columns=keys).reindex(images).items():
            if n := int(values.notna().sum()):
                lines.append((network, method, score, n, *mean(values.to_numpy(), weights)))
    return pd.DataFrame(lines, columns=[*keys, "score", "n", "value", "low", "high"])


def mean_curves(
    curves: pd.DataFrame, *, shown: Mapping[str, Sequence[str]], weights: np.ndarray
) -> pd.DataFrame:
    """Return mean removal curves with 95 % intervals.

    Parameters
    ----------
    curves : pandas.DataFrame
        Columns ``network``, ``method``, ``image`` (position, 0 to n - 1), ``share``, ``most`` and
        ``least``, of one fill.
    shown : mapping of network to sequence of str
        Two of its methods, the second of which is a control.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``control`` (bool), ``order`` (``most`` or ``least``),
        ``share``, ``value``, ``low`` and ``high`` (NaN below ``bootstrap.FEWEST`` patients).
    """
    lines = []
    for network, methods in shown.items():
        for method in methods:
            of_both = curves["network"].eq(network) & curves["method"].eq(method)
            key = (network, method, method != methods[0])
            for order in ("most", "least"):
                wide = curves[of_both].pivot(index="share", columns="image", values=order)
                for share, values in wide.iterrows():
                    lines.append((*key, order, share, *mean(values.to_numpy(), weights)))
    names = ["network", "method", "control", "order", "share", "value", "low", "high"]
    return pd.DataFrame(lines, columns=names)


def exchange_gaps(
    right: Mapping[str, Sequence[np.ndarray]], *, weights: np.ndarray
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return the accuracy with a part of another image, and its gap between classes of that image.

    Parameters
    ----------
    right : mapping of network to two ndarrays of float, shape (n,)
        Whether each prediction is right (0 or 1), with the part from an image of the same class and
        from one of the other class.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    dict of network to dict of str to (value, low, high)
        ``same`` and ``other``, accuracies, and ``gap`` (same minus other, paired), with 95 % intervals,
        which are NaN below ``bootstrap.FEWEST`` patients.
    """
    return {
        network: {
            "same": mean(same, weights),
            "other": mean(other, weights),
            "gap": mean(same - other, weights),
        }
        for network, (same, other) in right.items()
    }


def exchange_table(
    gaps: Mapping[str, Mapping[str, tuple[float, float, float]]], *, what: str
) -> pd.DataFrame:
    """Return the result of ``exchange_gaps`` as text, one line a network.

    ``what`` is the part, for the heading of the first accuracy.
    """
    lines = [
        (network, *[tables.with_interval(*estimate) for estimate in of_network.values()])
        for network, of_network in gaps.items()
    ]
    names = ["network", f"{what} of the same class", "of the other class", "gap"]
    return pd.DataFrame(lines, columns=names)


def heat_and_effect(
    scores: pd.DataFrame,
    effect_of: Mapping[tuple[str, str], float],
    areas: Mapping[str, float],
) -> pd.DataFrame:
    """Return the heat on parts of the image beside what the parts do, both by their area.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns ``network``, ``method`` and, for each part, ``<part> heat`` and ``<part> area``; one
        row for each map.
    effect_of : mapping of network and part to float
        Absolute mean change of the log-odds where the part is taken away.
    areas : mapping of part to float
        Mean share of the image that it covers, where its effect was measured.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``part``, ``gain`` (mean share of the heat by that of the
        image, of the maps that have heat) and ``effect`` (for each percent of the image).
    """
    lines = []
    for (network, method), rows in scores.groupby(["network", "method"], sort=False):
        for part, area in areas.items():
            known = rows.dropna(subset=f"{part} heat")
            if len(known) and (network, part) in effect_of:
                gain = known[f"{part} heat"].mean() / known[f"{part} area"].mean()
                lines.append((network, method, part, gain, effect_of[network, part] / (100 * area)))
    return pd.DataFrame(lines, columns=["network", "method", "part", "gain", "effect"])


def heat_follows_effect(table: pd.DataFrame) -> pd.Series:
    """Return, by network and method, whether of two parts the one that does more has more heat.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``heat_and_effect``, of two parts; a method without one of them is left out.

    Returns
    -------
    pandas.Series of bool
    """
    found = {}
    for key, parts in table.groupby(["network", "method"], sort=False):
        if len(parts) == 2:
            rises = parts[["gain", "effect"]].diff().iloc[-1] > 0
            found[key] = rises["gain"] == rises["effect"]
    return pd.Series(found, dtype=bool).rename_axis(["network", "method"])


def against_placebo(
    effects: pd.DataFrame, what: str, placebo: str, *, difference: str
) -> pd.DataFrame:
    """Return what an intervention does beside its placebo, by network.

    Parameters
    ----------
    effects : pandas.DataFrame
        Columns as for ``effects_by_network``.
    what, placebo, difference : str
        Names of the intervention, of its placebo, and of their paired difference.

    Returns
    -------
    pandas.DataFrame
        Index ``network``; columns ``n``, ``value``, ``low`` and ``high`` of the difference, ``erased``
        and ``elsewhere`` (mean changes of the log-odds), ``flipped`` and ``flipped_elsewhere`` (shares
        of predictions that change).
    """

    def rows(name: str, measure: str) -> pd.DataFrame:
        chosen = effects["intervention"].eq(name) & effects["measure"].eq(measure)
        return effects[chosen].set_index("network")

    return rows(difference, "change")[["n", "value", "low", "high"]].assign(
        erased=rows(what, "change")["value"],
        elsewhere=rows(placebo, "change")["value"],
        flipped=rows(what, "flipped")["value"],
        flipped_elsewhere=rows(placebo, "flipped")["value"],
    )


def detection(
    relying: np.ndarray,
    other: np.ndarray,
    *,
    weights: np.ndarray,
    false_alarms: float = FALSE_ALARMS,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return how well a score of one image tells a network with a shortcut from one without.

    Parameters
    ----------
    relying, other : ndarray of float, shape (n,)
        The score of the same images with each network; NaN, as of a map without heat, counts as 0.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.
    false_alarms : float
        At most this share of ``other`` is above the limit from which a network is called relying.

    Returns
    -------
    auroc, detected : (value, low, high)
        AUROC of ``relying`` against ``other``, and the share of ``relying`` above the limit, which
        is found anew in each resample. Below ``bootstrap.FEWEST`` patients the intervals are NaN.
    """
    relying, other = (np.nan_to_num(np.asarray(values, dtype=float)) for values in (relying, other))
    labels, both = np.repeat([1, 0], len(other)), np.concatenate([relying, other])
    doubled = np.hstack([weights] * 2)
    detected = partial(_detected, false_alarms=false_alarms)
    first, second = (
        bootstrap.estimate(metric, labels, both, weights=doubled, fewest=bootstrap.FEWEST)
        for metric in (metrics.auroc, detected)
    )
    return first, second


def detected_by_chance(n: int, *, false_alarms: float = FALSE_ALARMS) -> float:
    """Return the mean share that ``detection`` finds where both networks' scores are alike.

    The limit is the highest score that is left when the allowed false alarms of n images are above
    it: with few images, a score of the other network is above it more often than they are.
    """
    return (int(false_alarms * n + 1e-9) + 1) / (n + 1)


def _detected(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, *, false_alarms: float
) -> np.ndarray:
    """Return the share of scores of label 1 above the lowest limit that few of label 0 exceed."""
    descending = np.sort(scores[labels == 0])[::-1]
    order = np.argsort(-scores[labels == 0], kind="stable")
    above = np.cumsum(weights[:, labels == 0][:, order], axis=1)
    allowed = (above <= false_alarms * above[:, -1:] + 1e-9).sum(axis=1)
    limit = descending[np.minimum(allowed, len(descending) - 1)]
    own = weights[:, labels == 1]
    return (own * (scores[labels == 1] > limit[:, None])).sum(axis=1) / own.sum(axis=1)


def rank_agreement(
    first: pd.DataFrame, second: pd.DataFrame, methods: Collection[str]
) -> pd.Series:
    """Return how alike two metrics rank the methods of each network.

    Parameters
    ----------
    first, second : pandas.DataFrame
        From ``against_controls``.
    methods : collection of str
        Those that are ranked, of the networks that have them.

    Returns
    -------
    pandas.Series of float
        Spearman correlation of the methods' means, by network: networks differ in the scale of their
        log-odds, so their methods are not ranked together.
    """
    values = [
        found[found["method"].isin(methods)].set_index(["network", "method"])["value"]
        for found in (first, second)
    ]
    both = pd.concat(values, axis=1, keys=["first", "second"])
    return pd.Series(
        {
            network: part["first"].corr(part["second"], method="spearman")
            for network, part in both.groupby("network", sort=False)
        }
    )


def paired_means(
    first: np.ndarray, second: np.ndarray, *, weights: np.ndarray
) -> dict[str, float | int]:
    """Return the means of two scores of the same images, and their difference with its interval.

    Parameters
    ----------
    first, second : array of float, shape (n,)
        An image on which either is NaN is left out of both.
    weights : array of int, shape (draws, n)
        From ``bootstrap.resamples``.

    Returns
    -------
    dict
        ``n`` (images that are left), ``first`` and ``second`` (means), ``gap`` (first minus second),
        ``low`` and ``high`` (95 %; NaN below ``bootstrap.FEWEST`` patients).
    """
    first, second = (np.asarray(values, dtype=float) for values in (first, second))
    both = np.isfinite(first) & np.isfinite(second)
    gap = mean(np.where(both, first - second, np.nan), weights)
    means = [values[both].mean() if both.any() else np.nan for values in (first, second)]
    return {"n": int(both.sum())} | dict(
        zip(("first", "second", "gap", "low", "high"), map(float, (*means, *gap)), strict=True)
    )


def effects_by_network(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the effects of interventions with a row for each, and columns for each network.

    Parameters
    ----------
    effects : pandas.DataFrame
        Columns ``intervention``, ``network``, ``n``, ``measure`` (``change`` or ``flipped``),
        ``value``, ``low`` and ``high``.

    Returns
    -------
    pandas.DataFrame
        ``intervention``, ``n``, and as text with intervals the change for each network, then the
        share of changed predictions as ``<network>, flipped``, NaN where there is none. Rows and
        networks in their order.
    """
    rows, networks = (effects[name].unique() for name in ("intervention", "network"))
    effects = effects.assign(text=tables.intervals(effects)).set_index(["intervention", "network"])
    change, flipped = (
        effects.loc[effects["measure"] == name, "text"]
        .unstack()
        .reindex(index=rows, columns=networks)
        for name in ("change", "flipped")
    )
    wide = change.join(flipped.add_suffix(", flipped"))
    wide.insert(0, "n", effects.groupby("intervention")["n"].first())
    return wide.reset_index(names="intervention").rename_axis(columns=None)

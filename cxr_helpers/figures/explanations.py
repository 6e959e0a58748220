"""Figures of the numbers of chapter 7: each takes a table and returns a matplotlib ``Figure``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr_helpers.figures import appearance  # noqa: F401  (sets the style)

MARKERS = ("o", "s", "D", "^", "v", "P")
CONTROL = "#888888"


def removal_curves(table: pd.DataFrame) -> Figure:
    """Draw the log-odds while pixels are removed, a panel for each network.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``map_scores.mean_curves``: columns ``network``, ``method``, ``control`` (bool, drawn in
        grey), ``order`` (``most`` or ``least`` relevant first), ``share``, ``value``, ``low``, ``high``.
    """
    fig, panels = _panels(table, height=2.4, sharey=False)
    for ax, network, part in panels:
        names = dict.fromkeys(part["method"])
        for (control, order), line in part.groupby(["control", "order"]):
            colour, style = CONTROL if control else "C0", "-" if order == "most" else "--"
            label = f"{'control' if control else 'map'}, {order} relevant first"
            ax.plot(line["share"], line["value"], style, color=colour, label=label)
            ax.fill_between(line["share"], line["low"], line["high"], color=colour, alpha=0.2, lw=0)
        ax.axhline(0, color="black", ls=":", lw=0.8)
        title = f"{network}:\n" + "\nagainst ".join(names)
        ax.set_title(title, fontsize=8)
        ax.set(xlabel="share of pixels removed", xlim=(0, 1))
    first = fig.axes[0]
    first.set_ylabel("log-odds of pneumonia")
    fig.legend(*first.get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return fig


def similarity_by_step(table: pd.DataFrame, *, methods: Sequence[str]) -> Figure:
    """Draw how similar maps stay while a network loses its training, a panel for each network.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network``, ``method``, ``step`` (in order; ``other image`` is drawn as a cross at
        the right end) and ``similarity``.
    methods : sequence of str
        All methods of the chapter, in order: each has the same colour in every figure.
    """
    fig, panels = _panels(table, height=2.2)
    for ax, name, part in panels:
        means = part.groupby(["method", "step"], sort=False)["similarity"].mean()
        for method in dict.fromkeys(part["method"]):
            values, colour = means[method], _colour(method, methods)
            floor = values.pop("other image")
            ax.plot(range(len(values)), values, marker="o", ms=3, color=colour, label=method)
            ax.plot(len(values) - 0.6, floor, "x", ms=5, color=colour)
        ax.set(xticks=range(len(values)), title=name, ylim=(-0.02, 1.02))
        ax.set_xticklabels(values.index, rotation=60, ha="right", fontsize=6)
    first = fig.axes[0]
    first.set_ylabel("similarity to the map\nof the trained network")
    fig.legend(*first.get_legend_handles_labels(), ncols=3, loc="outside lower center")
    return fig


def effects(table: pd.DataFrame) -> Figure:
    """Draw the mean effect of each intervention on each network, with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``intervention``, ``network``, ``value``, ``low``, ``high`` (change of the log-odds).
    """
    rows, networks = (list(dict.fromkeys(table[c])) for c in ("intervention", "network"))
    fig, ax = plt.subplots(figsize=(6.6, 0.8 + 0.24 * len(rows)))
    _points(ax, table.set_index("intervention"), rows=rows, networks=networks, ms=4, lw=1.3)
    ax.axvline(0, color="black", ls=":", lw=1)
    labels = [textwrap.fill(row, 40) for row in rows]
    ax.set(
        yticks=range(len(rows)), yticklabels=labels, xlabel="change of the log-odds of pneumonia"
    )
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return fig


def heat_and_effect(table: pd.DataFrame, *, methods: Sequence[str]) -> Figure:
    """Draw the heat on parts of the image against what the parts really do, both by their area.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network`` (a panel each), ``method``, ``part``, ``gain`` (share of the heat that is
        on the part by its share of the image) and ``effect`` (absolute change of the log-odds where
        the part is not drawn, for each percent of the image that it covers).
    methods : sequence of str
        As for ``similarity_by_step``.
    """
    parts = list(dict.fromkeys(table["part"]))
    fig, panels = _panels(table, height=2.4)
    for ax, network, of_network in panels:
        for method in dict.fromkeys(table["method"]):
            points = of_network[of_network["method"] == method].sort_values("effect")
            colour = _colour(method, methods)
            ax.plot(points["effect"], points["gain"], color=colour, lw=0.8, label=method)
            for part, marker in zip(parts, MARKERS, strict=False):
                of_part = points[points["part"] == part]
                ax.plot(of_part["effect"], of_part["gain"], marker, ms=4, color=colour)
        ax.axhline(1, color="black", ls=":", lw=0.8)
        ax.set_title(network)
        ax.set_xlabel("absolute change of the\nlog-odds per % of the image", fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(2))  # small effects have long labels
    first = fig.axes[0]
    for part, marker in zip(parts, MARKERS, strict=False):
        first.plot([], [], marker, ms=4, color="black", label=part)
    first.set(ylabel="gain", ylim=(0, None))  # shared: after all panels are drawn
    fig.legend(*first.get_legend_handles_labels(), ncols=5, loc="outside lower center")
    return fig


def scorecard(
    table: pd.DataFrame, chance: Mapping[str, float | None], *, methods: Sequence[str]
) -> Figure:
    """Draw every score of every method, with its interval, a panel for each score.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network``, ``method``, ``score``, ``value``, ``low`` and ``high``.
    chance : mapping of score to float or None
        The scores that are drawn, where the table has them, in order; with the value of a map that
        knows nothing, a dotted line, where there is one.
    methods : sequence of str
        From top to bottom; those that the table does not have are left out.
    """
    scores = [score for score in chance if (table["score"] == score).any()]
    methods = [method for method in methods if (table["method"] == method).any()]
    networks = list(dict.fromkeys(table["network"]))
    columns = 4
    rows = -(-len(scores) // columns)
    size = (6.6, 0.4 + rows * (0.4 + 0.1 * len(methods)))
    fig, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for ax, score in zip(axes.flat, scores, strict=False):
        of_score = table[table["score"] == score].set_index("method")
        _points(ax, of_score, rows=methods, networks=networks, ms=2, lw=0.8)
        if chance[score] is not None:
            ax.axvline(chance[score], color="black", ls=":", lw=0.8)
        ax.set_title(textwrap.fill(score.replace("auprc", "AUPRC"), 26), fontsize=7)
        ax.tick_params(labelsize=6)
        ax.grid(axis="y", lw=0.3)
    for ax in axes.flat[len(scores) :]:
        ax.set_axis_off()
    axes[0, 0].set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
    labelled = [
        pair for ax in axes.flat for pair in zip(*ax.get_legend_handles_labels(), strict=True)
    ]
    entries = {label: handle for handle, label in labelled}
    fig.legend(entries.values(), entries, ncols=4, loc="outside lower center")
    return fig


def twin_gains(table: pd.DataFrame) -> Figure:
    """Draw the marker gain of each image for two networks, by method.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``method``, ``network`` and ``gain`` (share of the heat in the marker by its share of
        the image); a map without heat counts as 0.
    """
    fig, ax = plt.subplots(figsize=(6.6, 1.9))
    options = {"x": "method", "y": "gain", "hue": "network", "dodge": True, "ax": ax}
    sns.stripplot(table.fillna({"gain": 0.0}), size=2.5, alpha=0.6, palette=["C1", "C0"], **options)
    ax.axhline(1, color="black", ls=":", lw=0.8)
    ax.set(xlabel="", ylabel="marker gain")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(-0.2, None)
    labels = [textwrap.fill(text.get_text(), 11) for text in ax.get_xticklabels()]
    ax.set_xticks(ax.get_xticks(), labels)
    handles, names = ax.get_legend_handles_labels()
    ax.get_legend().remove()
    fig.legend(handles, names, ncols=2, loc="outside upper center")
    return fig


def _points(
    ax: Axes, table: pd.DataFrame, *, rows: Sequence[str], networks: Sequence[str], **style: float
) -> None:
    """Draw values with their intervals from top to bottom, those of several networks in one row.

    Parameters
    ----------
    ax : Axes
    table : pandas.DataFrame
        Indexed by the names of ``rows``, of which some may be missing; columns ``network``,
        ``value``, ``low`` and ``high``.
    rows, networks : sequence of str
        All of the figure: a network has the same colour and marker in each of its panels.
    **style
        Of ``Axes.errorbar``.
    """
    present = [network for network in networks if (table["network"] == network).any()]
    for position, network in enumerate(present):
        k, part = networks.index(network), table[table["network"] == network]
        part = part.loc[[row for row in rows if row in part.index]]
        places = np.array([rows.index(row) for row in part.index])
        places = places + 0.66 * ((position + 0.5) / len(present) - 0.5)
        spread = np.abs(part[["low", "high"]].to_numpy() - part[["value"]].to_numpy()).T
        options = {"fmt": MARKERS[k % len(MARKERS)], "color": f"C{k}", "label": network}
        ax.errorbar(part["value"], places, xerr=spread, **options, **style)


def _colour(method: str, methods: Sequence[str]) -> str:
    return f"C{methods.index(method)}"


def _panels(
    table: pd.DataFrame, *, height: float, sharey: bool = True
) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """Return a figure with a panel for each network: axes, the network and its rows of the table."""
    networks = table.groupby("network", sort=False)
    fig, axes = plt.subplots(1, len(networks), figsize=(6.6, height), sharey=sharey, squeeze=False)
    return fig, [(ax, *rows) for ax, rows in zip(axes[0], networks, strict=True)]

"""Figures of numbers: each function takes data and returns a matplotlib ``Figure``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn import metrics

from cxr_helpers.figures.appearance import COLOURS


def class_counts(counts: pd.DataFrame) -> Figure:
    """Draw images by split (groups of bars) and class, from ``dataset.counts``."""
    rows = counts[counts["split"] != "all"].set_index("split").drop(columns="all")
    fig, ax = plt.subplots(figsize=(6.6, 2.0))
    rows.plot.bar(ax=ax, color=[COLOURS[name] for name in rows], rot=0, width=0.8)
    for bars in ax.containers:
        ax.bar_label(bars, fontsize=7, padding=1)
    ax.set(xlabel="", ylabel="images")
    ax.legend(title=None, ncols=len(rows.columns), loc="upper right")
    return fig


def image_sizes(index: pd.DataFrame) -> Figure:
    """Draw each image's stored width and height in pixels, by class."""
    fig, axes = plt.subplots(1, 2, figsize=(6.6, 2.2), width_ratios=(1.1, 1))
    aspect = index["width"] / index["height"]
    for name, rows in index.groupby("class_name"):
        colour = COLOURS[name]
        axes[0].scatter(
            rows["width"], rows["height"], s=5, alpha=0.4, color=colour, label=name, rasterized=True
        )
        sns.kdeplot(x=aspect[rows.index], ax=axes[1], color=colour, warn_singular=False)
    axes[0].set(xlabel="width (pixels)", ylabel="height (pixels)")
    axes[0].legend(markerscale=3)
    axes[1].set(xlabel="width / height", ylabel="density")
    return fig


def intensity(images: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw the mean grey-level histogram of each class and each image's mean grey level.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    classes : sequence of str, length n
    """
    classes = np.asarray(classes)
    fig, axes = plt.subplots(1, 2, figsize=(6.6, 2.2))
    edges = np.arange(0, 257, 4)
    for name in [c for c in COLOURS if (classes == c).any()]:
        of_class = images[classes == name]
        share, _ = np.histogram(of_class, bins=edges, density=True)
        axes[0].plot(edges[:-1] + 2, share, color=COLOURS[name], label=name)
        means = of_class.mean(axis=(1, 2))
        sns.kdeplot(x=means, ax=axes[1], color=COLOURS[name], warn_singular=False)
    axes[0].set(xlabel="grey level (0 black, 255 white)", ylabel="density of pixels")
    axes[0].legend()
    axes[1].set(xlabel="mean grey level of an image", ylabel="density")
    return fig


def learning_curves(history: pd.DataFrame, *, metric: str | None = "accuracy") -> Figure:
    """Draw loss and a metric by epoch, for training and, if available, validation.

    Parameters
    ----------
    history : pandas.DataFrame
        From ``training.fit``.
    metric : str, optional
        Name of a compiled metric; None draws the loss only.
    """
    names = ["loss", metric] if metric else ["loss"]
    fig, axes = plt.subplots(1, len(names), figsize=(3.3 * len(names), 2.0), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        ax.plot(history["epoch"], history[name], color="#444444", label="train")
        if f"val_{name}" in history:
            ax.plot(history["epoch"], history[f"val_{name}"], "--", color="#009E73")
            ax.lines[-1].set_label("validation")
            ax.axvline(history.loc[history["best"], "epoch"].iloc[0], color="#bbbbbb", lw=1, ls=":")
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].legend()
    return fig


def confusion(y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts, coloured by the share of the true class.

    Parameters
    ----------
    y_true, y_pred : ndarray of int, shape (n,)
        Positions in ``classes``.
    """
    counts = metrics.confusion_matrix(y_true, y_pred, labels=range(len(classes)))
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 1.1 + 0.5 * len(classes)
    fig, ax = plt.subplots(figsize=(side + 0.4, side))
    display = metrics.ConfusionMatrixDisplay(shares, display_labels=classes).plot(
        ax=ax, cmap="Blues", colorbar=False, values_format=".0%", im_kw={"vmin": 0, "vmax": 1}
    )
    for cell, n in zip(display.text_.ravel(), counts.ravel(), strict=True):
        cell.set_text(f"{n}\n{cell.get_text()}")
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.spines[:].set_visible(False)
    return fig


def roc_and_precision_recall(y_true: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Draw ROC and precision–recall curves for pneumonia, one line per score.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        1 for pneumonia.
    scores : mapping of label to ndarray of float, shape (n,)
        Higher means pneumonia.
    """
    fig, axes = plt.subplots(1, 2, figsize=(6.2, 2.3))
    for label, score in scores.items():
        roc = metrics.RocCurveDisplay.from_predictions(y_true, score, ax=axes[0])
        pr = metrics.PrecisionRecallDisplay.from_predictions(y_true, score, ax=axes[1])
        roc.line_.set_label(f"{label}, AUROC {roc.roc_auc:.3f}")
        pr.line_.set_label(f"{label}, AP {pr.average_precision:.3f}")
    axes[0].plot([0, 1], [0, 1], ":", color="#999999", lw=1)
    axes[1].axhline(np.mean(y_true), ls=":", color="#999999", lw=1)
    axes[0].set(xlabel="1 − specificity", ylabel="sensitivity")
    axes[1].set(xlabel="recall (sensitivity)", ylabel="precision")
    for ax in axes:
        ax.legend(loc="lower right", fontsize=7, handlelength=1)
    return fig


def reliability(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw observed shares against predicted probabilities, one line per model; dotted: equal.

    scikit-learn's ``CalibrationDisplay`` draws the same points, but neither their intervals nor the
    number of images behind each.

    Parameters
    ----------
    curves : mapping of label to pandas.DataFrame
        From ``calibration.reliability``. A point's area grows with the number of images in its bin.
    """
    fig, ax = plt.subplots(figsize=(5.2, 2.3))
    ax.plot([0, 1], [0, 1], ":", color="#999999", lw=1)
    for label, curve in curves.items():
        x, y, share = (
            curve["mean probability"],
            curve["observed share"],
            curve["n"] / curve["n"].sum(),
        )
        (line,) = ax.plot(x, y, lw=1, alpha=0.6, label=label)
        ax.vlines(x, curve["share low"], curve["share high"], color=line.get_color(), lw=1)
        ax.scatter(x, y, s=6 + 150 * share, color=line.get_color(), alpha=0.7, lw=0)
    ax.set(
        xlabel="predicted probability of pneumonia",
        ylabel="observed share of pneumonia",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
        aspect="equal",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))  # clear of the lines
    return fig


def optimizer_study(study: pd.DataFrame) -> Figure:
    """Draw the AUROC of short training runs by learning rate, one line per optimizer.

    Parameters
    ----------
    study : pandas.DataFrame
        Columns ``optimizer``, ``learning_rate``, ``val_auroc`` (on held-out
        images, after the last epoch).
    """
    fig, ax = plt.subplots(figsize=(4.6, 2.2))
    for (name, runs), marker, colour in zip(
        study.groupby("optimizer"), "os^", ("#0072B2", "#D55E00", "#009E73"), strict=False
    ):
        ax.plot(runs["learning_rate"], runs["val_auroc"], marker=marker, color=colour)
        ax.lines[-1].set_label(name)
    ax.set(xscale="log", xlabel="learning rate", ylabel="AUROC on held-out images")
    ax.axhline(0.5, color="#999999", ls=":", lw=1)
    ax.legend()
    return fig


def ablation(table: pd.DataFrame) -> Figure:
    """Draw a bar with its interval for each step of an ablation, in two conditions.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``step``, ``marker`` (the condition), ``value``, ``low``, ``high`` (AUROC).
    """
    order = list(dict.fromkeys(table["step"]))
    conditions = list(dict.fromkeys(table["marker"]))
    fig, ax = plt.subplots(figsize=(6.4, 0.5 + 0.42 * len(order)))
    height = 0.8 / len(conditions)
    for k, (condition, colour) in enumerate(zip(conditions, ("#999999", "#0072B2"), strict=True)):
        rows = table[table["marker"] == condition].set_index("step").loc[order]
        spread = np.abs(rows[["low", "high"]].to_numpy() - rows[["value"]].to_numpy()).T
        places = np.arange(len(order)) + (k - (len(conditions) - 1) / 2) * height
        ax.barh(places, rows["value"], height, color=colour, label=f"marker {condition}")
        ax.errorbar(rows["value"], places, xerr=spread, fmt="none", ecolor="black", lw=1)
    ax.axvline(0.5, color="black", ls=":", lw=1)
    ax.set(yticks=range(len(order)), yticklabels=order, xlabel="AUROC", xlim=(0, 1.02))
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return fig


def error_histogram(
    errors: Mapping[str, np.ndarray], *, threshold: float, clip: float = 0.995
) -> Figure:
    """Draw the distribution of reconstruction errors by class, with the threshold.

    Parameters
    ----------
    errors : mapping of class name to ndarray of float, shape (n,)
        Mean squared errors.
    threshold : float
        Drawn as a vertical line.
    clip : float
        Quantile of all errors at which the axis ends.
    """
    fig, ax = plt.subplots(figsize=(6.0, 2.0))
    pooled = np.concatenate(list(errors.values()))
    edges = np.linspace(pooled.min(), np.quantile(pooled, clip), 41)
    for name, values in errors.items():
        ax.hist(
            values,
            bins=edges,
            density=True,
            histtype="stepfilled",
            alpha=0.35,
            color=COLOURS[name],
            label=f"{name} (n = {len(values)})",
        )
    ax.axvline(threshold, color="black", ls="--", lw=1.2, label=f"threshold {threshold:.2g}")
    ax.set(xlabel="reconstruction error (mean squared error, white = 1)", ylabel="density")
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, -3))
    ax.legend()
    return fig


def accuracy_by_threshold(
    percentiles: np.ndarray, curves: Mapping[str, np.ndarray], *, chosen: float, baseline: float
) -> Figure:
    """Draw accuracy by the percentile of the threshold, one line per direction of the rule."""
    fig, ax = plt.subplots(figsize=(5.4, 2.0))
    for (label, values), colour in zip(curves.items(), ("#D55E00", "#0072B2"), strict=False):
        ax.plot(percentiles, values, color=colour, label=label)
    ax.axhline(baseline, color="#999999", ls=":", lw=1, label="majority class")
    ax.axvline(chosen, color="black", ls="--", lw=1)
    ax.set(
        xlabel="threshold: percentile of the normal training images' error",
        ylabel="accuracy",
        ylim=(0, 1),
    )
    fig.legend(ncols=3, loc="outside upper center")
    return fig


def layer_by_k(study: pd.DataFrame) -> Figure:
    """Draw kNN accuracy by layer (rows, in order of appearance) and k (columns), by model.

    Parameters
    ----------
    study : pandas.DataFrame
        Columns ``model``, ``layer``, ``k``, ``accuracy``.
    """
    models = list(dict.fromkeys(study["model"]))
    heights = [study.loc[study["model"] == m, "layer"].nunique() for m in models]
    fig, axes = plt.subplots(
        len(models), 1, figsize=(5.0, 0.5 + 0.165 * sum(heights) + 0.3 * len(models)),
        height_ratios=heights, sharex=True, squeeze=False,
    )  # fmt: skip
    for ax, name in zip(axes[:, 0], models, strict=True):
        table = study[study["model"] == name].pivot(index="layer", columns="k", values="accuracy")
        order = list(dict.fromkeys(study.loc[study["model"] == name, "layer"]))
        sns.heatmap(
            table.loc[order], annot=True, fmt=".2f", cmap="cividis", cbar=False, ax=ax,
            annot_kws={"size": 6.5},
        )  # fmt: skip
        ax.set(title=name, ylabel="", xlabel="neighbours k" if name == models[-1] else "")
        ax.tick_params(axis="y", rotation=0)
    return fig


def scatter_by_class(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw two-dimensional embeddings, two panels in a row: training images faint, test strong.

    Parameters
    ----------
    panels : mapping of title to pandas.DataFrame
        Columns ``x``, ``y``, ``class_name``, ``split`` (train or test).
    """
    rows = -(-len(panels) // 2)
    size = (4.9, 0.3 + 2.2 * rows)
    fig, axes = plt.subplots(rows, min(2, len(panels)), figsize=size, squeeze=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    styles = {"train": {"alpha": 0.25, "s": 5}, "test": {"alpha": 0.9, "s": 9}}
    for ax, (title, points) in zip(axes.ravel(), panels.items(), strict=False):
        for split, style in styles.items():
            for name in [c for c in COLOURS if (points["class_name"] == c).any()]:
                shown = points[(points["class_name"] == name) & (points["split"] == split)]
                ax.scatter(
                    shown["x"], shown["y"], color=COLOURS[name], lw=0, rasterized=True,
                    label=name if split == "test" else None, **style,
                )  # fmt: skip
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, ncols=4, loc="outside lower center", markerscale=2)
    return fig

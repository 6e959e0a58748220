"""The forest plot of the title page.

It is drawn outside of the notebooks, and so without seaborn and scikit-learn: importing them takes a
second.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxr_helpers.figures import appearance  # noqa: F401  (sets the style)


def accuracies(rows: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Draw the accuracy of each row with its interval, a panel for each number of classes.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``label``, ``classes``, ``value``, ``low``, ``high`` and ``published`` (NaN where
        nothing was published), from top to bottom.
    baselines : pandas.DataFrame
        Columns ``label``, ``classes`` and ``value``: vertical lines.
    """
    panels = [part for _, part in rows.groupby("classes")]
    heights = [len(part) + 0.6 for part in panels]
    fig, axes = plt.subplots(
        len(panels),
        figsize=(6.6, 0.9 + 0.165 * sum(heights)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
    )
    for ax, part in zip(axes[:, 0], panels, strict=True):
        classes, places = part["classes"].iloc[0], np.arange(len(part))
        of_classes = baselines[baselines["classes"] == classes]
        for (label, value), style in zip(
            of_classes[["label", "value"]].to_numpy(), ("-", "--"), strict=False
        ):
            ax.axvline(value, color="#777777", ls=style, lw=1, label=label)
        spread = np.abs(part[["low", "high"]].to_numpy() - part[["value"]].to_numpy()).T
        ax.errorbar(
            part["value"], places, xerr=spread, fmt="o", ms=4, lw=1.3, color="#0072B2", label="here"
        )
        ax.plot(
            part["published"], places, "D", ms=4.5, mfc="none", color="#D55E00", label="published"
        )
        ax.set(yticks=places, yticklabels=part["label"], ylim=(len(part) - 0.4, -0.6))
        ax.set_title(f"{'two' if classes == 2 else 'three'} classes", loc="left")
        ax.grid(axis="x")
    ax.set_xlabel("accuracy on the test images")
    low = min(rows["low"].min(), rows["published"].min(), baselines["value"].min())
    ax.set_xlim(max(0, np.floor(10 * low) / 10), 1.0)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return fig

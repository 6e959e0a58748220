"""Figures of radiographs: grids, with or without outlines or heat maps drawn over them.

Images are shown in grey over the full range 0 to 255, so that exposures can be compared.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from PIL import Image

from cxr_helpers.figures import appearance  # noqa: F401  (sets the style)

REGIONS = {"lung": "#56B4E9", "lesion": "#F0E442", "marker": "#00A87A"}  # colours of outlines
LEVELS = 100  # colours of a heat map: with few of them its file is small
LABELS = 0.3  # inches: width of the row labels
TITLE = 6.5  # points: font size above an image
TOP = 0.08  # inches: for titles of the first row, where the layout leaves too little


def grid(
    rows: Sequence[np.ndarray],
    *,
    row_labels: Sequence[str] | None = None,
    titles: Sequence[Sequence[str]] | None = None,
    edges: Sequence[Sequence[str | None]] | None = None,
    outlines: Sequence[np.ndarray] | None = None,
    side: float = 0.78,
) -> Figure:
    """Draw a grid of images.

    Parameters
    ----------
    rows : sequence of ndarray, shape (m, size, size), uint8 or float in [0, 255]
        Rows may differ in length.
    row_labels : sequence of str, optional
        Written at the left of each row.
    titles : sequence of sequences of str, optional
        Written above each image; lines wider than the image are broken.
    edges : sequence of sequences of colour or None, optional
        Colour of the line around each image.
    outlines : sequence of ndarray of bool, shape (m, size, size), optional
        Masks; their outlines are drawn over the images.
    side : float
        Side of an image in inches.
    """
    columns = max(len(row) for row in rows)
    fig, axes, titles = _canvas(len(rows), columns, side=side, titles=titles)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            ax = axes[i][j]
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            ax.set_visible(True)
            if titles is not None:
                ax.set_title(titles[i][j], fontsize=TITLE, pad=2, parse_math=False)
            if outlines is not None and outlines[i][j].any():
                ax.contour(outlines[i][j], levels=[0.5], colors="#F0E442", linewidths=0.8)
            if edges is not None and edges[i][j]:
                _outline(ax, edges[i][j])
        if row_labels is not None and len(row):
            axes[i][0].set_ylabel(row_labels[i], fontsize=8)
    return fig


def overlays(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    *,
    row_labels: Sequence[str],
    titles: Sequence[Sequence[str]],
    label: str,
    signed: bool,
    limit: float | None = None,
    regions: Mapping[str, Sequence[np.ndarray]] | None = None,
    side: float = 0.88,
) -> Figure:
    """Draw images and, below each row, the same images with their heat maps.

    Parameters
    ----------
    images : sequence of ndarray of uint8, shape (m, size, size)
        One array per row.
    maps : sequence of ndarray of float, shape (m, size, size)
        Heat maps of the images, all in the same unit.
    row_labels : sequence of str
    titles : sequence of sequences of str
        Written above each image; lines wider than the image are broken.
    label : str
        Quantity of the colour bar, with its unit.
    signed : bool
        True: diverging colours centred at 0. False: perceptually uniform colours from 0.
    limit : float, optional
        End of the colour range; by default the 99.5 % quantile of all absolute values.
    regions : mapping of name to sequence of ndarray of bool, shape (m, size, size), optional
        Masks by row, for names of ``REGIONS``: they are outlined on the maps.
    """
    columns = max(len(row) for row in images)
    regions = {name: masks for name, masks in (regions or {}).items() if name in REGIONS}
    fig, axes, titles = _canvas(2 * len(images), columns, side=side, titles=titles, bar=0.75)
    values = np.abs(np.concatenate([np.asarray(m).ravel() for m in maps]))
    limit = limit or float(np.quantile(values, 0.995)) or 1.0
    style = _style(signed, limit)
    for i, (row, heats) in enumerate(zip(images, maps, strict=True)):
        for j, (image, heat) in enumerate(zip(row, heats, strict=True)):
            above, below = axes[2 * i][j], axes[2 * i + 1][j]
            for ax in (above, below):
                ax.imshow(image, cmap="gray", vmin=0, vmax=255)
                ax.set_visible(True)
            below.imshow(_coloured(heat, limit, signed=signed))
            for name, masks in regions.items():
                if masks[i][j].any():
                    below.contour(masks[i][j], levels=[0.5], colors=REGIONS[name], linewidths=0.6)
            above.set_title(titles[i][j], fontsize=TITLE, pad=2, parse_math=False)
        axes[2 * i][0].set_ylabel(row_labels[i], fontsize=8)
        axes[2 * i + 1][0].set_ylabel("map", fontsize=8)
    scale = ScalarMappable(Normalize(style["vmin"], limit), style["cmap"])
    if len(label) * 0.07 > fig.get_figheight():  # inches of a character
        label = label.replace(" (", "\n(")
    fig.colorbar(scale, ax=axes.ravel().tolist(), shrink=0.7, label=label, aspect=30, pad=0.01)
    if regions:
        lines = [Line2D([], [], color=REGIONS[name], label=name) for name in regions]
        fig.legend(handles=lines, ncols=len(lines), loc="outside lower center")
    return fig


def strip(
    image: np.ndarray, maps: Mapping[str, Mapping[str, np.ndarray]], *, side: float = 0.66
) -> Figure:
    """Draw an image and, beside it, its maps: a row for each method and a column for each step.

    Parameters
    ----------
    image : ndarray of uint8, shape (size, size)
    maps : mapping of method to mapping of step to ndarray of float, shape (size, size)
        The same steps for each; every map is drawn from 0 to its own largest value.
    side : float
        Side of an image in inches.
    """
    titles = ["image", *next(iter(maps.values()))]
    fig, axes, _ = _canvas(len(maps), len(titles), side=side, titles=None)
    axes[0][0].imshow(image, cmap="gray", vmin=0, vmax=255)
    for row, (method, of_step) in zip(axes, maps.items(), strict=True):
        for ax, heat in zip(row[1:], of_step.values(), strict=True):
            ax.imshow(heat, vmax=float(heat.max()) or 1.0, **_style(False, 1.0))
            ax.set_visible(True)
        row[1].set_ylabel(textwrap.fill(method, 10), fontsize=6)
    axes[0][0].set_visible(True)
    for ax, name in zip(axes[0], titles, strict=True):
        ax.set_title(name, fontsize=TITLE, pad=2, parse_math=False)
    return fig


def beside(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    *,
    row_labels: Sequence[str],
    titles: Sequence[Sequence[str]],
    label: str,
) -> Figure:
    """Draw images and, beside each, the same image with the maps of several methods.

    Parameters
    ----------
    images : sequence of ndarray of uint8, shape (m, size, size)
        One array per row.
    maps : mapping of method to sequence of ndarray of float, shape (m, size, size)
        One array per row, at least 0, as shares of a common largest value.
    row_labels, titles, label
        As for ``overlays``; the maps have their method as title.
    """
    step = 1 + len(maps)
    columns = step * max(len(row) for row in images)
    above = [[t for title in row for t in (title, *maps)] for row in titles]
    fig, axes, above = _canvas(len(images), columns, side=0.66, titles=above, bar=0.6)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            heats = [None, *(rows[i][j] for rows in maps.values())]
            for k, heat in enumerate(heats, step * j):
                ax = axes[i][k]
                ax.imshow(image, cmap="gray", vmin=0, vmax=255)
                ax.set_visible(True)
                ax.set_title(above[i][k], fontsize=TITLE, pad=2, parse_math=False)
                if heat is not None:
                    ax.imshow(_coloured(heat, 1.0, signed=False))
        axes[i][0].set_ylabel(row_labels[i], fontsize=7)
    scale = ScalarMappable(Normalize(0, 1), "inferno")
    label = textwrap.fill(label, max(12, int(fig.get_figheight() / 0.09)))
    fig.colorbar(scale, ax=axes.ravel().tolist(), label=label, aspect=25, pad=0.01)
    return fig


def png(
    image: np.ndarray, *, side: int, heat: np.ndarray | None = None, signed: bool = False
) -> bytes:
    """Return an image, with a heat map over it where there is one, as a PNG file.

    Parameters
    ----------
    image : ndarray of uint8, shape (size, size)
    side : int
        Height and width of the picture in pixels.
    heat : ndarray of float, shape (m, m), optional
        Of any size; in colours as in ``overlays``, up to its largest absolute value.
    signed : bool
        As in ``overlays``.
    """
    square = (side, side)
    picture = Image.fromarray(image).resize(square, Image.Resampling.BICUBIC).convert("RGB")
    if heat is not None:
        heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(square))
        limit = float(np.abs(heat).max()) or 1.0
        colours = _coloured(heat, limit, signed=signed)
        opacity = colours[..., 3:]
        mixed = (1 - opacity) * np.asarray(picture) + opacity * 255 * colours[..., :3]
        picture = Image.fromarray(np.round(mixed).astype(np.uint8))
    with io.BytesIO() as file:
        picture.save(file, "PNG", compress_level=1)  # read once, by the browser beside it
        return file.getvalue()


def _coloured(heat: np.ndarray, limit: float, *, signed: bool) -> np.ndarray:
    """Return a heat map in ``LEVELS`` colours on each side of 0: RGBA, shape (m, m, 4), 0 to 1.

    The image below shows through where the heat is near 0. The opacity is a part of the colours:
    vector graphics embed images as they are, without an opacity for each pixel beside them.
    """
    levels = np.round(np.clip(heat / limit, -1, 1) * LEVELS) / LEVELS
    style = _style(signed, 1.0)
    colours = mpl.colormaps[style["cmap"]](Normalize(style["vmin"], 1.0)(levels))
    colours[..., 3] = 0.15 + 0.6 * np.abs(levels)
    return colours


def _style(signed: bool, limit: float) -> dict:
    """Return colour map and lower end of a heat map."""
    return {"cmap": "RdBu_r", "vmin": -limit} if signed else {"cmap": "inferno", "vmin": 0}


def mean_maps(
    maps: Sequence[np.ndarray], *, titles: Sequence[str], label: str, background: np.ndarray
) -> Figure:
    """Draw class means of signed maps over the mean image, with a shared colour range.

    Parameters
    ----------
    maps : sequence of ndarray of float, shape (size, size)
    titles : sequence of str
    label : str
        Quantity of the colour bar.
    background : ndarray, shape (size, size), range [0, 255]
    """
    limit = max(float(np.abs(m).max()) for m in maps) or 1.0
    fig, axes = plt.subplots(1, len(maps), figsize=(1.75 * len(maps) + 0.7, 1.95), squeeze=False)
    for ax, heat, title in zip(axes[0], maps, titles, strict=True):
        ax.imshow(background, cmap="gray", vmin=0, vmax=255)
        drawn = ax.imshow(heat, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.6)
        ax.set(title=title)
        _bare(ax)
    fig.colorbar(drawn, ax=axes.ravel().tolist(), shrink=0.8, label=label)
    return fig


def _canvas(rows: int, columns: int, *, side: float, titles: Sequence | None, bar: float = 0.0):
    """Return a figure no wider than the text, its axes, and the titles broken to fit.

    An image is at most ``side`` inches wide; rows are high enough for the titles.
    """
    side = min(side, (6.6 - LABELS - bar) / columns)
    broken = titles and [[_broken(title, 0.95 * side) for title in row] for row in titles]
    lines = sum(max((t.count("\n") for t in row), default=0) for row in broken or [])
    height = rows * (side + (0.17 if titles else 0.03)) + lines * 1.3 * TITLE / 72
    top = TOP if titles else 0
    size = (columns * side + LABELS + bar, height + top)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.ravel():
        _bare(ax)
        ax.set_visible(False)
    within = (0, 0, 1, height / (height + top))
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0, rect=within)
    return fig, axes, broken


def _broken(title: str, inches: float) -> str:
    """Break the lines of a title that are too wide, between words or within a long word."""
    lines = []
    for line in title.split("\n"):
        while line:
            fits = len(line)
            while fits > 1 and _width(line[:fits]) > inches:
                fits -= 1
            if fits < len(line) and " " in line[1 : fits + 1]:
                fits = line.rindex(" ", 1, fits + 1)
            lines.append(line[:fits])
            line = line[fits:].lstrip()
    return "\n".join(lines)


def _width(line: str) -> float:
    """Return the width of a line of a title in inches."""
    font = FontProperties(size=TITLE)
    return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72


def _bare(ax) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _outline(ax, colour: str) -> None:
    ax.spines[:].set_visible(True)
    ax.spines[:].set(color=colour, linewidth=2)

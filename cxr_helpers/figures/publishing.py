"""Display figures, tables and sentences, identical in notebook, HTML and PDF.

Every output describes itself in its metadata under the key ``cxr``; the exporters in
``report/`` read these and never parse HTML.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TABLE_MIME = "application/vnd.cxr.table+json"
TEXT_WIDTH = 6.6  # inches of a full-width figure
EMBEDDED = re.compile(r'"data:image/png;base64,([^"]*)"')
SYNTHETIC_LABEL = "SYNTHETIC PHANTOMS"


def labelled(caption: str, *, synthetic: bool) -> str:
    """Return the caption, prefixed with SYNTHETIC PHANTOMS where the images are synthetic."""
    return f"{SYNTHETIC_LABEL}. {caption}" if synthetic else caption


def figure(
    fig: Figure, *, id: str, caption: str, alt: str, synthetic: bool, finding: str = ""
) -> None:
    """Display a figure with its caption, as vector and as raster graphics.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Closed afterwards.
    id : str
        Unique in the report, such as ``"fig-roc"``.
    caption : str
        What is drawn: n, split, unit, colour scale.
    alt : str
        What the figure shows, for readers who cannot see it.
    synthetic : bool
        Whether the images are phantoms, which the caption then states.
    finding : str
        What is to be seen; it is shown before the caption, and left out of the list of figures.

    Raises
    ------
    ValueError
        If the caption or the alternative text is empty.
    """
    if not caption.strip() or not alt.strip():
        raise ValueError(f"figure {id!r} needs a caption and an alternative text")
    # its true size on the page, so that text is equally large in all figures
    width = min(1.0, round(float(fig.get_figwidth()) / TEXT_WIDTH, 3))
    title, caption = caption, labelled(f"{finding} {caption}".strip(), synthetic=synthetic)
    svg, png = pictures(fig, id=id)
    _anchor(id)
    _display(
        {
            "image/svg+xml": svg,
            "image/png": base64.b64encode(png).decode(),
            "text/plain": caption,
        },
        raw=True,
        metadata={
            "cxr": {
                **{"kind": "figure", "id": id, "title": title, "caption": caption},
                **{"alt": alt, "width": width},
            }
        },
    )
    _caption(caption)


def pictures(fig: Figure, *, id: str) -> tuple[str, bytes]:
    """Return a figure as SVG and as PNG, the same bytes for the same figure, and close it.

    Written by the canvases: ``Figure.savefig`` first draws the whole figure once more.
    """
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    dpi = plt.rcParams["savefig.dpi"]
    dpi = fig.dpi if dpi == "figure" else dpi
    svg, png = io.BytesIO(), io.BytesIO()
    with plt.rc_context({"svg.hashsalt": id}):
        fig.set_dpi(dpi)
        FigureCanvasSVG(fig).print_svg(svg, metadata={"Date": None})
        fig.set_dpi(dpi)  # an SVG has its own
        fig.set_layout_engine("none")  # keeps the layout: it is not computed again
        FigureCanvasAgg(fig).print_png(png, metadata={"Software": None})
    plt.close(fig)
    return EMBEDDED.sub(_smaller, svg.getvalue().decode()), png.getvalue()


def _smaller(embedded: re.Match) -> str:
    """Encode an image in an SVG without the channels that it does not use; no pixel changes.

    Matplotlib writes grey images and heat maps of few colours with four channels.
    """
    encoded = base64.b64decode(embedded[1])
    image = Image.open(io.BytesIO(encoded))
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode == "RGB" and len({channel.tobytes() for channel in image.split()}) == 1:
        image = image.getchannel(0)
    options = {}
    if image.mode in ("RGB", "RGBA") and image.getcolors(256):
        pixels = np.asarray(image)
        colours, places = np.unique(
            pixels.reshape(-1, pixels.shape[2]), axis=0, return_inverse=True
        )
        image = Image.fromarray(places.astype(np.uint8).reshape(pixels.shape[:2])).convert("P")
        image.putpalette(colours[:, :3].tobytes())
        options = {"transparency": colours[:, 3].tobytes()} if pixels.shape[2] == 4 else {}
    smaller = io.BytesIO()
    image.save(smaller, "PNG", optimize=True, **options)
    shortest = min(smaller.getvalue(), encoded, key=len)
    return f'"data:image/png;base64,{base64.b64encode(shortest).decode()}"'


def table(
    frame: pd.DataFrame,
    *,
    id: str,
    caption: str,
    synthetic: bool,
    formats: Mapping[str, str] | None = None,
    missing: str = "–",
) -> None:
    """Display a data frame as a table with a caption: numbers right-aligned, text left-aligned.

    Parameters
    ----------
    frame : pandas.DataFrame
        Shown without its index.
    id : str
        Unique in the report, such as ``"tab-counts"``.
    caption : str
        What the table contains: n, split, unit.
    synthetic : bool
        Whether the images are phantoms, which the caption then states.
    formats : mapping of column to format specification, optional
        Such as ``{"accuracy": ".3f"}``.
    missing : str
        Text of a missing value.
    """
    caption = labelled(caption, synthetic=synthetic)
    content = table_content(frame, formats=formats, missing=missing)
    shown = frame.__class__(content["rows"], columns=[c["label"] for c in content["columns"]])
    _anchor(id)
    _display(
        {
            TABLE_MIME: content,
            "text/html": shown.to_html(index=False, border=0),
            "text/plain": shown.to_string(index=False),
        },
        raw=True,
        metadata={"cxr": {"kind": "table", "id": id, "caption": caption}},
    )
    _caption(caption)


def table_content(
    frame: pd.DataFrame, *, formats: Mapping[str, str] | None = None, missing: str = "–"
) -> dict:
    """Return a data frame as ``{"columns": [{"label", "align"}], "rows": [[str]]}``."""
    import pandas as pd

    formats = formats or {}
    if unknown := set(formats) - set(frame.columns):
        raise ValueError(f"formats for unknown columns {sorted(unknown)}; have {list(frame)}")

    def cell(value: object, spec: str) -> str:
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return missing
        return format(value, spec) if not isinstance(value, str) else value

    return {
        "columns": [
            {
                "label": str(name),
                "align": "right" if pd.api.types.is_numeric_dtype(frame[name]) else "left",
            }
            for name in frame.columns
        ],
        "rows": [
            [cell(value, formats.get(name, "")) for name, value in zip(frame, row, strict=True)]
            for row in frame.itertuples(index=False, name=None)
        ],
    }


def text(markdown: str) -> None:
    """Display Markdown text whose numbers come from variables."""
    _display(
        {"text/markdown": markdown, "text/plain": markdown},
        raw=True,
        metadata={"cxr": {"kind": "text"}},
    )


def _anchor(id: str) -> None:
    """Display, unseen, what links such as ``[the figure below](#fig-id)`` lead to in a notebook.

    Exporters skip it.
    """
    _display(
        {"text/markdown": f'<a id="{id}"></a>', "text/plain": ""},
        raw=True,
        metadata={"cxr": {"kind": "anchor"}},
    )


def _caption(caption: str) -> None:
    """Display a caption below its figure or table in a notebook; exporters skip it."""
    _display(
        {"text/markdown": f"*{_escape(caption)}*", "text/plain": caption},
        raw=True,
        metadata={"cxr": {"kind": "caption"}},
    )


def _escape(text: str) -> str:
    """Escape characters that are markup in Markdown or HTML."""
    for char in "\\`*_{}[]<>#|~$":
        text = text.replace(
            char, f"\\{char}" if char not in "<>" else {"<": "&lt;", ">": "&gt;"}[char]
        )
    return text


def _display(*objects: object, **options: object) -> None:
    from IPython.display import display  # imported here: it takes half a second

    display(*objects, **options)

"""Small executed notebooks as papermill writes them, for the tests of ``report``."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cxr_helpers.figures.publishing import TABLE_MIME
from report.document import Front

HOSTILE = (
    '<img src=x onerror=alert(1)> #eval("x") $x$ *star* \\alpha \\\\ [a](b) <script>1</script>'
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="300pt" height="150pt" viewBox="0 0 300 150">'
    '<path d="M0 150L300 0" stroke="#1f77b4" fill="none"/></svg>'
)


def png() -> str:
    """Return a grey 2×2 PNG in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0\x40\x80\0\x80\xc0"))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")).decode()


def figure(id: str = "fig-a", caption: str = "A line.", alt: str = "A rising line"):
    """Return an executed cell with a published figure, its caption, and unpublished output."""
    metadata = {"kind": "figure", "id": id, "caption": caption, "alt": alt, "width": 0.8}
    return code(
        new_output("stream", name="stdout", text="NOISE from a stream"),
        new_output(
            "display_data",
            data={"image/svg+xml": SVG, "image/png": png(), "text/plain": caption},
            metadata={"cxr": metadata},
        ),
        new_output(
            "display_data",
            data={"text/markdown": "*DUPLICATE*"},
            metadata={"cxr": {"kind": "caption"}},
        ),
    )


def table(
    id: str = "tab-a", caption: str = "Two numbers.", *, columns: int = 2, rows: int = 2, cell=""
):
    """Return an executed cell with a published table."""
    content = {
        "columns": [
            {"label": f"Column number {i}", "align": "right" if i else "left"}
            for i in range(columns)
        ],
        "rows": [[cell or f"r{r}c{c}" for c in range(columns)] for r in range(rows)],
    }
    metadata = {"kind": "table", "id": id, "caption": caption}
    data = {TABLE_MIME: content, "text/plain": ""}
    return code(new_output("display_data", data=data, metadata={"cxr": metadata}))


def text(markdown: str):
    """Return an executed cell with a published sentence."""
    return code(
        new_output(
            "display_data",
            data={"text/markdown": markdown, "text/plain": markdown},
            metadata={"cxr": {"kind": "text"}},
        )
    )


def code(*outputs, tags: tuple[str, ...] = (), source: str = "HIDDEN = 1"):
    """Return an executed code cell."""
    return new_code_cell(
        source, execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)}
    )


def notebook(folder: Path, stem: str, *cells) -> Path:
    """Write a notebook; strings become Markdown cells."""
    cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    path = folder / f"{stem}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def front(**changes) -> Front:
    """Return a title page, with some fields changed."""
    fields = {
        "title": "A small report",
        "author": "A. Student",
        "course": "A course",
        "date": "2026-01-15",
        "dataset": "Phantoms, folder chest_xray",
        "synthetic": True,
    }
    return Front(**fields | changes)

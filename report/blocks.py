"""The blocks of a report (prose, figures, tables), read from executed notebooks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nbformat import NotebookNode

from cxr_helpers.figures.publishing import TABLE_MIME
from report.errors import ReportError

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
WORK = re.compile(r"- (?:van der )?(\S+) [A-Z].*? \((\d{4})\)")  # its first author, and the year
LEFT_OUT = frozenset({"notebook-only", "setup", "parameters", "injected-parameters"})


@dataclass(frozen=True)
class Prose:
    """Markdown, with TeX mathematics between dollar signs; ``small`` where its lists are set small."""

    markdown: str
    small: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture as vector (preferred) or raster, with its caption and alternative text.

    ``title`` is what the caption says after its finding; without one, the whole caption.
    """

    id: str
    svg: str | None
    png: bytes | None
    caption: str
    alt: str
    width: float = 1.0
    title: str = ""

    def __post_init__(self) -> None:
        """Refuse a figure that neither HTML nor PDF could show."""
        check_id(self.id)
        if not (self.svg or self.png):
            raise ReportError(f"figure {self.id!r} has no picture; expected SVG or PNG")
        if not self.caption.strip() or not self.alt.strip():
            raise ReportError(f"figure {self.id!r} needs a caption and an alternative text")
        if not 0 < self.width <= 1:
            raise ReportError(
                f"width of figure {self.id!r} is {self.width!r}; expected above 0 and at most 1"
            )


@dataclass(frozen=True)
class Table:
    """Cells as text, with columns ``{"label": str, "align": "left" or "right"}``.

    A line break in a cell is kept. ``sections`` are sub-headings, each above the row of its number.
    """

    id: str
    columns: list[dict[str, str]]
    rows: list[list[str]]
    caption: str
    sections: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse ragged rows and cells that are not text."""
        check_id(self.id)
        if not self.columns:
            raise ReportError(f"table {self.id!r} has no columns; expected at least one")
        for column in self.columns:
            if column.get("align") not in {"left", "right"} or "label" not in column:
                raise ReportError(f"column {column!r} of table {self.id!r} needs label and align")
        for row in self.rows:
            if len(row) != len(self.columns) or not all(isinstance(cell, str) for cell in row):
                raise ReportError(
                    f"row {row!r} of table {self.id!r}: expected {len(self.columns)} strings"
                )


@dataclass(frozen=True)
class References:
    """The works that a report may cite: Markdown, a list item for each."""

    markdown: str

    def cited_in(self, text: str) -> Prose:
        """Return those that a text cites, and what names no author and year, such as the heading."""
        kept = [
            line
            for line in self.markdown.splitlines()
            if not (work := WORK.match(line)) or is_cited(*work.groups(), text)
        ]
        return Prose("\n".join(kept), small=True)


def is_cited(author: str, year: str, text: str) -> bool:
    """Return whether a text cites a work, as in "Guo et al. (2017)"."""
    citation = rf"\b{re.escape(author)}\b[^;()\d]{{0,80}}?[ (\[]{year}"
    return re.search(citation, " ".join(text.split())) is not None


Block = Prose | Figure | Table | References


@dataclass(frozen=True)
class Chapter:
    """The blocks of one notebook; ``id`` is the notebook's stem."""

    id: str
    blocks: tuple[Block, ...]


def check_id(id: str) -> None:
    """Refuse an id that is not a valid label in both HTML and Typst."""
    if not IDENTIFIER.fullmatch(id):
        raise ReportError(f"id {id!r}: expected a letter, then letters, digits, '-' or '_'")


def chapters(notebook: NotebookNode) -> list[Chapter]:
    """Return the chapters of a notebook made by `report.merge.merge`.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Cells name their notebook under ``metadata.notebook``.

    Returns
    -------
    list of Chapter
        In the order of the notebook's cells.

    Raises
    ------
    ReportError
        If a chapter does not open with a level-one heading, or an output violates
        the contract of `cxr_helpers.figures.publishing`.
    """
    blocks_of: dict[str, list[Block]] = {}
    for cell in notebook.cells:
        stem = cell.metadata.notebook
        blocks = blocks_of.setdefault(stem, [])
        if LEFT_OUT.isdisjoint(cell.metadata.get("tags", ())):
            try:
                blocks.extend(cell_blocks(cell))
            except (KeyError, TypeError) as error:
                raise ReportError(
                    f"{stem}, cell {cell.id}: output lacks {error}; expected an output of "
                    "cxr_helpers.figures.publishing"
                ) from error
    for stem, blocks in blocks_of.items():
        opening = blocks[0].markdown if blocks and isinstance(blocks[0], Prose) else ""
        if not opening.lstrip().startswith("# "):
            raise ReportError(f"{stem}: expected a first Markdown cell that opens with '# Title'")
    return [Chapter(stem, tuple(blocks)) for stem, blocks in blocks_of.items()]


def cell_blocks(cell: NotebookNode) -> Iterable[Block]:
    """Yield the blocks of one cell: its prose and its published outputs, no code."""
    if cell.cell_type == "markdown" and cell.source.strip():
        yield Prose(cell.source)
    for output in cell.get("outputs", ()):
        block = output_block(output.get("data", {}), output.get("metadata", {}).get("cxr", {}))
        if block is not None:
            yield block


def output_block(data: Mapping, metadata: Mapping) -> Block | None:
    """Return the block that one output publishes, or None.

    Anchors, captions, streams and plain results are no blocks.
    """
    match metadata.get("kind"):
        case "text":
            return Prose(data["text/markdown"])
        case "figure":
            png = data.get("image/png")
            return Figure(
                metadata["id"],
                data.get("image/svg+xml"),
                base64.b64decode(png) if png else None,
                metadata["caption"],
                metadata["alt"],
                metadata.get("width", 1.0),
                metadata.get("title", ""),
            )
        case "table":
            content = data[TABLE_MIME]
            columns = [dict(column) for column in content["columns"]]
            return Table(metadata["id"], columns, content["rows"], metadata["caption"])
    return None

"""The report in reading order, with numbered figures and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cxr_helpers.figures.publishing import SYNTHETIC_LABEL
from report.blocks import Block, Chapter, Figure, Prose, References, Table
from report.errors import ReportError

SHORT = 56  # characters of a caption in the lists of figures and tables
SYNTHETIC_WARNING = "All figures and numbers come from synthetic images, not from patients."
# of a run that scores the networks of another one
PARTLY_SYNTHETIC = (
    "The training images, the test images or both are synthetic: no number says how well networks "
    "trained on images of patients perform on images of patients."
)


@dataclass(frozen=True)
class Front:
    """Contents of the title page; ``date`` is ISO yyyy-mm-dd."""

    title: str
    author: str
    course: str
    date: str
    dataset: str
    synthetic: bool
    warning: str = SYNTHETIC_WARNING
    notice: str = "Not for clinical use."


@dataclass(frozen=True)
class Matter:
    """The parts of a report that no notebook holds; ``notes`` are blocks at the end of a chapter."""

    front: Front
    abstract: tuple[Block, ...] = ()
    opening: tuple[Block, ...] = ()
    closing: tuple[Block, ...] = ()
    appendix: tuple[Block, ...] = ()
    notes: Mapping[str, Sequence[Block]] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """A block in its place; ``label`` is, for example, ``"Figure 3"``, empty for prose."""

    block: Block
    chapter: str
    numbered: bool
    label: str

    @property
    def kind(self) -> str:
        """Class name of the block in lower case, used by the templates."""
        return type(self.block).__name__.lower()

    @property
    def short(self) -> str:
        """First sentence of the title or caption, for the lists of figures and tables."""
        return first_sentence(getattr(self.block, "title", "") or self.block.caption)


@dataclass(frozen=True)
class Document:
    """A report in reading order."""

    front: Front
    items: tuple[Item, ...]

    def of_kind(self, kind: str) -> list[Item]:
        """Return the items of one kind, in order."""
        return [item for item in self.items if item.kind == kind]

    @property
    def labels(self) -> dict[str, str]:
        """Label of each figure and table, by id."""
        return {item.block.id: item.label for item in self.items if item.label}


def compose(chapters: Sequence[Chapter], matter: Matter) -> Document:
    """Put all blocks in reading order, number figures and tables, and list the works that are cited.

    Parameters
    ----------
    chapters : sequence of Chapter
        One for each notebook.
    matter : Matter
        Title page, abstract, opening, closing and appendix; an appendix that does not
        open with a heading gets the heading "Appendix".

    Returns
    -------
    Document

    Raises
    ------
    ReportError
        If two figures or tables share an id.
    """
    appendix = matter.appendix
    if appendix and not (
        isinstance(appendix[0], Prose) and appendix[0].markdown.lstrip().startswith("#")
    ):
        appendix = (Prose("# Appendix"), *appendix)
    parts = [("abstract", False, matter.abstract), ("opening", False, matter.opening)]
    for chapter in chapters:
        parts += [(chapter.id, True, (*chapter.blocks, *matter.notes.get(chapter.id, ())))]
    parts += [("closing", False, matter.closing), ("appendix", False, appendix)]
    text = "\n".join(
        block.markdown if isinstance(block, Prose) else block.caption
        for _, _, blocks in parts
        for block in blocks
        if not isinstance(block, References)
    )

    items: list[Item] = []
    counts = {Figure: 0, Table: 0}
    seen: dict[str, str] = {}
    for chapter, numbered, blocks in parts:
        for block in blocks:
            if isinstance(block, References):
                block = block.cited_in(text)
            label = ""
            if isinstance(block, Figure | Table):
                if block.id in seen:
                    raise ReportError(
                        f"id {block.id!r} appears in {seen[block.id]} and {chapter}; expected once"
                    )
                seen[block.id] = chapter
                counts[type(block)] += 1
                label = f"{type(block).__name__} {counts[type(block)]}"
            items.append(Item(block, chapter, numbered, label))
    return Document(matter.front, tuple(items))


def first_sentence(caption: str) -> str:
    """Return the start of a caption, up to a full stop or bracket, at most `SHORT` characters."""
    caption = caption.removeprefix(f"{SYNTHETIC_LABEL}. ")
    sentence = re.split(r"(?<=[.!?:;])\s| \(", caption.strip(), maxsplit=1)[0].rstrip(".:;")
    if len(sentence) <= SHORT:
        return sentence
    return sentence[: SHORT - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"

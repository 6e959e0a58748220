"""Conversion of all Markdown of a report in one call of pandoc."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pypandoc

from report.document import Document
from report.errors import ReportError

SCRIPT = Path(__file__).parent / "templates" / "markdown.lua"


@dataclass(frozen=True)
class Heading:
    """A heading as numbered in both targets; ``number`` is empty for unnumbered headings."""

    level: int
    id: str
    number: str
    text: str


@dataclass(frozen=True)
class Converted:
    """Markup of each prose block, all headings in order, and the footnotes (HTML only)."""

    fragments: list[str]
    headings: list[Heading]
    notes: str


def convert(document: Document, *, target: Literal["html", "typst"]) -> Converted:
    """Convert the prose of a report.

    Each fragment is parsed separately, as in Jupyter, so that an unclosed code fence or a
    footnote of one cell does not affect the next. Raw HTML becomes text, images become their
    alternative text, and links become plain text unless they point to a web address, to a place
    in this report or to one of its notebooks. A link to a figure or table that is empty, or reads
    "the figure below" or "table above" in the notebook, becomes its label; in brackets it is left out
    with them where the report has no such figure or table.

    Parameters
    ----------
    document : Document
        Its prose is converted; its labels replace empty links.
    target : {"html", "typst"}
        Output format.

    Returns
    -------
    Converted

    Raises
    ------
    ReportError
        If the target of an internal link does not exist; the message names link and chapter.
    RuntimeError
        If pandoc fails.
    """
    prose = [
        {"chapter": item.chapter, "numbered": item.numbered, "markdown": item.block.markdown}
        for item in document.of_kind("prose")
    ]
    job = {"target": target, "labels": document.labels, "prose": prose}
    job["split"] = "split-" + hashlib.sha256(json.dumps(job).encode()).hexdigest()
    run = subprocess.run(
        [pypandoc.get_pandoc_path(), "lua", str(SCRIPT)],
        input=json.dumps(job).encode(),
        capture_output=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"pandoc failed: {run.stderr.decode(errors='replace').strip()}")
    result = json.loads(run.stdout)
    if result["dead"]:
        dead = "; ".join(f"{link['target']} in {link['chapter']}" for link in result["dead"])
        raise ReportError(f"dead links: {dead}; expected the id of a block or heading")
    *fragments, notes = (text.strip() for text in result["text"].split(job["split"]))
    if len(fragments) != len(prose):
        raise RuntimeError(f"pandoc returned {len(fragments)} fragments for {len(prose)}")
    return Converted(fragments, [Heading(**heading) for heading in result["headings"]], notes)

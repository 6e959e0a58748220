"""All Markdown of a report through one pandoc call."""

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
    """A heading as both targets number it; ``number`` is empty where there is none."""

    level: int
    id: str
    number: str
    text: str


@dataclass(frozen=True)
class Converted:
    """Markup of each prose block, all headings in order, and the foot notes (HTML only)."""

    fragments: list[str]
    headings: list[Heading]
    notes: str


def convert(document: Document, *, target: Literal["html", "typst"]) -> Converted:
    """Convert the prose of a report.

    Each fragment is parsed on its own, as Jupyter does, so that one cell's open
    fence or foot note never reaches the next. Raw HTML becomes text, images become
    their alternative text, and links other than web addresses, internal ones and
    notebooks of this report become plain text.

    Parameters
    ----------
    document : Document
        Its prose is converted; its labels are what empty links become.
    target : {"html", "typst"}
        Language of the result.

    Returns
    -------
    Converted

    Raises
    ------
    ReportError
        If an internal link leads nowhere; the message names link and chapter.
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
    answer = json.loads(run.stdout)
    if answer["dead"]:
        dead = "; ".join(f"{link['target']} in {link['chapter']}" for link in answer["dead"])
        raise ReportError(f"links that lead nowhere: {dead}; expected the id of something here")
    *fragments, notes = (text.strip() for text in answer["text"].split(job["split"]))
    if len(fragments) != len(prose):
        raise RuntimeError(f"pandoc returned {len(fragments)} fragments for {len(prose)}")
    return Converted(fragments, [Heading(**heading) for heading in answer["headings"]], notes)

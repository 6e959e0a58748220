"""Write report.html and report.pdf from executed notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxr_helpers.system import files
from report.blocks import Block
from report.document import Front, Matter
from report.html import HtmlExporter
from report.merge import merge
from report.pdf import TypstExporter, typeset

INSTALL = "pip install typst pypandoc-binary, or print report.html from a browser"
PRINT = "print report.html from a browser instead"


@dataclass(frozen=True)
class Rendered:
    """What was written; ``pdf`` is None where ``warnings`` says why."""

    html: Path
    pdf: Path | None
    warnings: list[str] = field(default_factory=list)


def render(
    notebooks: Sequence[Path],
    *,
    front: Front,
    opening: Sequence[Block] = (),
    closing: Sequence[Block] = (),
    appendix: Sequence[Block] = (),
    out: Path,
    pdf: bool = True,
) -> Rendered:
    """Render executed notebooks as one HTML and one PDF report.

    Parameters
    ----------
    notebooks : sequence of Path
        Executed notebooks in reading order, one chapter each.
    front : Front
        The title page.
    opening, closing, appendix : sequence of Block
        What comes before the first chapter, after the last, and at the very end;
        headings there carry no number.
    out : Path
        Folder that receives ``report.html`` and ``report.pdf``; made if missing.
    pdf : bool
        Whether to make the PDF.

    Returns
    -------
    Rendered
        Without a PDF if it could not be made; an older one is removed then.

    Raises
    ------
    ReportError
        If a notebook did not run cleanly to its end, breaks the contract of
        `cxr_helpers.figures.publishing`, repeats an id, or links to nothing.
    """
    merged = merge(notebooks)
    matter = Matter(front, tuple(opening), tuple(closing), tuple(appendix))
    page, _ = HtmlExporter().from_notebook_node(merged, {"matter": matter})
    out.mkdir(parents=True, exist_ok=True)
    printed, warnings = None, []
    if pdf:
        try:
            source, resources = TypstExporter().from_notebook_node(merged, {"matter": matter})
            printed, warnings = typeset(source, resources["outputs"], date=front.date)
        except ModuleNotFoundError as fault:
            if fault.name != "typst":
                raise
            warnings = [f"PDF skipped: {fault}; {INSTALL}"]
        except RuntimeError as fault:  # pandoc's or Typst's; a full disk is no reason to go on
            warnings = [f"PDF skipped: {fault}; {PRINT}"]
    # both are ready: an interruption leaves both old ones, or none
    pdf_path = out / "report.pdf"
    pdf_path.unlink(missing_ok=True)  # an older one would pass for this report's
    html_path = files.write_bytes(out / "report.html", page.encode(errors="replace"))
    if printed is None:
        return Rendered(html_path, None, warnings)
    return Rendered(html_path, files.write_bytes(pdf_path, printed), warnings)

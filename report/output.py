"""Write report.html and report.pdf from executed notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Paths of the written files; ``pdf`` is None if it could not be made (see ``warnings``)."""

    html: Path
    pdf: Path | None
    warnings: list[str] = field(default_factory=list)


def render(
    notebooks: Sequence[Path],
    *,
    front: Front,
    abstract: Sequence[Block] = (),
    opening: Sequence[Block] = (),
    closing: Sequence[Block] = (),
    appendix: Sequence[Block] = (),
    notes: Mapping[str, Sequence[Block]] | None = None,
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
    abstract : sequence of Block
        Prose and figures on the title page.
    opening, closing, appendix : sequence of Block
        Blocks before the first chapter, after the last, and at the end of the report;
        their headings are not numbered.
    notes : mapping of notebook's stem to sequence of Block, optional
        Blocks at the end of a chapter.
    out : Path
        Folder for ``report.html`` and ``report.pdf``; created if missing.
    pdf : bool
        Whether to make the PDF.

    Returns
    -------
    Rendered
        Without a PDF if it could not be made; an older PDF is then removed.

    Raises
    ------
    ReportError
        If a notebook did not run to its end without error, violates the contract of
        `cxr_helpers.figures.publishing`, repeats an id, or contains a dead link.
    """
    merged = merge(notebooks)
    parts = (tuple(part) for part in (abstract, opening, closing, appendix))
    matter = Matter(front, *parts, notes=notes or {})
    page, _ = HtmlExporter().from_notebook_node(merged, {"matter": matter})
    out.mkdir(parents=True, exist_ok=True)
    pdf_bytes, warnings = None, []
    if pdf:
        try:
            source, resources = TypstExporter().from_notebook_node(merged, {"matter": matter})
            pdf_bytes, warnings = typeset(source, resources["outputs"], date=front.date)
        except ModuleNotFoundError as error:
            if error.name != "typst":
                raise
            warnings = [f"PDF skipped: {error}; {INSTALL}"]
        except RuntimeError as error:  # from pandoc or Typst; a full disk (OSError) is raised
            warnings = [f"PDF skipped: {error}; {PRINT}"]
    # Files are written only now that both are complete: an interruption before this point leaves
    # the old ones.
    pdf_path = out / "report.pdf"
    pdf_path.unlink(missing_ok=True)  # an older PDF would be taken for this report's
    html_path = files.write_bytes(out / "report.html", page.encode(errors="replace"))
    if pdf_bytes is None:
        return Rendered(html_path, None, warnings)
    return Rendered(html_path, files.write_bytes(pdf_path, pdf_bytes), warnings)

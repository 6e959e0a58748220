"""The PDF report: Typst source written by an nbconvert exporter, compiled to tagged PDF."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from nbconvert.exporters import TemplateExporter
from nbformat import NotebookNode

from cxr_helpers.figures.publishing import SYNTHETIC_LABEL
from report.blocks import Table, chapters
from report.document import Document, Front, compose
from report.pandoc import convert

# The first so many floats of a chapter go to the bottom of a page, so as not to stand above its heading;
# the others, and the last so many, to the top or bottom, so as not to stand below that of the next.
# The first of the others can still stand above the last of these, on one page: with two in the reports
# on real images and of the preset quick, with three in neither.
EARLY = 3
TEMPLATES = Path(__file__).parent / "templates"


class TypstExporter(TemplateExporter):
    """Write a merged notebook as Typst; ``resources["matter"]`` is a `Matter`.

    The returned resources contain, under ``outputs``, the files that the source reads.
    """

    output_mimetype = "application/pdf"
    template_name = "typst"
    file_extension = ".typ"
    default_preprocessors: ClassVar[list] = []

    @property
    def extra_template_basedirs(self) -> list[str]:
        """Folder of the report's templates."""
        return [str(TEMPLATES)]

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return the Typst source and the resources."""
        document = compose(chapters(nb), resources["matter"])
        prose = iter(convert(document, target="typst").fragments)
        flow = [(item, next(prose) if item.kind == "prose" else "") for item in document.items]
        source, resources = super().from_notebook_node(
            nb, {**resources, "document": document, "flow": flow}, **kw
        )
        resources["outputs"] = {
            **pictures(document),
            "data.json": json.dumps(content(document), ensure_ascii=False).encode(errors="replace"),
            "style.typ": (TEMPLATES / "typst" / "style.typ").read_bytes(),
        }
        return source, resources


def pictures(document: Document) -> dict[str, bytes]:
    """Return the figures as files, as vector graphics where available."""
    figures = [item.block for item in document.of_kind("figure")]
    return {
        picture_name(figure): figure.svg.encode() if figure.svg else figure.png
        for figure in figures
    }


def picture_name(figure: Any) -> str:
    """Return the file name of a figure."""
    return f"{figure.id}.{'svg' if figure.svg else 'png'}"


def content(document: Document) -> dict[str, Any]:
    """Return all text other than prose, as the JSON that ``style.typ`` reads."""
    blocks, of_chapter = {}, Counter()
    floats = Counter(item.chapter for item in document.items if item.label)
    for item in document.items:
        if item.label:
            block = item.block
            of_chapter[item.chapter] += 1
            blocks[block.id] = {
                "kind": item.kind,
                "chapter": item.chapter,
                "early": of_chapter[item.chapter] <= min(EARLY, floats[item.chapter] - EARLY),
                "label": item.label,
                "short": item.short,
                "caption": block.caption,
            }
            if isinstance(block, Table):
                sections = {str(row): heading for row, heading in block.sections}
                blocks[block.id] |= {
                    "columns": block.columns,
                    "rows": block.rows,
                    "sections": sections,
                }
            else:
                name = picture_name(block)
                blocks[block.id] |= {"file": name, "alt": block.alt, "width": float(block.width)}
    return {"front": front_content(document.front), "blocks": blocks}


def front_content(front: Front) -> dict[str, Any]:
    """Return the contents of the title page."""
    names = ("title", "author", "course", "date", "dataset", "synthetic", "warning", "notice")
    return {**{name: getattr(front, name) for name in names}, "label": SYNTHETIC_LABEL}


def typeset(source: str, outputs: dict[str, bytes], *, date: str) -> tuple[bytes, list[str]]:
    """Compile Typst to PDF/UA-1, or to plain PDF if that standard cannot be met.

    Parameters
    ----------
    source : str
        Content of the main file.
    outputs : dict of str to bytes
        The files that it reads, by name.
    date : str
        ISO yyyy-mm-dd; ``SOURCE_DATE_EPOCH`` in the environment takes precedence.

    Returns
    -------
    pdf : bytes
        Identical for identical input.
    warnings : list of str
        Compiler warnings, and a warning if the PDF does not meet PDF/UA-1.

    Raises
    ------
    ImportError
        If the ``typst`` wheel is not installed.
    RuntimeError
        If the source does not compile; the message is the compiler's, with file and line.
    """
    import typst

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "report.typ").write_text(source, encoding="utf-8")
        for name, file in outputs.items():
            (root / name).write_bytes(file)
        options = {
            "input": root / "report.typ",
            "root": root,
            "font_paths": [fonts(root / "fonts")],
            "ignore_system_fonts": True,
            "timestamp": timestamp(date),
        }
        try:
            pdf, warnings = typst.compile_with_warnings(**options, pdf_standards=["ua-1"])
            return pdf, [warning.message for warning in warnings]
        except typst.TypstError as error:
            reason = error.message
        try:
            pdf, warnings = typst.compile_with_warnings(**options)
        except typst.TypstError as error:
            raise RuntimeError(error.diagnostic) from error
    return pdf, [
        f"PDF is not accessible (PDF/UA-1), and characters may be missing: {reason}",
        *(warning.message for warning in warnings),
    ]


def fonts(folder: Path) -> Path:
    """Copy matplotlib's DejaVu fonts into a folder; its LastResort would hide missing glyphs."""
    import matplotlib

    folder.mkdir()
    for font in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf")):
        shutil.copyfile(font, folder / font.name)
    return folder


def timestamp(date: str) -> int:
    """Return the Unix time ``SOURCE_DATE_EPOCH``, or else midnight (UTC) of ``date``."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        return int(epoch)
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())

"""The report as one self-contained HTML file: no script, no network, one style sheet."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup
from nbconvert.exporters import TemplateExporter
from nbformat import NotebookNode

from cxr_helpers.figures.publishing import SYNTHETIC_LABEL
from report import mathfont
from report.blocks import Figure, chapters
from report.document import compose
from report.pandoc import Heading, convert

TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; "
    "base-uri 'none'; form-action 'none'"
)


class HtmlExporter(TemplateExporter):
    """Write a merged notebook as HTML; ``resources["matter"]`` is a `Matter`."""

    output_mimetype = "text/html"
    template_name = "html"
    file_extension = ".html"
    default_preprocessors: ClassVar[list] = []

    @property
    def extra_template_basedirs(self) -> list[str]:
        """Folder of the report's templates."""
        return [str(TEMPLATES)]

    def _create_environment(self) -> Environment:
        """Escape everything that is not marked as safe markup."""
        environment = super()._create_environment()
        environment.autoescape = True
        environment.trim_blocks = environment.lstrip_blocks = True
        environment.filters["data_url"] = data_url
        return environment

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return the HTML and the resources."""
        document = compose(chapters(nb), resources["matter"])
        prose = convert(document, target="html")
        fragments = iter(prose.fragments)
        flow = [
            (item, markup(next(fragments)) if item.kind == "prose" else "")
            for item in document.items
        ]
        context = {
            "document": document,
            "front": document.front,
            "flow": flow,
            "headings": nested(prose.headings),
            "notes": markup(prose.notes),
            "policy": POLICY,
            "synthetic_label": SYNTHETIC_LABEL,
            "synthetic_warning": document.front.warning,
            "math_font": mathfont.data_url(
                mathfont.spacing_accents("".join([*prose.fragments, prose.notes]))
            ),
        }
        return super().from_notebook_node(nb, {**resources, **context}, **kw)


def markup(pandoc_html: str) -> Markup:
    """Mark pandoc's HTML as safe, and add table scopes and keyboard focus for accessibility."""
    scoped = re.sub(r"<th(?=[ >])", '<th scope="col"', pandoc_html)
    reachable = scoped.replace('<math display="block"', '<math display="block" tabindex="0"')
    return Markup(mathfont.spacing_accents(reachable))


def nested(headings: list[Heading]) -> list[tuple[Heading, list[Heading]]]:
    """Return the headings of level one, each with its sections."""
    tree: list[tuple[Heading, list[Heading]]] = []
    for heading in headings:
        if heading.level == 1:
            tree.append((heading, []))
        elif heading.level == 2 and tree:
            tree[-1][1].append(heading)
    return tree


def data_url(figure: Figure) -> str:
    """Return a figure as a ``data:`` URL, as vector graphics where available.

    Percent-encoding is a quarter shorter than Base64, in which the images of a figure are already.
    """
    if figure.svg:
        svg = " ".join(figure.svg.split("\n"))
        return "data:image/svg+xml," + quote(svg, safe=" !$()*+,-./:;=?@_~")
    return "data:image/png;base64," + base64.b64encode(figure.png).decode()

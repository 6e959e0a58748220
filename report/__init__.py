"""Typesetting: executed notebooks become one HTML and one PDF report.

``merge`` joins the notebooks, ``blocks`` reads what they published, ``document``
orders and numbers it, ``pandoc`` converts the prose, ``html`` and ``pdf`` are
nbconvert exporters with templates of their own, ``output`` writes the files. ``contents`` says what
stands around the notebooks, ``currency`` whether a report is current, and ``errors`` holds what is
raised where one cannot be made.
"""

from report.blocks import Block, Chapter, Figure, Prose, Table
from report.document import Front
from report.errors import ReportError
from report.output import Rendered, render

__all__ = [
    "Block",
    "Chapter",
    "Figure",
    "Front",
    "Prose",
    "Rendered",
    "ReportError",
    "Table",
    "render",
]

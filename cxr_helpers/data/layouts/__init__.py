"""Layouts of datasets: each module of this package finds and lists images in one form.

To add a layout, write one module here; nothing else changes, and no list needs an entry. The
module offers what ``Layout`` describes:

``EXPECTED``
    what a user may give, for the error message where no layout fits.
``recognise(path)``
    a ``scans.Match`` where exactly this folder or file is a dataset of this form, else None.
    ``find`` itself searches two levels of folders, chooses among several datasets and writes the
    error message, so a layout inspects one path only. It is called for many folders: read no image.
``scan(root)``
    a ``scans.Scan``: one row per image with ``file``, ``folder`` (train, val or test),
    ``class_name`` (normal, bacterial, viral or ``class_names.UNKNOWN``) and ``group`` (a patient; images of a
    group stay in one split). Images that are files are decoded from ``root / file``; for all others
    the scan's ``pixels`` give the grey levels. Data that cannot be used raise ``DataError`` with one
    line that names file and remedy.

Reading, digests, the cache of decoded images, splits and refusals of too few images then work as
for any other dataset. ``tests/data/test_new_layout.py`` adds such a module, flat images with a
table of labels, and reads it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from functools import cache
from pathlib import Path
from typing import Protocol

from cxr_helpers.data import folders, scans
from cxr_helpers.data.scans import Match, Scan
from cxr_helpers.system.errors import DataError


class Layout(Protocol):
    """What a module of this package offers."""

    EXPECTED: str

    def recognise(self, path: Path) -> Match | None:
        """Return how well exactly this folder or file fits, None where it does not."""

    def scan(self, root: Path) -> Scan:
        """Return the images of a dataset that was recognised."""


@cache
def installed() -> tuple[Layout, ...]:
    """Return the modules of this package, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)


def recognise(path: Path) -> tuple[Match, Layout] | None:
    """Return the best match of exactly one path and its layout, None where no layout fits."""
    matches = [(match, layout) for layout in installed() if (match := layout.recognise(path))]
    return min(matches, key=lambda fit: (bool(fit[0].missing), fit[0].rank), default=None)


def find(path: str | Path) -> tuple[Path, Layout]:
    """Return a dataset and its layout: ``path`` itself, or the only one within two levels below.

    Below ``path``, a dataset without test images is taken only where none has them, and one
    without splits only where there is no other. What cannot be read is skipped.

    Raises
    ------
    DataError
        If there is none, or more than one at the same depth.
    """
    path = Path(path)
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise DataError(f"data folder {str(path)!r} does not exist; give a folder, or 'phantom'")
    if os.path.isdir(path):
        folders.entries(path)  # raises where it cannot be read
    first = recognise(path)
    if first and not first[0].missing:
        return path, first[1]
    if path.resolve().parent == path.resolve():
        raise DataError(f"{str(path)!r} is a whole disk: name the folder of the images")
    found = [(path, *first)] if first else []
    for level in folders.levels_below(path):
        here = [(folder, *fit) for folder in level if (fit := recognise(folder))]
        found += here
        if any(match.rank == 0 and not match.missing for _, match, _ in here):
            break
    return _chosen(path, found)


def _chosen(path: Path, found: list[tuple[Path, Match, Layout]]) -> tuple[Path, Layout]:
    """Return the best complete dataset; raise DataError where there is none or more than one."""
    complete = [
        ((match.rank, len(root.parts)), root, layout)
        for root, match, layout in found
        if not match.missing
    ]
    if complete:
        best = min(order for order, *_ in complete)
        roots = [(root, layout) for order, root, layout in complete if order == best]
        if len(roots) == 1:
            return roots[0]
        names = ", ".join(sorted(root.name for root, _ in roots))
        raise DataError(f"{str(path)!r} holds several data folders ({names}): name one")
    for root, match, _ in found:
        raise DataError(f"{str(root)!r}: {match.missing}")
    expected = "; or ".join(layout.EXPECTED for layout in reversed(installed()))
    names = ", ".join(entry.name for entry in folders.entries(path)[:8]) or "nothing"
    raise DataError(f"no chest X-ray folder at {str(path)!r}: expected {expected}; found {names}")


def scan(path: str | Path) -> Scan:
    """Return the images of the dataset at a path or just below it.

    Raises
    ------
    DataError
        If there is no usable dataset.
    """
    root, layout = find(path)
    return scans.check(layout.scan(root))

"""Find the images of a data folder, and say of each what folder and name tell."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_helpers.data import layout
from cxr_helpers.data.class_names import UNKNOWN
from cxr_helpers.data.layout import is_clutter
from cxr_helpers.system.errors import DataError

SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
MINIMUM_PER_CLASS = 2

_CAUSE = {"bacteria": "bacterial", "virus": "viral"}
_NORMAL = re.compile(r"(?P<series>NORMAL2-)?IM-(?P<number>\d+)")
_PNEUMONIA = re.compile(r"person(?P<number>\d+)_((?P<cause>bacteria|virus)_)?")


@dataclass(frozen=True)
class Scan:
    """What a data folder holds.

    Attributes
    ----------
    root : Path
        The folder that holds ``train`` and ``test``, or the class folders.
    files : pandas.DataFrame
        A row an image, sorted: ``file`` (path below ``root``, with ``/``), ``folder``
        (train, val or test), ``class_name`` (normal, bacterial, viral, unknown subtype) and
        ``group`` (class and patient number: never parted between splits).
    ignored : pandas.DataFrame
        Files that are not images of the dataset: ``file``, ``reason``.
    """

    root: Path
    files: pd.DataFrame
    ignored: pd.DataFrame


def scan(path: str | Path) -> Scan:
    """List the images below a folder; nothing is decoded and no link is followed.

    Raises
    ------
    DataError
        If no data folder is found at ``path`` or just below it, or a class has fewer than
        two images in train or test.
    """
    root = layout.find_root(Path(path))
    files, ignored = [], []
    for split, kinds in layout.class_folders(root).items():
        for kind, places in kinds.items():
            for place in places:
                for entry in layout.listed(root / place):
                    name = f"{place}/{entry.name}"
                    if reason := _unfit(entry):
                        ignored.append((name.encode(errors="replace").decode(), reason))
                    else:
                        own = _identify(entry.name, layout.FOLDERS[kind], split or "train")
                        files.append((name, split or "train", *own))
    found = Scan(
        root,
        pd.DataFrame(files, columns=["file", "folder", "class_name", "group"]).sort_values(
            "file", ignore_index=True
        ),
        pd.DataFrame(ignored, columns=["file", "reason"]).sort_values("file", ignore_index=True),
    )
    _check_classes(found)
    return found


def _unfit(entry: os.DirEntry) -> str | None:
    """Return why an entry is no image of the dataset, or None where it may be one."""
    if is_clutter(entry.name):
        return "system file"
    if any("\ud800" <= char <= "\udfff" for char in entry.name):
        return "name is not UTF-8"
    if entry.is_symlink():
        return "link"
    if not entry.is_file():
        return "not a file"
    if Path(entry.name).suffix.lower() not in SUFFIXES:
        return "not an image name"
    return None


def _identify(name: str, class_name: str | None, split: str) -> tuple[str, str]:
    """Return class and group from an image's name, and from its folder's class if it tells one.

    A cause is never guessed. Without a patient number an image is a group of its own.
    """
    match = (_NORMAL if class_name == "normal" else _PNEUMONIA).match(name)
    if class_name is None:
        class_name = _CAUSE.get(match["cause"], UNKNOWN) if match else UNKNOWN
    if match is None or class_name == UNKNOWN:
        return class_name, f"{class_name} {split}/{name}"
    series = match["series"] or "" if class_name == "normal" else ""
    return class_name, f"{class_name} {series}{int(match['number'])}"


def _check_classes(found: Scan) -> None:
    """Raise DataError, naming the folder, for a class with too few images."""
    normal = found.files["class_name"] == "normal"
    for split, kinds in layout.class_folders(found.root).items():
        if split == "val":
            continue
        part = ["train", "val"] if split == "train" else [split or "train"]
        here = found.files["folder"].isin(part)
        for is_normal in (True, False):
            count = int((here & (normal == is_normal)).sum())
            if count < MINIMUM_PER_CLASS:
                own = [
                    place
                    for kind in kinds
                    if (kind == "normal") == is_normal
                    for place in kinds[kind]
                ]
                empty = not any(layout.listed(found.root / place) for place in own)
                has = "is empty" if empty else f"has {count or 'no'} image{'s' * (count != 1)}"
                raise DataError(
                    f"{found.root.name}/{' and '.join(own)} {has}; at least {MINIMUM_PER_CLASS} "
                    f"({', '.join(sorted(SUFFIXES))}) are needed"
                    + f"; {layout.ALONE}"
                    * (split == "test")
                )

"""Image files in class folders: class and patient come from folder and file name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxr_helpers.data import folders
from cxr_helpers.data.class_names import UNKNOWN
from cxr_helpers.data.scans import MINIMUM_PER_CLASS, Scan
from cxr_helpers.system.errors import DataError
from cxr_helpers.system.files import as_utf8

SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
WITHOUT_TEST = "a train folder alone is enough: part of it is then used as the test split"

_CAUSE = {"bacteria": "bacterial", "virus": "viral"}
_NORMAL = re.compile(r"(?P<series>NORMAL2-)?IM-(?P<number>\d+)")
_PNEUMONIA = re.compile(r"person(?P<number>\d+)_((?P<cause>bacteria|virus)_)?")


def scan(root: Path, class_folders: Mapping[str, Mapping[str, list[str]]]) -> Scan:
    """List the images in class folders; nothing is decoded and no link is followed.

    Parameters
    ----------
    root : Path
        The folder of the dataset.
    class_folders : mapping of split to mapping of class to list of str
        Paths of the class folders below ``root``, by split (train, val, test) and by their names
        in lower case, as ``folders.class_folders`` returns them.

    Raises
    ------
    DataError
        If a folder cannot be read, or train or test has fewer than two images of normal or of
        pneumonia; the message names the folders.
    """
    files, ignored = [], []
    for split, classes in class_folders.items():
        for name, paths in classes.items():
            for path in paths:
                for entry in folders.entries(root / path):
                    file = f"{path}/{entry.name}"
                    if reason := unfit(entry):
                        ignored.append((as_utf8(file), reason))
                    else:
                        files.append(
                            (file, split, *identify(entry.name, folders.CLASSES[name], split))
                        )
    found = Scan(
        root,
        pd.DataFrame(files, columns=["file", "folder", "class_name", "group"]).sort_values(
            "file", ignore_index=True
        ),
        pd.DataFrame(ignored, columns=["file", "reason"]).sort_values("file", ignore_index=True),
    )
    _check_classes(found, class_folders)
    return found


def unfit(entry: os.DirEntry) -> str | None:
    """Return why an entry of a folder is not an image of the dataset, None where it may be one."""
    if folders.is_clutter(entry.name):
        return "system file"
    if any("\ud800" <= char <= "\udfff" for char in entry.name):
        return "name is not UTF-8"
    if "\r" in entry.name:  # which ends a line of a CSV file
        return "name has a carriage return"
    if entry.is_symlink():
        return "link"
    if not entry.is_file():
        return "not a file"
    if Path(entry.name).suffix.lower() not in SUFFIXES:
        return "not an image name"
    return None


def identify(name: str, class_name: str | None, split: str) -> tuple[str, str]:
    """Return class and patient group of an image.

    The kind of pneumonia is never guessed. Without a patient number an image forms a group.

    Parameters
    ----------
    name : str
        The file name, such as ``"person1_virus_6.jpeg"`` or ``"NORMAL2-IM-0115-0001.jpeg"``.
    class_name : str, optional
        The class of its folder; None where the file name carries it.
    split : str
        Keeps equal names in two splits apart.
    """
    match = (_NORMAL if class_name == "normal" else _PNEUMONIA).match(name)
    if class_name is None:
        class_name = _CAUSE.get(match["cause"], UNKNOWN) if match else UNKNOWN
    if match is None or class_name == UNKNOWN:
        return class_name, f"{class_name} {split}/{name}"
    series = match["series"] or "" if class_name == "normal" else ""
    return class_name, f"{class_name} {series}{int(match['number'])}"


def _check_classes(scan: Scan, class_folders: Mapping[str, Mapping[str, list[str]]]) -> None:
    """Raise DataError, naming the folders, for too few images of normal or of pneumonia."""
    normal = scan.files["class_name"] == "normal"
    for split, classes in class_folders.items():
        if split == "val":
            continue
        rows = scan.files["folder"].isin(["train", "val"] if split == "train" else [split])
        for is_normal in (True, False):
            count = int((rows & (normal == is_normal)).sum())
            if count < MINIMUM_PER_CLASS:
                paths = [
                    path
                    for name in classes
                    if (name == "normal") == is_normal
                    for path in classes[name]
                ]
                empty = not any(folders.entries(scan.root / path) for path in paths)
                has = "is empty" if empty else f"has {count or 'no'} image{'s' * (count != 1)}"
                raise DataError(
                    f"{scan.root.name}/{' and '.join(paths)} {has}; at least {MINIMUM_PER_CLASS} "
                    f"({', '.join(sorted(SUFFIXES))}) are needed"
                    + f"; {WITHOUT_TEST}"
                    * (split == "test")
                )

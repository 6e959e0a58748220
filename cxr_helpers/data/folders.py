"""Folders on disk: what they list, and those that are named after a split or a class.

Upper and lower case do not differ. In a search, folders that cannot be read and links are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cxr_helpers.system.errors import DataError

SPLITS = ("train", "val", "test")
# a class folder's name in lower case: the class of its images, or None where file names carry it
CLASSES = {"normal": "normal", "pneumonia": None}
CLASSES |= dict.fromkeys(("bacterial", "bacteria"), "bacterial")
CLASSES |= dict.fromkeys(("viral", "virus"), "viral")
MAXIMUM_FOLDERS = 1000  # that are searched for a dataset


def entries(folder: Path) -> list[os.DirEntry]:
    """Return the entries of a folder, by name; DataError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{str(folder)!r} cannot be read ({error.strerror}): change its permissions"
        ) from error


def is_clutter(name: str) -> bool:
    """Return whether a file or folder belongs to an operating system: it is never an image."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini"}


def subfolders(folder: Path, *, strict: bool = False) -> dict[str, list[str]]:
    """Return the folders in a folder by their names in lower case, linked ones included.

    Parameters
    ----------
    folder : Path
    strict : bool
        Whether a folder that cannot be read raises DataError; otherwise it has no folders.
    """
    found: dict[str, list[str]] = {}
    try:
        listed = entries(folder)
    except DataError:
        if strict:
            raise
        return found
    for entry in listed:
        is_folder = entry.is_dir(follow_symlinks=False)
        linked = not is_folder and entry.is_symlink() and os.path.isdir(entry.path)
        if (is_folder or linked) and not is_clutter(entry.name):
            found.setdefault(entry.name.lower(), []).append(entry.name)
    return found


def class_folders(folder: Path, *, below: str = "", strict: bool = False) -> dict[str, list[str]]:
    """Return the class folders in a folder, by their names in lower case (keys of ``CLASSES``).

    Parameters
    ----------
    folder : Path
    below : str
        A subfolder of ``folder`` to look into; the paths that are returned begin with it.
    strict : bool
        As for ``subfolders``.
    """
    prefix = f"{below}/" if below else ""
    return {
        name: [f"{prefix}{path}" for path in paths]
        for name, paths in subfolders(folder / below, strict=strict).items()
        if name in CLASSES
    }


def levels_below(path: Path) -> Iterator[list[Path]]:
    """Yield the folders one level below a path, then those two levels below.

    Folders named after a split or a class belong to a dataset and are left out.

    Raises
    ------
    DataError
        If there are more than ``MAXIMUM_FOLDERS``.
    """
    level, count = [path], 0
    for _ in range(2):
        level = [
            folder / name
            for folder in level
            for lower, names in subfolders(folder).items()
            for name in names
            if lower not in (*SPLITS, *CLASSES) and not (folder / name).is_symlink()
        ]
        count += len(level)
        if count > MAXIMUM_FOLDERS:
            raise DataError(
                f"{str(path)!r} holds more than {MAXIMUM_FOLDERS} folders: name the image folder"
            )
        yield level

"""Find the images of a data folder, and say of each what folder and name tell.

Layouts: Kaggle's ``train|val|test/NORMAL|PNEUMONIA`` and Mendeley's, which has no ``val``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

CLASSES = ("normal", "bacterial", "viral")
UNKNOWN = "unknown subtype"
FOLDERS = ("NORMAL", "PNEUMONIA")
SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
MINIMUM_PER_CLASS = 2

_NORMAL = re.compile(r"(?P<series>NORMAL2-)?IM-(?P<number>\d+)")
_PNEUMONIA = re.compile(r"person(?P<number>\d+)_(?P<cause>bacteria|virus)_")
_CAUSE = {"bacteria": "bacterial", "virus": "viral"}


class DataError(ValueError):
    """The data cannot be used as they are; the message says what to do."""


@dataclass(frozen=True)
class Scan:
    """What a data folder holds.

    Attributes
    ----------
    root : Path
        The folder that holds ``train`` and ``test``.
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
    root = find_root(Path(path))
    files, ignored = [], []
    for split in ("train", "val", "test"):
        for folder in FOLDERS:
            for entry in _entries(root / split / folder):
                name = f"{split}/{folder}/{entry.name}"
                if reason := _unfit(entry):
                    ignored.append((name.encode(errors="replace").decode(), reason))
                else:
                    files.append((name, split, *_identify(entry.name, folder, split)))
    found = Scan(
        root,
        pd.DataFrame(files, columns=["file", "folder", "class_name", "group"]).sort_values(
            "file", ignore_index=True
        ),
        pd.DataFrame(ignored, columns=["file", "reason"]).sort_values("file", ignore_index=True),
    )
    _check_classes(found)
    return found


def find_root(path: Path) -> Path:
    """Return the data folder: ``path`` itself or the only one within two levels below it.

    A folder with ``train`` and no ``test`` at all is taken only where none has both.

    Raises
    ------
    DataError
        If there is none, or more than one at the same depth.
    """
    if not path.is_dir():
        raise DataError(f"data folder {str(path)!r} does not exist; give a folder, or 'phantom'")
    levels = [[path]]
    for _ in range(2):
        below = [
            Path(entry.path)
            for folder in levels[-1]
            for entry in _entries(folder)
            if entry.is_dir(follow_symlinks=False) and not is_clutter(entry.name)
        ]
        levels.append(below)
    for is_root in (_is_root, _is_train_alone):
        for level in levels:
            roots = [folder for folder in level if is_root(folder)]
            if len(roots) == 1:
                return roots[0]
            if roots:
                names = ", ".join(sorted(folder.name for folder in roots))
                raise DataError(f"{str(path)!r} holds several data folders ({names}): name one")
    found = ", ".join(entry.name for entry in _entries(path)[:8]) or "nothing"
    raise DataError(
        f"no chest X-ray folder at {str(path)!r}: expected train/NORMAL, train/PNEUMONIA, "
        f"test/NORMAL and test/PNEUMONIA in it or just below it; found {found}"
    )


def _is_root(folder: Path) -> bool:
    return all((folder / split / name).is_dir() for split in ("train", "test") for name in FOLDERS)


def _is_train_alone(folder: Path) -> bool:
    return not (folder / "test").exists() and all(
        (folder / "train" / name).is_dir() for name in FOLDERS
    )


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def is_clutter(name: str) -> bool:
    """Return whether a file or folder is a system's own, never a film."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini"}


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


def _identify(name: str, folder: str, split: str) -> tuple[str, str]:
    """Return class and group from an image's name; a cause is never guessed.

    Without a patient number a film is a group of its own.
    """
    if folder == "NORMAL":
        match = _NORMAL.match(name)
        number = f"{match['series'] or ''}{int(match['number'])}" if match else f"{split}/{name}"
        return "normal", f"normal {number}"
    match = _PNEUMONIA.match(name)
    if match is None:
        return UNKNOWN, f"{UNKNOWN} {split}/{name}"
    cause = _CAUSE[match["cause"]]
    return cause, f"{cause} {int(match['number'])}"


def _check_classes(found: Scan) -> None:
    normal = found.files["class_name"] == "normal"
    for split in ("train", "test") if (found.root / "test").exists() else ("train",):
        here = found.files["folder"].isin(["train", "val"] if split == "train" else ["test"])
        for folder, rows in (("NORMAL", here & normal), ("PNEUMONIA", here & ~normal)):
            if (count := int(rows.sum())) < MINIMUM_PER_CLASS:
                raise DataError(
                    f"{found.root.name}/{split}/{folder} has {count} images; "
                    f"at least {MINIMUM_PER_CLASS} are needed"
                )

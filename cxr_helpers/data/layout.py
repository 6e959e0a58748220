"""Find the data folder at a path or just below it, and its class folders.

Layouts, in any case: Kaggle's ``train|val|test/NORMAL|PNEUMONIA``, Mendeley's, which has no
``val``, ``train`` alone, the class folders without a split above them, and ``bacterial`` and
``viral`` in place of ``PNEUMONIA``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cxr_helpers.system.errors import DataError

SPLITS = ("train", "val", "test")
# a class folder's name in lower case, and the class of its images; None: their names tell
FOLDERS = {"normal": "normal", "pneumonia": None}
FOLDERS |= dict.fromkeys(("bacterial", "bacteria"), "bacterial")
FOLDERS |= dict.fromkeys(("viral", "virus"), "viral")
MAXIMUM_FOLDERS = 1000  # that are looked into
ALONE = "a train folder alone is enough: without test, a part of it stands in"

# by split ("" where there is none) and lower-case name: class folders, as paths below the root
Layout = dict[str, dict[str, list[str]]]


def find_root(path: Path) -> Path:
    """Return the data folder: ``path`` itself or the only one within two levels below it.

    Below ``path``, a folder without ``test`` is taken only where none has both, and class folders
    without ``train`` only where there is no such folder either. What cannot be read is skipped.

    Raises
    ------
    DataError
        If there is none, or more than one at the same depth.
    """
    if not os.path.isdir(path):
        raise DataError(f"data folder {str(path)!r} does not exist; give a folder, or 'phantom'")
    listed(path)
    own = class_folders(path)
    if own and not _missing(own):
        return path
    if path.resolve().parent == path.resolve():
        raise DataError(f"{str(path)!r} is a whole disk: name the folder of the images")
    seen = [(path, own)]
    for level in _levels_below(path):
        here = [(folder, class_folders(folder)) for folder in level]
        seen += here
        if any("test" in layout and not _missing(layout) for _, layout in here):
            break
    whole = [(folder, layout) for folder, layout in seen if layout and not _missing(layout)]
    if whole:
        rank = min(map(_rank, whole))
        roots = [folder for folder, layout in whole if _rank((folder, layout)) == rank]
        if len(roots) == 1:
            return roots[0]
        names = ", ".join(sorted(folder.name for folder in roots))
        raise DataError(f"{str(path)!r} holds several data folders ({names}): name one")
    for folder, layout in seen:
        if layout:
            lacking = _missing(layout)
            alone = f"; {ALONE}" if all(name.startswith("test") for name in lacking) else ""
            verb = "is" if len(lacking) == 1 else "are"
            raise DataError(f"{str(folder)!r}: {' and '.join(lacking)} {verb} missing{alone}")
    found = ", ".join(entry.name for entry in listed(path)[:8]) or "nothing"
    raise DataError(
        f"no chest X-ray folder at {str(path)!r}: expected train/NORMAL and train/PNEUMONIA, and "
        f"where there are test images test/NORMAL and test/PNEUMONIA, in it or just below it; "
        f"found {found}"
    )


def _levels_below(path: Path) -> Iterator[list[Path]]:
    """Return the folders one level below, then two, that may hold splits or classes.

    Raises
    ------
    DataError
        If there are too many.
    """
    level, count = [path], 0
    for _ in range(2):
        level = [
            folder / name
            for folder in level
            for low, names in _folders(folder).items()
            for name in names
            if low not in SPLITS and low not in FOLDERS and not (folder / name).is_symlink()
        ]
        count += len(level)
        if count > MAXIMUM_FOLDERS:
            raise DataError(
                f"{str(path)!r} holds more than {MAXIMUM_FOLDERS} folders: name that of the images"
            )
        yield level


def _rank(found: tuple[Path, Layout]) -> tuple[int, int]:
    """Return what orders data folders: test and train, train alone, neither; then depth."""
    folder, layout = found
    return ("test" not in layout) + ("" in layout), len(folder.parts)


def class_folders(folder: Path) -> Layout:
    """Return the class folders by split; empty where there is neither split nor class."""
    inside = _folders(folder)
    found: Layout = {split: {} for split in SPLITS if split in inside}
    for split in found:
        for name in inside[split]:
            for kind, names in _folders(folder / name, strict=True).items():
                if kind in FOLDERS:
                    found[split].setdefault(kind, []).extend(f"{name}/{own}" for own in names)
    classes = {kind: names for kind, names in inside.items() if kind in FOLDERS}
    return found or ({"": classes} if classes else {})


def _missing(layout: Layout) -> list[str]:
    """Return the class folders that a layout would need, by their usual names."""
    lacking = []
    for split in [""] if "" in layout else ["train", *(["test"] if "test" in layout else [])]:
        kinds = set(layout.get(split, {}))
        lacking += [f"{split}/NORMAL"] * ("normal" not in kinds)
        lacking += [f"{split}/PNEUMONIA"] * (not kinds - {"normal"})
    return [name.removeprefix("/") for name in lacking]


def _folders(folder: Path, *, strict: bool = False) -> dict[str, list[str]]:
    """Return a folder's folders by their lower-case names; what cannot be read has none."""
    found: dict[str, list[str]] = {}
    try:
        entries = listed(folder)
    except DataError:
        if strict:
            raise
        return found
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        linked = not is_folder and entry.is_symlink() and os.path.isdir(entry.path)
        if (is_folder or linked) and not is_clutter(entry.name):
            found.setdefault(entry.name.lower(), []).append(entry.name)
    return found


def listed(folder: Path) -> list[os.DirEntry]:
    """Return what is in a folder, by name; DataError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{str(folder)!r} cannot be read ({error.strerror}): change its permissions"
        ) from error


def is_clutter(name: str) -> bool:
    """Return whether a file or folder is a system's own, never an image."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini"}

"""The published dataset's layout: class folders in train, val and test.

Kaggle's ``train|val|test/NORMAL|PNEUMONIA``, Mendeley's, which has no ``val``, or ``train`` alone;
``bacterial`` and ``viral`` may stand in place of ``PNEUMONIA``. File names carry the kind of
pneumonia and the patient number (Kermany et al. 2018, doi:10.17632/rscbjbr9sj.2).
"""

from __future__ import annotations

import os
from pathlib import Path

from cxr_helpers.data import folders, image_files
from cxr_helpers.data.scans import Match, Scan

EXPECTED = (
    "train/NORMAL and train/PNEUMONIA, and where there are test images test/NORMAL and "
    "test/PNEUMONIA, in it or just below it"
)


def recognise(path: Path) -> Match | None:
    """Return a match for a folder that holds a split; see ``layouts.Layout``."""
    if not os.path.isdir(path) or not (found := _class_folders(path)):
        return None
    lacking = []
    for split in ("train", *(["test"] if "test" in found else [])):
        classes = set(found.get(split, {}))
        lacking += [f"{split}/NORMAL"] * ("normal" not in classes)
        lacking += [f"{split}/PNEUMONIA"] * (not classes - {"normal"})
    return Match(rank=int("test" not in found), missing=_missing(lacking))


def scan(root: Path) -> Scan:
    """Return the images in the class folders of each split; see ``layouts.Layout``."""
    return image_files.scan(root, _class_folders(root))


def _class_folders(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return the class folders by split and class; folders that differ in case are merged."""
    found: dict[str, dict[str, list[str]]] = {}
    inside = folders.subfolders(root)
    for split in (name for name in folders.SPLITS if name in inside):
        found[split] = {}
        for name in inside[split]:
            for label, paths in folders.class_folders(root, below=name, strict=True).items():
                found[split].setdefault(label, []).extend(paths)
    return found


def _missing(lacking: list[str]) -> str:
    """Return a clause such as ``"train/NORMAL is missing"``; empty where nothing is missing."""
    if not lacking:
        return ""
    clause = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
    without_test = all(name.startswith("test") for name in lacking)
    return clause + f"; {image_files.WITHOUT_TEST}" * without_test

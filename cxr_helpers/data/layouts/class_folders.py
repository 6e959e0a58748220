"""Class folders without train and test above them, such as ``NORMAL`` and ``PNEUMONIA``.

All images are training images; part of them is used as the test split. File names may carry the
kind of pneumonia and the patient number, as those of the published dataset do.
"""

from __future__ import annotations

import os
from pathlib import Path

from cxr_helpers.data import folders, image_files
from cxr_helpers.data.scans import Match, Scan

EXPECTED = "NORMAL and PNEUMONIA without train and test"


def recognise(path: Path) -> Match | None:
    """Return a match for a folder that holds class folders and no split; see ``layouts.Layout``."""
    if not os.path.isdir(path) or not (classes := set(folders.class_folders(path))):
        return None
    if not folders.subfolders(path).keys().isdisjoint(folders.SPLITS):
        return None
    lacking = ["NORMAL"] * ("normal" not in classes)
    lacking += ["PNEUMONIA"] * (not classes - {"normal"})
    missing = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
    return Match(rank=2, missing=missing if lacking else "")


def scan(root: Path) -> Scan:
    """Return the images in the class folders, all of them in train; see ``layouts.Layout``."""
    return image_files.scan(root, {"train": folders.class_folders(root)})

"""NIH ChestX-ray14: a folder of PNG files and a table of their findings.

Wang et al. (2017), ChestX-ray8, CVPR, doi:10.1109/CVPR.2017.369: 112,120 frontal radiographs of 30,805
adults. An image is of pneumonia where its findings include ``Pneumonia``, normal where they are
``No Finding``; all others are left out. The findings were extracted from reports by text mining, and
whether a pneumonia is bacterial or viral is not known. Unlike in the published dataset, a number is
a patient: images of one patient form one group, whatever their classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cxr_helpers.data import folders, image_files
from cxr_helpers.data.class_names import UNKNOWN
from cxr_helpers.data.scans import Match, Scan
from cxr_helpers.system.errors import DataError
from cxr_helpers.system.files import as_utf8

EXPECTED = (
    "the PNG files of NIH ChestX-ray14, or its images_001 to images_012, and Data_Entry_2017.csv"
)
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")  # the newer one is read
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
IMAGE, FINDINGS, PATIENT = "Image Index", "Finding Labels", "Patient ID"
NORMAL, PNEUMONIA = "No Finding", "Pneumonia"
# Images of either class that are missing: this share of them, or this number where that is larger
MAXIMUM_MISSING, ALWAYS_ALLOWED = 0.01, 5


def recognise(path: Path) -> Match | None:
    """Return a match for a folder that holds the table; see ``layouts.Layout``."""
    if _table_of(path) is None:
        return None
    return Match(rank=int(not any(os.path.isfile(path / name) for name in LISTS.values())))


def scan(root: Path) -> Scan:
    """Return the images of normal and of pneumonia that the table names; see ``layouts.Layout``.

    Without the lists of NIH's split, all images are training images; with them, an image that is in
    neither list is left out.

    Raises
    ------
    DataError
        If the table or a list cannot be used, or more than five images and more than 1 % of those
        of the two classes are missing from the folder.
    """
    table = _table_of(root)
    rows = _read(table)
    found, ignored = _files_below(root)
    split = _splits(root, rows.index)
    classes = _classes(rows[FINDINGS], table)
    missing = ~rows.index.isin(found)
    _check_missing(rows.index[missing & classes.notna()], int(classes.notna().sum()), table)
    reasons = pd.Series(pd.NA, rows.index, dtype=object)
    reasons[split.isna()] = f"in neither {LISTS['train']} nor {LISTS['test']}"
    reasons[classes.isna()] = f"finding is neither {NORMAL} nor {PNEUMONIA}"
    reasons[missing] = f"named in {table.name}, but not in the folder"
    used = rows[reasons.isna()]
    patient, name = used[PATIENT].fillna("").str.replace("/", "-"), classes[used.index]
    own_group = name + " " + split[used.index] + "/" + used.index
    files = pd.DataFrame(
        {
            "file": used.index.map(found),
            "folder": split[used.index],
            "class_name": name,
            "group": ("patient " + patient).where(patient != "", own_group),
        }
    )
    strays = [(found[name], f"not in {table.name}") for name in found.keys() - set(rows.index)]
    ignored += strays + list(reasons[missing].items())
    # the few strange files before the many with another finding: a report shows the first ones
    others = [(found[name], reason) for name, reason in reasons[~missing].dropna().items()]
    return Scan(
        root,
        files.sort_values("file", ignore_index=True),
        pd.DataFrame(sorted(ignored) + sorted(others), columns=["file", "reason"]),
    )


def _table_of(path: Path) -> Path | None:
    """Return the path of the table in a folder; None where it has none."""
    return next((path / name for name in TABLES if os.path.isfile(path / name)), None)


def _read(table: Path) -> pd.DataFrame:
    """Return findings and patient of each image, indexed by its file name."""
    columns = [IMAGE, FINDINGS, PATIENT]
    try:
        rows = pd.read_csv(table, dtype=str, usecols=lambda name: name in columns)
    except OSError as error:
        raise DataError(f"{table.name} cannot be read ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, not a table, or empty
        first = str(error).strip().split("\n")[0]
        raise DataError(f"{table.name} is not a table ({first}): download it again") from error
    if lacking := [name for name in columns if name not in rows]:
        raise DataError(
            f"{table.name} lacks the column {' and '.join(map(repr, lacking))}: take NIH's own file, "
            "unchanged"
        )
    rows = rows.dropna(subset=IMAGE)
    twice = rows[IMAGE][rows[IMAGE].duplicated()]
    if len(twice):
        raise DataError(f"{table.name} lists {twice.iloc[0]!r} twice: remove one of the lines")
    return rows.set_index(IMAGE)


def _classes(findings: pd.Series, table: Path) -> pd.Series:
    """Return each image's class, missing where it is neither normal nor pneumonia."""
    labels = findings.fillna("").str.split("|")
    classes = pd.Series(pd.NA, findings.index, dtype=object)
    classes[findings.fillna("").str.strip() == NORMAL] = "normal"
    classes[labels.map(lambda names: PNEUMONIA in (name.strip() for name in names))] = UNKNOWN
    if classes.isna().all():
        raise DataError(
            f"{table.name} has no image whose {FINDINGS!r} are {NORMAL!r} or include {PNEUMONIA!r}"
        )
    return classes


def _splits(root: Path, names: pd.Index) -> pd.Series:
    """Return each image's folder, train or test; missing where lists exist and none has it."""
    present = [name for name in LISTS.values() if os.path.isfile(root / name)]
    if not present:
        return pd.Series("train", names)
    if len(present) == 1:
        (lacking,) = set(LISTS.values()) - set(present)
        raise DataError(
            f"{root.name} has {present[0]} without {lacking}: add {lacking}, or remove "
            f"{present[0]} to split the images by patient"
        )
    listed = {split: _listed(root / name) for split, name in LISTS.items()}
    if both := listed["train"] & listed["test"]:
        raise DataError(f"{root.name}: {min(both)!r} is in both {' and '.join(LISTS.values())}")
    split = pd.Series(pd.NA, names, dtype=object)
    for name, members in listed.items():
        split[names.isin(members)] = name
    return split


def _listed(path: Path) -> set[str]:
    """Return the names in a list, one on each line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read as text: download it again") from error
    return {line.strip() for line in lines} - {""}


def _files_below(root: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the paths of the images by file name, and the files that are ignored.

    Images are beside the table, in ``images``, or in ``images_001/images`` and so on.
    """
    found: dict[str, str] = {}
    ignored: list[tuple[str, str]] = []
    for place in _places(root):
        for entry in folders.entries(root / place):
            reason = image_files.unfit(entry)
            if reason is None and entry.name in found:
                reason = f"second file with this name, after {found[entry.name]}"
            if reason is None:
                found[entry.name] = f"{place}/{entry.name}" if place else entry.name
            elif place and not entry.is_dir():
                file = f"{place}/{entry.name}"
                ignored.append((as_utf8(file), reason))
    return found, ignored


def _places(root: Path) -> Iterable[str]:
    """Yield the folders that may hold images, as paths below the root; the root itself is empty."""
    yield ""
    for lower, names in sorted(folders.subfolders(root, strict=True).items()):
        for name in names if lower.startswith("images") else []:
            yield name
            yield from (
                f"{name}/{sub}" for sub in folders.subfolders(root / name).get("images", [])
            )


def _check_missing(missing: pd.Index, n: int, table: Path) -> None:
    """Raise DataError if too many images of normal and pneumonia are not in the folder."""
    if len(missing) > max(ALWAYS_ALLOWED, MAXIMUM_MISSING * n) or len(missing) == n:
        raise DataError(
            f"{len(missing):,} of the {n:,} images of {NORMAL} or {PNEUMONIA} in {table.name} are "
            f"missing, first {missing.min()}: unpack the other archives beside it, or, to use only "
            "some images, delete the lines of the missing ones from the table"
        )

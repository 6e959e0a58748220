"""What a layout reports of a dataset: which images it holds, and where their pixels are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.data.class_names import CLASSES, UNKNOWN
from cxr_helpers.system import digests
from cxr_helpers.system.errors import DataError

FOLDERS = ("train", "val", "test")
COLUMNS = ("file", "folder", "class_name", "group")
MINIMUM_PER_CLASS = 2  # images of normal and of pneumonia, in train with val and in test


@dataclass(frozen=True)
class Match:
    """How well a folder or file fits a layout.

    Attributes
    ----------
    rank : int
        0 for training and test images, 1 for training images alone, 2 for images without splits:
        among several datasets below a folder, the lowest rank is taken, then the shallowest.
    missing : str
        What an incomplete dataset lacks, such as ``"train/NORMAL is missing"``; empty for a
        complete one.
    """

    rank: int = 0
    missing: str = ""


@dataclass(frozen=True)
class Scan:
    """The images of a dataset, none of them decoded.

    Attributes
    ----------
    root : Path
        The folder, or the file, of the dataset.
    files : pandas.DataFrame
        One row per image: ``file`` (a unique name; for an image file its path below ``root``,
        with ``/``), ``folder`` (one of ``FOLDERS``), ``class_name`` (one of ``class_names.CLASSES``, or
        ``class_names.UNKNOWN`` for pneumonia of unknown kind) and ``group`` (the images of a
        group stay in one split). A group is named after class and patient, such as ``"viral 12"``,
        or, where a number is a patient whatever the class, ``"patient 12"``; an image without
        patient number forms a group whose name holds a ``/``, such as ``"viral train/a.png"``.
    ignored : pandas.DataFrame
        Files that are not images of the dataset: ``file``, ``reason``.
    pixels : mapping of str to ndarray of uint8, shape (height, width), optional
        For images that are not files of their own: grey levels 0 to 255 by ``file``.
    """

    root: Path
    files: pd.DataFrame
    ignored: pd.DataFrame
    pixels: Mapping[str, np.ndarray] | None = None

    def image(self, file: str) -> Path | np.ndarray:
        """Return what ``decoding.decode`` reads: the path of an image, or its grey levels."""
        return self.root / file if self.pixels is None else self.pixels[file]

    def sha256(self, file: str) -> str:
        """Return the SHA-256 of an image file, or of the shape and values of an array.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        if self.pixels is None:
            return digests.sha256_of_file(self.root / file)
        values = np.ascontiguousarray(self.pixels[file])
        digest = hashlib.sha256(f"{values.shape} {values.dtype}\n".encode())
        digest.update(values)
        return digest.hexdigest()


def check(scan: Scan) -> Scan:
    """Return a scan that every later module can work with.

    Raises
    ------
    ValueError
        If a column is missing, an unknown folder or class occurs, or a file occurs twice: a
        mistake in the layout.
    DataError
        If train or test has fewer than two images of normal or of pneumonia.
    """
    files = scan.files
    if lacking := [name for name in COLUMNS if name not in files]:
        raise ValueError(f"a scan lacks {', '.join(lacking)}; expected {', '.join(COLUMNS)}")
    for column, known in (("folder", FOLDERS), ("class_name", (*CLASSES, UNKNOWN))):
        if strange := sorted(set(files[column]) - set(known)):
            raise ValueError(f"a scan has {column} {strange}; expected {', '.join(known)}")
    if not files["file"].is_unique:
        twice = files.loc[files["file"].duplicated(), "file"].iloc[0]
        raise ValueError(f"a scan lists {twice!r} twice; expected unique names")
    split = files["folder"].replace("val", "train")
    for part in ("train", *(["test"] if (split == "test").any() else [])):
        normal = files.loc[split == part, "class_name"] == "normal"
        for name, count in (("normal", normal.sum()), ("pneumonia", (~normal).sum())):
            if count < MINIMUM_PER_CLASS:
                raise DataError(
                    f"{scan.root.name}: {part} has {count} images of {name}; "
                    f"at least {MINIMUM_PER_CLASS} are needed"
                )
    return scan

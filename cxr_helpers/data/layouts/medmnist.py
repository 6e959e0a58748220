"""PneumoniaMNIST: one ``.npz`` file with the arrays of images and labels of three splits.

Yang et al. (2023), MedMNIST v2, Scientific Data 10:41, doi:10.1038/s41597-022-01721-8. The images
are those of the published dataset, cropped and resized to 28, 64, 128 or 224 pixels; neither
patient numbers nor the kind of pneumonia are included. Its ``val`` joins ``train``, as Kaggle's does.
"""

from __future__ import annotations

import math
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.data import scans
from cxr_helpers.data.class_names import UNKNOWN
from cxr_helpers.data.scans import Match, Scan
from cxr_helpers.system import array_files
from cxr_helpers.system.errors import DataError

EXPECTED = "a MedMNIST .npz file"
CLASSES = ("normal", UNKNOWN)  # by label; 1 is pneumonia of unknown kind
MAXIMUM_BYTES = 4 * 2**30  # of an array; PneumoniaMNIST's largest has 0.24 GB


def recognise(path: Path) -> Match | None:
    """Return a match for a file named ``.npz`` or holding its arrays; see ``layouts.Layout``."""
    if not os.path.isfile(path):
        return None
    if path.suffix.lower() == ".npz":
        return Match()
    try:
        with zipfile.ZipFile(path) as archive:
            return Match() if "train_images.npy" in archive.namelist() else None
    except (OSError, zipfile.BadZipFile):
        return None


def scan(root: Path) -> Scan:
    """Return the rows of the three splits; see ``layouts.Layout``.

    Only labels are read here, and the headers of the images.

    Raises
    ------
    DataError
        If an array is missing, damaged, or not of the expected type and shape; the message names
        file and key.
    """
    shapes, files = {}, []
    for split in scans.FOLDERS:
        shapes[split] = _image_shape(root, f"{split}_images")
        labels = _labels(root, f"{split}_labels", n=shapes[split][0])
        for row, label in enumerate(labels):
            file, name = f"{split}/{row:05d}", CLASSES[label]
            files.append((file, split, name, f"{name} {file}"))
    if len({shape[1:3] for shape in shapes.values()}) > 1:
        sizes = ", ".join(f"{split}_images {shape}" for split, shape in shapes.items())
        raise DataError(f"{root.name}: images differ in size: {sizes}")
    return Scan(
        root,
        pd.DataFrame(files, columns=[*scans.COLUMNS]),
        pd.DataFrame(columns=["file", "reason"]),
        pixels=_Pixels(root, [file for file, *_ in files]),
    )


class _Pixels(Mapping):
    """Grey levels of each image by its name, ``split/row``; a split's array is read when needed."""

    def __init__(self, root: Path, files: list[str]) -> None:
        self._root, self._files = root, files
        self._arrays: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def __getitem__(self, file: str) -> np.ndarray:
        split, row = file.split("/")
        with self._lock:  # images are decoded in threads
            if split not in self._arrays:
                images = _array(self._root, f"{split}_images")
                self._arrays[split] = images.reshape(images.shape[:3])
        return self._arrays[split][int(row)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _image_shape(path: Path, key: str) -> tuple[int, ...]:
    """Return the shape of an array of square grey images, from its header."""
    shape, dtype = _header(path, key)
    square = len(shape) in (3, 4) and shape[1] == shape[2] > 0 and shape[3:] in ((), (1,))
    if not square or dtype != np.uint8:
        raise DataError(
            f"{path.name}: {key} is {dtype} of shape {shape}; expected uint8 of shape "
            "(n, size, size) or (n, size, size, 1)"
        )
    return shape


def _labels(path: Path, key: str, *, n: int) -> np.ndarray:
    """Return the labels of a split: ndarray of int, shape (n,), 0 or 1."""
    shape, dtype = _header(path, key)
    if shape not in ((n, 1), (n,)) or dtype.kind not in "iub":
        raise DataError(
            f"{path.name}: {key} is {dtype} of shape {shape}; expected integers of shape ({n}, 1)"
        )
    labels = _array(path, key).reshape(n).astype(int)
    if strange := sorted(set(labels.tolist()) - {0, 1}):
        raise DataError(
            f"{path.name}: {key} holds {strange[0]}; expected 0 (normal) and 1 (pneumonia)"
        )
    return labels


def _header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array that is not read; refuse one too large for the memory."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
    except KeyError:
        raise DataError(f"{path.name}: {key} is missing; expected {_keys()}") from None
    except array_files.DAMAGED as error:
        raise DataError(f"{path.name}: {key} cannot be read: {_first_line(error)}") from error
    if (size := math.prod(shape) * dtype.itemsize) > MAXIMUM_BYTES:
        raise DataError(f"{path.name}: {key} would take {size:,} bytes of memory; not read")
    return shape, dtype


def _array(path: Path, key: str) -> np.ndarray:
    """Return an array of the file; objects, which could run code, are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]
    except array_files.DAMAGED as error:
        raise DataError(f"{path.name}: {key} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _keys() -> str:
    return ", ".join(f"{split}_{kind}" for split in scans.FOLDERS for kind in ("images", "labels"))

"""The data as later stages read them: images by split, with their labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from cxr_helpers.data import decoding, splits
from cxr_helpers.data.class_names import CLASSES, NAMES
from cxr_helpers.data.labels import Evaluation
from cxr_helpers.system import array_files, files, portable
from cxr_helpers.system.errors import DataError

# validation: groups drawn at random; contiguous: contiguous blocks of patient numbers
SPLITS = ("train", "validation", "contiguous", "test")
VALIDATION = {"validation": "random groups", "contiguous": "contiguous blocks"}  # in captions


class Stage(Protocol):
    """What writes and reads artifacts, such as ``cxr_helpers.pipeline.stages.Stage``."""

    folder: Path

    def save(self, name: str, write: Callable, *args, **kwargs) -> None:
        """Write an artifact as ``write(path, *args, **kwargs)``."""

    def input(self, stage: str, name: str) -> Path:
        """Return the path of an earlier stage's artifact."""


def positions(class_names: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    """Return each class name's position in ``classes``.

    Returns
    -------
    ndarray of int, shape (n,)
        -1 for an unknown subtype among three classes.
    """
    known = {name: position for position, name in enumerate(classes)}
    return class_names.map(known).fillna(-1).to_numpy(dtype=int)


@dataclass(frozen=True)
class _Images:
    """Images with one index row each; labels of test images are readable in evaluation only."""

    images: np.ndarray
    _rows: pd.DataFrame
    classes: tuple[str, ...] = field(default=CLASSES, kw_only=True)
    _detail: np.ndarray | None = field(default=None, kw_only=True)
    _taken: np.ndarray | None = field(default=None, kw_only=True)  # rows of _detail; None for all
    _evaluation: Evaluation = field(default_factory=Evaluation, kw_only=True)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def detail(self) -> np.ndarray:
        """The images at the largest size there is: ndarray of uint8, shape (n, larger, larger)."""
        if self._detail is None:
            return self.images
        return self._detail if self._taken is None else self._detail[self._taken]

    def at(self, size: int) -> np.ndarray:
        """Return the images at another size: ndarray of uint8, shape (n, size, size)."""
        if self.images.shape[1] == size:
            return self.images
        return decoding.resize(self.detail, size)

    @property
    def index(self) -> pd.DataFrame:
        """One row per image, see ``Part``; no labels of test images unless evaluation is declared."""
        return self._evaluation.visible(self._rows)

    @property
    def pneumonia(self) -> np.ndarray:
        """1 for pneumonia, 0 for normal: ndarray of int, shape (n,)."""
        return (self.index["class_name"] != "normal").to_numpy(dtype=int)

    @property
    def category(self) -> np.ndarray:
        """Position in ``classes``, -1 for an unknown subtype: ndarray of int, shape (n,)."""
        return positions(self.index["class_name"], self.classes)


@dataclass(frozen=True)
class Part(_Images):
    """The images of one split.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, size, size)
        A view on the memory-mapped file: read-only.
    index : pandas.DataFrame
        One row per image: ``file``, ``split``, ``class_name``, ``group``, ``cluster`` (groups
        that share a duplicate, see ``splits.clusters``), ``width`` and ``height`` (in pixels, as
        stored), ``mode`` (Pillow's), ``border_<class>`` for each of ``classes`` (probabilities
        predicted from the border alone, 0 to 1) and, for phantoms, the box of the marker. Where
        test images are among the rows, class, group and file can be read in evaluation only.
    """

    def where(self, mask: np.ndarray) -> Part:
        """Return a copy of the images where ``mask``, of shape (n,), is True; all: no copy."""
        mask = np.asarray(mask, dtype=bool)
        if mask.all():
            return self
        taken = np.flatnonzero(mask) if self._taken is None else self._taken[mask]
        return Part(
            self.images[mask],
            self._rows[mask].reset_index(drop=True),
            classes=self.classes,
            _detail=self._detail,  # copied where it is read: most readers need the images only
            _taken=taken,
            _evaluation=self._evaluation,
        )


@dataclass(frozen=True)
class Dataset(_Images):
    """All images of a run, sorted by split; test images are in random order.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, size, size), memory-mapped
    index : pandas.DataFrame
        As in ``Part``.
    facts : dict
        ``name``, ``synthetic``, ``image_size``, ``fingerprint``, ``choose_by`` (group or contiguous),
        ``classes``, ``two_class_reason`` (see ``three_classes``), ``without_patient`` (images).
    classes : tuple of str
        The classes that the networks of chapters 1 and 3 distinguish: ``CLASSES``, or
        ``BINARY_CLASSES``.
    """

    facts: dict

    def evaluation(self) -> Evaluation:
        """Declare that this notebook cell reads the labels of test images.

        In a program it is a context: ``with radiographs.evaluation():``. Anywhere else,
        ``labels.LabelsWithheld`` is raised by access to columns that reveal the class of a test
        image.
        """
        return self._evaluation.declare()

    def __getitem__(self, split: str) -> Part:
        """Return the images of a split, one of ``SPLITS``."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
        return self._part([split])

    def _part(self, names: Sequence[str]) -> Part:
        """Return the images of neighbouring splits."""
        rows = np.flatnonzero(self._rows["split"].isin(names))
        low, high = (rows[0], rows[-1] + 1) if len(rows) else (0, 0)
        return Part(
            self.images[low:high],
            self._rows.iloc[low:high].reset_index(drop=True),
            classes=self.classes,
            _detail=None if self._detail is None else self._detail[low:high],
            _evaluation=self._evaluation,
        )

    @property
    def trainable(self) -> Part:
        """All images but those of test: what a network whose recipe is fixed may be trained on."""
        return self._part(SPLITS[:-1])

    @property
    def selection(self) -> Part:
        """The validation split that weights are selected on; empty where there is none."""
        return self[splits.SELECTION[self.facts.get("choose_by", "group")]]

    @property
    def three_classes(self) -> bool:
        """Whether three classes are scored; if not, ``facts["two_class_reason"]`` is the reason."""
        return not self.facts.get("two_class_reason")

    @property
    def resampled(self) -> str:
        """What the bootstrap resamples, for captions."""
        single = ", or single images without patient number,"
        part = single if self.facts.get("without_patient") else ""
        return f"whole patient groups{part} drawn within each class"

    def scored(self) -> list[str]:
        """Return the splits that are scored: each validation split that has images, then test."""
        return [name for name in SPLITS[1:] if len(self[name])]

    @property
    def validation_splits(self) -> str:
        """The validation splits that are scored, for captions; empty where there is none."""
        return ", ".join(VALIDATION[name] for name in self.scored() if name in VALIDATION)

    def development(self, *, seed: int) -> tuple[Part, Part]:
        """Return a training and a validation part, for selecting anything but the weights.

        Where the run has no validation split, 15 % of train is held out, in whole clusters.
        """
        train, selection = self["train"], self.selection
        if len(selection):
            return train, selection
        held = splits.validation_mask(
            train.index["cluster"], train.index["class_name"], fraction=0.15, seed=seed
        )
        return train.where(~held), train.where(held)

    @property
    def synthetic(self) -> bool:
        """Whether the images are phantoms."""
        return self.facts["synthetic"]


def save(
    stage: Stage,
    images: np.ndarray,
    index: pd.DataFrame,
    facts: dict,
    *,
    truth: Mapping[str, np.ndarray] | None = None,
    detail: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> Dataset:
    """Write the data for the later stages: ``images.npy``, ``index.csv``, ``dataset.json``.

    Parameters
    ----------
    stage : Stage
        ``01_data``.
    images : ndarray of uint8, shape (n, size, size)
        In any order; may be memory-mapped.
    index : pandas.DataFrame
        One row per image that is written, with the columns ``file``, ``split``, ``class_name``, ``group``.
    facts : dict
        ``name``, ``synthetic``, ``fingerprint``.
    truth : mapping of name to ndarray, shape (n, ...), optional
        Ground truth of phantoms, such as lesion masks; written as ``<name>.npy`` in the order of
        the images.
    detail : ndarray of uint8, shape (n, larger, larger), optional
        The images at a larger size, to take crops of; written as ``detail.npy``.
    rows : ndarray of int, optional
        Positions in ``images``, ``truth`` and ``detail`` of the images that are written, in the
        order of ``index``; by default all.

    Returns
    -------
    Dataset
        What ``load`` returns in a later stage.

    Raises
    ------
    ValueError
        If rows and images differ in number, or a split or class is unknown.
    DataError
        If no image is in test.
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    if len(rows) != len(index):
        raise ValueError(f"{len(rows)} images but {len(index)} rows in the index")
    for column, known in (("split", SPLITS), ("class_name", NAMES)):
        if strange := set(index[column]) - set(known):
            raise ValueError(f"unknown {column} {sorted(strange)}; expected {', '.join(known)}")
    if not (index["split"] == "test").any():
        raise DataError("no test image is left: the models were trained on all of these images")
    order = np.argsort(index["split"].map(SPLITS.index), kind="stable")
    test = (index["split"].iloc[order] == "test").to_numpy()
    # folders are sorted by class: position must not reveal it
    order[test] = np.random.default_rng(0).permutation(order[test])
    larger = {} if detail is None else {"detail": detail}
    for name, array in ({"images": images} | larger | dict(truth or {})).items():
        stage.save(f"{name}.npy", array_files.save_rows, array, rows[order])
    stage.save("index.csv", index.iloc[order].to_csv, index=False)
    sizes = {"image_size": int(images.shape[1])}
    sizes["detail_size"] = 0 if detail is None else int(detail.shape[1])
    stage.save("dataset.json", files.write_json, facts | sizes)
    return read(stage.folder)


def load(stage: Stage) -> Dataset:
    """Return the images that ``01_data`` wrote, memory-mapped."""
    return read(stage.input("01_data", "images.npy").parent)


def read(folder: Path) -> Dataset:
    """Return the images that ``01_data`` wrote into a folder, memory-mapped except on Windows."""
    facts = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    index = pd.read_csv(folder / "index.csv", keep_default_na=False)
    classes = tuple(facts.get("classes", CLASSES))
    larger = folder / "detail.npy"
    return Dataset(
        portable.load_array(folder / "images.npy"),
        index,
        facts,
        classes=classes,
        _detail=portable.load_array(larger) if facts.get("detail_size") else None,
    )


def counts(index: pd.DataFrame) -> pd.DataFrame:
    """Count images by split (rows, with their sum) and class (columns, with their sum)."""
    classes = [name for name in NAMES if (index["class_name"] == name).any()]
    splits = [name for name in SPLITS if (index["split"] == name).any()]
    table = pd.crosstab(index["split"], index["class_name"]).reindex(
        index=splits, columns=classes, fill_value=0
    )
    table["all"] = table.sum(axis=1)
    table.loc["all"] = table.sum()
    return table.rename_axis("split").rename_axis(None, axis=1).reset_index()

"""The classes of a run, and what follows where subtype or patient is unknown."""

from __future__ import annotations

import pandas as pd

CLASSES = ("normal", "bacterial", "viral")
UNKNOWN = "unknown subtype"
BINARY_CLASSES = ("normal", "pneumonia")
NAMES = (*CLASSES, BINARY_CLASSES[1], UNKNOWN)  # every class name that a run may show
MINIMUM_GROUPS = 3  # of a class in train: fewer cannot be cross-fitted and validated


def distinguishable(index: pd.DataFrame) -> tuple[tuple[str, ...], str]:
    """Return the classes that can be distinguished, and the reason where they are not three.

    Parameters
    ----------
    index : pandas.DataFrame
        One row per image: ``split`` (all but test are training images), ``class_name``, ``group``.

    Returns
    -------
    names : tuple of str
        ``CLASSES``; ``BINARY_CLASSES`` where the kind of most pneumonia in train is unknown, or a
        kind is missing from train or test.
    reason : str
        A clause, without capital and full stop; empty for three classes.
    """
    reason = _why_two(index)
    return (BINARY_CLASSES if reason else CLASSES), reason


def _why_two(index: pd.DataFrame) -> str:
    test = index["split"] == "test"
    train = index[~test]
    pneumonia = train.loc[train["class_name"] != "normal", "class_name"]
    if len(pneumonia) and (pneumonia == UNKNOWN).mean() > 0.5:
        return "for most images it is not known whether a pneumonia is bacterial or viral"
    groups = train.groupby("class_name")["group"].nunique()
    for kind in CLASSES[1:]:
        if groups.get(kind, 0) < MINIMUM_GROUPS:
            few = "too few" if kind in groups else "no"
            return f"there are {few} {kind} training images"
    lacking = [kind for kind in CLASSES[1:] if not (index.loc[test, "class_name"] == kind).any()]
    if lacking and test.any():
        return f"no image in test is known to be {' or '.join(lacking)}"
    return ""


def relabelled(index: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return an index whose ``class_name`` is one of the classes that a run distinguishes.

    Parameters
    ----------
    index : pandas.DataFrame
        With the columns ``class_name`` and ``group``. The name of a group begins with its class;
        groups of unknown kind are renamed to pneumonia as well, and stay distinct.
    classes : tuple of str
        From ``distinguishable``.
    """
    if classes != BINARY_CLASSES:
        return index
    normal, pneumonia = BINARY_CLASSES
    return index.assign(
        class_name=index["class_name"].where(index["class_name"] == normal, pneumonia),
        group=index["group"].str.replace(f"^{UNKNOWN} ", f"{pneumonia} ", regex=True),
    )


def count_without_patient(index: pd.DataFrame) -> int:
    """Return the number of images without patient number, each of which is its own group."""
    return int(_without_patient(index).sum())


def _without_patient(index: pd.DataFrame) -> pd.Series:
    """Return True for each image without patient number: the name of its group holds a ``/``."""
    return index["group"].str.contains("/", regex=False)


def describe_groups(index: pd.DataFrame) -> str:
    """Return a few sentences on the patient groups of an index with the column ``group``."""
    sizes = index.loc[~_without_patient(index), "group"].value_counts()
    rest = len(index) - sizes.sum()
    sentences = []
    if len(sizes):
        counted = f"There are {len(sizes)} patient groups of at most {sizes.max()} images."
        by_class = sizes.index.str.startswith(NAMES).any()
        meaning = (
            "A group is a class and a number: the number alone does not identify a patient, because "
            "bacterial and viral images are numbered separately."
            if by_class
            else "A group is a patient, whose images may be of both classes."
        )
        sentences.append(f"{counted} {meaning}")
    if rest:
        which = f"The other {rest}" if len(sizes) else f"All {rest}"
        sentences.append(
            f"{which} images have no patient number; each forms its own patient group."
        )
    return " ".join(sentences)


def notes(index: pd.DataFrame, reason: str) -> list[str]:
    """Return what a reader must know about classes and patients, as sentences.

    Parameters
    ----------
    index : pandas.DataFrame
        With the column ``group``.
    reason : str
        From ``distinguishable``.
    """
    sentences = []
    if reason:
        sentences.append(f"Three classes are not distinguished on this dataset: {reason}.")
    if count := count_without_patient(index):
        sentences.append(
            f"{count:,} of {len(index):,} images have no patient number: they are split and resampled "
            "one by one, which is optimistic where a patient has several images."
        )
    return sentences

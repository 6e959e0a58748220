"""What the names of images tell: the kind of pneumonia, the patient; and what follows if not."""

from __future__ import annotations

import pandas as pd

CLASSES = ("normal", "bacterial", "viral")
UNKNOWN = "unknown subtype"


BINARY_CLASSES = ("normal", "pneumonia")
NAMES = (*CLASSES, BINARY_CLASSES[1], UNKNOWN)  # all class names that a run may have, as shown
MINIMUM_GROUPS = 3  # of a kind, to learn from: fewer cannot be cross-fitted and validated


def distinguishable(index: pd.DataFrame) -> tuple[tuple[str, ...], str]:
    """Return the classes that can be told apart, and why they are not three.

    Parameters
    ----------
    index : pandas.DataFrame
        A row an image: ``split``, where all but test is for learning, ``class_name``, ``group``.

    Returns
    -------
    names : tuple of str
        ``CLASSES``; ``BINARY_CLASSES`` where the kind of most pneumonia to learn from is unknown, or
        a kind is missing there or in test.
    reason : str
        The second half of a sentence; empty for three classes.
    """
    reason = _why_two(index)
    return (BINARY_CLASSES if reason else CLASSES), reason


def _why_two(index: pd.DataFrame) -> str:
    test = index["split"] == "test"
    train = index[~test]
    ill = train.loc[train["class_name"] != "normal", "class_name"]
    if len(ill) and (ill == UNKNOWN).mean() > 0.5:
        return "most images' names do not say whether a pneumonia is bacterial or viral"
    groups = train.groupby("class_name")["group"].nunique()
    for kind in CLASSES[1:]:
        if groups.get(kind, 0) < MINIMUM_GROUPS:
            few = "hardly any" if kind in groups else "no"
            return f"there are {few} {kind} images to learn from"
    lacking = [kind for kind in CLASSES[1:] if not (index.loc[test, "class_name"] == kind).any()]
    if lacking and test.any():
        return f"no image in test is known to be {' or '.join(lacking)}"
    return ""


def relabelled(index: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return an index whose ``class_name`` is what a run tells apart: pneumonia is one of two.

    Parameters
    ----------
    index : pandas.DataFrame
        With the columns ``class_name`` and ``group``. A group opens with its class; that of an
        unknown kind is called pneumonia too, and stays as unique as it was.
    classes : tuple of str
        From ``classes``.
    """
    if classes != BINARY_CLASSES:
        return index
    normal, pneumonia = BINARY_CLASSES
    return index.assign(
        class_name=index["class_name"].where(index["class_name"] == normal, pneumonia),
        group=index["group"].str.replace(f"^{UNKNOWN} ", f"{pneumonia} ", regex=True),
    )


def count_without_patient(index: pd.DataFrame) -> int:
    """Return how many images have no patient number, so that each is a group of its own."""
    return int(_alone(index).sum())


def _alone(index: pd.DataFrame) -> pd.Series:
    """Return which images are a group of their own because nothing in their name is a patient."""
    return index["group"].str.contains("/", regex=False)


def describe_groups(index: pd.DataFrame) -> str:
    """Return what a patient group is, for images with the column ``group``, in a few sentences."""
    sizes = index.loc[~_alone(index), "group"].value_counts()
    alone = len(index) - sizes.sum()
    found = []
    if len(sizes):
        found.append(
            f"There are {len(sizes)} patient groups of at most {sizes.max()} images. A group is a "
            "class and a number: the number alone is no patient, because bacterial and viral images "
            "count apart."
        )
    if alone:
        which = f"The other {alone}" if len(sizes) else f"All {alone}"
        found.append(
            f"{which} images have no patient number in their names; each is a patient group of its own."
        )
    return " ".join(found)


def notes(index: pd.DataFrame, reason: str) -> list[str]:
    """Return what a reader must know of the images' names, a sentence each.

    Parameters
    ----------
    index : pandas.DataFrame
        With the column ``group``.
    reason : str
        From ``classes``.
    """
    found = []
    if reason:
        found.append(f"Three classes are not told apart on this data set: {reason}.")
    if count := count_without_patient(index):
        found.append(
            f"The names of {count:,} of {len(index):,} images carry no patient number: splits and "
            "intervals are by image there, and too good where a patient has several images."
        )
    return found

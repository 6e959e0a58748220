"""The published dataset: its counts and fingerprints, and a comparison of other images with it.

Kermany, Zhang, Goldbaum (2018), Mendeley Data V2, doi:10.17632/rscbjbr9sj.2, CC BY 4.0.
"""

from __future__ import annotations

import pandas as pd

from cxr_helpers.data import decoding
from cxr_helpers.data.class_names import BINARY_CLASSES, UNKNOWN, relabelled

# Images by Kaggle's folders; 5,856 in all. Mendeley's train holds Kaggle's train and val.
COUNTS = {
    "train": {"normal": 1341, "bacterial": 2530, "viral": 1345},
    "val": {"normal": 8, "bacterial": 8, "viral": 0},
    "test": {"normal": 234, "bacterial": 242, "viral": 148},
}
# `decoding.fingerprint` of the files of each folder.
FINGERPRINTS = {
    "train": "9195134a32f042f2c740349f3c314b08200a847aba296047a7216a5d10364025",
    "val": "047783bb4bf3f6e7ac6f4176e631de6095f69d499718d8ccacecc68aafc818d7",
    "test": "93224c23f236a3573c6f16441f992c242aac1f185320463d84931104849bfbd9",
}
MENDELEY_TRAIN = "31dc50832d506eb756dcb11985cf2337ab409edb84277ea38f413dec255fe800"


def counts(folder: str, *, kinds: bool) -> dict[str, int]:
    """Return the number of images of each class in a published folder.

    ``kinds`` decides whether pneumonia is divided into bacterial and viral.
    """
    row = COUNTS[folder]
    pneumonia = sum(row.values()) - row["normal"]
    return row if kinds else {"normal": row["normal"], "pneumonia": pneumonia}


def has_training_counts(class_names: pd.Series) -> bool:
    """Return whether each class has as many images as in the published training folder.

    Images of all folders count: these seem to be that folder, divided anew.
    """
    found = class_names.value_counts()
    return found.to_dict() == counts("train", kinds="pneumonia" not in found)


def compare(files: pd.DataFrame) -> pd.DataFrame:
    """Compare the counts of a dataset with those of the published one.

    Parameters
    ----------
    files : pandas.DataFrame
        With the columns ``folder``, ``class_name`` and ``group``. Where no kind of pneumonia is
        known, normal and pneumonia are compared.

    Returns
    -------
    pandas.DataFrame
        Columns ``folder``, ``class``, ``found``, ``published``, ``difference``.
    """
    kinds = files["class_name"].isin(("bacterial", "viral")).any()
    published = {name: counts(name, kinds=kinds) for name in COUNTS}
    if not kinds:
        files = relabelled(files, BINARY_CLASSES)
    if not (files["folder"] == "val").any():  # Mendeley's folders: its train holds Kaggle's val
        val = published.pop("val")
        published["train"] = {name: n + val[name] for name, n in published["train"].items()}
    found = files.groupby(["folder", "class_name"]).size()
    keys = dict.fromkeys(
        [(split, name) for split, row in published.items() for name in row] + [*found.index]
    )
    lines = [
        (split, name, int(found.get((split, name), 0)), published[split].get(name, 0))
        for split, name in keys
    ]
    table = pd.DataFrame(lines, columns=["folder", "class", "found", "published"])
    return table.assign(difference=table["found"] - table["published"])


def identity(files: pd.DataFrame) -> str:
    """Return a phrase: whether images are the published ones, a part of them, or others.

    Parameters
    ----------
    files : pandas.DataFrame
        With the columns ``folder``, ``class_name`` and ``sha256``.
    """
    found = {name: decoding.fingerprint(rows["sha256"]) for name, rows in files.groupby("folder")}
    same = [name for name, digest in FINGERPRINTS.items() if found.get(name) == digest]
    if len(same) == len(FINGERPRINTS):
        return "the published dataset, file by file (Kaggle's folders)"
    if found.get("train") == MENDELEY_TRAIN and "test" in same:
        return "the published dataset, file by file (Mendeley's folders)"
    if same:
        others = [name for name in found if name not in same]
        rest = f"; {' and '.join(others)} not as published" if others else ""
        return f"a part of the published dataset: {' and '.join(same)} file by file{rest}"
    numbered = ~files["group"].str.contains("/", regex=False)  # has a patient number
    named = (files["class_name"] != UNKNOWN) & numbered
    if named.all() and has_training_counts(files["class_name"]):
        return (
            "not the published folders: in all, each class has as many images as in the published "
            "training folder, so they seem to be that folder, divided anew"
        )
    if named.all():
        return "not the published files: their names have the same form, but contents or folders differ"
    return "not the published dataset"

import hashlib

import pandas as pd
import pytest
from folders import LAYOUT, make

from cxr_helpers.data import class_names, decoding, kermany, layouts

FILES = pd.DataFrame(
    {
        "folder": ["train", "train", "val", "test"],
        "class_name": ["normal", "viral", "normal", "bacterial"],
        "group": ["normal 1", "viral 2", "normal 3", "bacterial 4"],
        "sha256": [hashlib.sha256(bytes([i])).hexdigest() for i in range(4)],
    }
)


@pytest.fixture(autouse=True)
def published_files(monkeypatch):
    for name, rows in FILES.groupby("folder"):
        monkeypatch.setitem(kermany.FINGERPRINTS, name, decoding.fingerprint(rows["sha256"]))
    mendeley = FILES[FILES["folder"] != "test"]
    monkeypatch.setattr(kermany, "MENDELEY_TRAIN", decoding.fingerprint(mendeley["sha256"]))


def test_published_files_are_identified_in_both_layouts():
    assert "Kaggle's folders" in kermany.identity(FILES.sample(frac=1, random_state=0))
    merged = FILES.assign(folder=FILES["folder"].replace("val", "train"))
    assert "Mendeley's folders" in kermany.identity(merged)


def test_part_of_the_published_files_is_identified():
    part = kermany.identity(FILES[FILES["folder"] == "test"])
    assert part == "a part of the published dataset: test file by file"
    changed = FILES.copy()
    changed.loc[0, "sha256"] = "0" * 64
    assert kermany.identity(changed) == (
        "a part of the published dataset: val and test file by file; train not as published"
    )


def test_other_contents_under_published_names_are_identified():
    changed = FILES.assign(sha256=[str(i) * 64 for i in range(4)])
    assert kermany.identity(changed).startswith("not the published files: their names")


def test_other_files_are_not_the_published_dataset():
    other = FILES.assign(
        sha256=[str(i) * 64 for i in range(4)],
        group=["normal train/a.jpeg", "viral 2", "normal 3", "bacterial 4"],
    )
    assert kermany.identity(other) == "not the published dataset"


def test_counts_without_val_are_compared_with_mendeley():
    table = kermany.compare(FILES[FILES["folder"] != "val"])
    assert table["published"].sum() == 5856 and set(table["folder"]) == {"train", "test"}


def test_counts_are_compared_with_the_published_ones(tmp_path):
    table = kermany.compare(layouts.scan(make(tmp_path)).files)
    assert table["published"].sum() == 5856
    assert table["found"].sum() == sum(map(len, LAYOUT.values()))
    line = table.set_index(["folder", "class"]).loc[("val", "viral")]
    assert line["found"] == 0 and line["difference"] == 0


def test_two_classes_are_compared_where_kinds_are_unknown():
    kinds = FILES["class_name"].where(FILES["class_name"] == "normal", class_names.UNKNOWN)
    table = kermany.compare(FILES.assign(class_name=kinds))
    assert set(table["class"]) == {"normal", "pneumonia"} and table["published"].sum() == 5856
    line = table.set_index(["folder", "class"]).loc[("test", "pneumonia")]
    assert line["found"] == 1 and line["published"] == 242 + 148


def test_training_folder_that_is_divided_anew_is_recognised(monkeypatch):
    changed = FILES.assign(sha256=[str(i) * 64 for i in range(4)])
    monkeypatch.setitem(kermany.COUNTS, "train", {"normal": 2, "bacterial": 1, "viral": 1})
    assert "that folder, divided anew" in kermany.identity(changed)
    assert "divided anew" not in kermany.identity(changed[1:])
    two = changed["class_name"].replace({"viral": "pneumonia", "bacterial": "pneumonia"})
    assert kermany.has_training_counts(two) and not kermany.has_training_counts(two[1:])

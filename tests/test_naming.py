import pandas as pd
import pytest
from test_folder import make

from cxr_helpers import folder, naming, sources

ENOUGH = {"normal": 9, "bacterial": 9, "viral": 9}


def films(train, test):
    """Return an index with some images of each class, each of its own patient."""
    rows = [
        (split, name, f"{name} {number}")
        for split, counts in (("train", train), ("test", test))
        for name, count in counts.items()
        for number in range(count)
    ]
    return pd.DataFrame(rows, columns=["split", "class_name", "group"])


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        (ENOUGH, ENOUGH, ""),
        (ENOUGH | {folder.UNKNOWN: 18}, ENOUGH, ""),
        (ENOUGH | {folder.UNKNOWN: 19}, ENOUGH, "do not say whether a pneumonia is bacterial"),
        (ENOUGH | {"viral": 2}, ENOUGH, "hardly any viral images to learn from"),
        ({"normal": 9, "viral": 9}, ENOUGH, "hardly any bacterial images to learn from"),
        (ENOUGH, {"normal": 9, "bacterial": 9}, "no image in test is known to be viral"),
        (ENOUGH, {"normal": 9, folder.UNKNOWN: 9}, "known to be bacterial or viral"),
    ],
)
def test_classes_are_three_where_each_can_be_learnt_and_scored(train, test, reason):
    names, found = naming.classes(films(train, test))
    assert reason in found and bool(reason) == bool(found)
    assert names == (naming.BINARY_CLASSES if reason else folder.CLASSES)


def test_a_folder_whose_names_tell_nothing_is_remarked_on_before_it_is_decoded(tmp_path):
    names = {"NORMAL": "a", "PNEUMONIA": "b"}
    places = [f"{split}/{place}" for split in ("train", "test") for place in names]
    make(tmp_path, {place: ["1.jpeg", "2.jpeg", "3.jpeg"] for place in places})
    kind, patient = sources.remarks(str(tmp_path))
    assert "most of its images' names do not say whether" in kind
    assert "names of 12 of 12 images carry no patient number: splits and intervals" in patient


def test_the_published_names_need_no_remark(tmp_path):
    make(
        tmp_path,
        {
            f"{split}/{place}": [f"{name}_{i}.jpeg" for name in names for i in range(3)]
            for split, first in (("train", 1), ("test", 2))
            for place, names in {
                "NORMAL": [f"IM-{first}{n:03}-0001" for n in range(3)],
                "PNEUMONIA": [
                    f"person{first}{n}_{cause}" for n in range(3) for cause in ("virus", "bacteria")
                ],
            }.items()
        },
    )
    assert sources.remarks(str(tmp_path)) == sources.remarks("phantom") == []

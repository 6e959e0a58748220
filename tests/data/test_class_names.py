import pandas as pd
import pytest
from folders import make

from cxr_helpers.data import class_names, ingestion

ENOUGH = {"normal": 9, "bacterial": 9, "viral": 9}


def images(train, test):
    """Return an index with a number of images of each class, each of another patient."""
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
        (ENOUGH | {class_names.UNKNOWN: 18}, ENOUGH, ""),
        (ENOUGH | {class_names.UNKNOWN: 19}, ENOUGH, "not known whether a pneumonia is bacterial"),
        (ENOUGH | {"viral": 2}, ENOUGH, "too few viral training images"),
        ({"normal": 9, "viral": 9}, ENOUGH, "there are no bacterial training images"),
        (ENOUGH, {"normal": 9, "bacterial": 9}, "no image in test is known to be viral"),
        (ENOUGH, {"normal": 9, class_names.UNKNOWN: 9}, "known to be bacterial or viral"),
    ],
)
def test_three_classes_need_images_of_each_in_train_and_test(train, test, reason):
    names, given = class_names.distinguishable(images(train, test))
    assert reason in given and bool(reason) == bool(given)
    assert names == (class_names.BINARY_CLASSES if reason else class_names.CLASSES)


def test_unknown_kinds_and_patients_are_noted_before_decoding(tmp_path):
    names = {"NORMAL": "a", "PNEUMONIA": "b"}
    places = [f"{split}/{place}" for split in ("train", "test") for place in names]
    make(tmp_path, {place: ["1.jpeg", "2.jpeg", "3.jpeg"] for place in places})
    kind, patient = ingestion.notes(str(tmp_path))
    assert "for most images it is not known whether" in kind
    assert "12 of 12 images have no patient number: they are split and resampled" in patient


def test_relabelling_to_two_classes_keeps_groups_distinct():
    index = pd.DataFrame(
        {
            "class_name": ["normal", "viral", class_names.UNKNOWN, class_names.UNKNOWN],
            "group": [
                "normal 1",
                "viral 1",
                *(f"{class_names.UNKNOWN} test/{n}.png" for n in "ab"),
            ],
        }
    )
    two = class_names.relabelled(index, class_names.BINARY_CLASSES)
    assert two["class_name"].tolist() == ["normal", *["pneumonia"] * 3]
    groups = ["normal 1", "viral 1", "pneumonia test/a.png", "pneumonia test/b.png"]
    assert two["group"].tolist() == groups
    assert class_names.count_without_patient(two) == class_names.count_without_patient(index) == 2
    assert class_names.relabelled(index, class_names.CLASSES).equals(index)


NUMBERED, PLAIN = ["normal 1", "normal 1", "viral 1"], ["normal train/a.png", "normal train/b.png"]


@pytest.mark.parametrize(
    ("groups", "counted", "rest"),
    [
        (NUMBERED, "There are 2 patient groups of at most 2 images", ""),
        (
            NUMBERED + PLAIN,
            "There are 2 patient groups of at most 2 images",
            "The other 2 images have",
        ),
        (PLAIN, "", "All 2 images have no patient number"),
    ],
)
def test_description_of_groups_with_and_without_patient_numbers(groups, counted, rest):
    text = class_names.describe_groups(pd.DataFrame({"group": groups}))
    assert counted in text and rest in text
    assert ("A group is a class and a number" in text) == bool(counted)
    assert ("forms its own patient group" in text) == bool(rest)


def test_group_of_several_classes_is_described_as_a_patient():
    text = class_names.describe_groups(pd.DataFrame({"group": ["patient 1", "patient 1"]}))
    assert "1 patient groups of at most 2 images. A group is a patient, whose images may" in text


def test_published_names_need_no_notes(tmp_path):
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
    assert ingestion.notes(str(tmp_path)) == ingestion.notes("phantom") == []

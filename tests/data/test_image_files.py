import os

import pytest
from folders import LAYOUT, make

from cxr_helpers.data import class_names, image_files, layouts
from cxr_helpers.system.errors import DataError


@pytest.mark.parametrize(
    ("name", "folder_class", "class_name", "group"),
    [
        ("person1_bacteria_1.jpeg", None, "bacterial", "bacterial 1"),
        ("person1_virus_7_2.jpeg", None, "viral", "viral 1"),
        ("person007_virus_1.jpeg", "viral", "viral", "viral 7"),
        ("person7_3.jpeg", "viral", "viral", "viral 7"),
        ("1.png", "viral", "viral", "viral test/1.png"),
        ("IM-0115-0001.jpeg", "normal", "normal", "normal 115"),
        ("NORMAL2-IM-0115-0001.jpeg", "normal", "normal", "normal NORMAL2-115"),
        ("1.png", "normal", "normal", "normal test/1.png"),
        ("person1_2.jpeg", None, class_names.UNKNOWN, "unknown subtype test/person1_2.jpeg"),
    ],
)
def test_class_and_group_are_parsed_from_folder_and_name(name, folder_class, class_name, group):
    assert image_files.identify(name, folder_class, "test") == (class_name, group)


def test_patient_number_counts_within_a_class(tmp_path):
    files = layouts.scan(make(tmp_path)).files.set_index("file")
    assert len(files) == sum(map(len, LAYOUT.values()))
    assert (
        files.loc["train/PNEUMONIA/person1_bacteria_1.jpeg", "group"]
        != files.loc["train/PNEUMONIA/person1_virus_6.jpeg", "group"]
    )
    # the two series of normal images count separately
    assert files.loc[files["class_name"] == "normal", "group"].nunique() == 5


def test_clutter_and_links_are_ignored_with_their_reason(tmp_path):
    make(tmp_path)
    place = tmp_path / "train/PNEUMONIA"
    for name in (".DS_Store", "Thumbs.db", "._person1_virus_6.jpeg", "notes.txt"):
        (place / name).write_bytes(b"")
    (place / "person3_virus_1.jpeg").symlink_to(place / "person1_virus_6.jpeg")
    (place / "more.png").mkdir()
    found = layouts.scan(tmp_path)
    assert len(found.files) == sum(map(len, LAYOUT.values()))
    assert found.ignored["reason"].value_counts().to_dict() == {
        "system file": 3,
        "not an image name": 1,
        "link": 1,
        "not a file": 1,
    }


@pytest.mark.parametrize("name", ["child.jpeg", "person1_BACTERIA_1.jpeg", "person1_2.jpeg"])
def test_kind_of_pneumonia_is_never_guessed(tmp_path, name):
    make(tmp_path)
    (tmp_path / "train/PNEUMONIA" / name).write_bytes(b"")
    files = layouts.scan(tmp_path).files.set_index("file")
    assert files.loc[f"train/PNEUMONIA/{name}", "class_name"] == class_names.UNKNOWN


@pytest.mark.parametrize(
    "name", ["person9_virus_1 é.jpeg", "person9_virus_$(x){y}.JPEG", "person9_virus_\n.png"]
)
def test_unusual_characters_in_names_are_kept(tmp_path, name):
    make(tmp_path)
    (tmp_path / "train/PNEUMONIA" / name).write_bytes(b"")
    assert f"train/PNEUMONIA/{name}" in set(layouts.scan(tmp_path).files["file"])


def test_name_that_is_not_utf8_is_ignored(tmp_path):
    make(tmp_path)
    place = os.fsencode(tmp_path / "train/PNEUMONIA")
    with open(os.path.join(place, b"person9_virus_\xff.jpeg"), "wb"):
        pass
    found = layouts.scan(tmp_path)
    assert found.ignored["reason"].tolist() == ["name is not UTF-8"]
    assert found.ignored["file"][0].encode()


def test_empty_class_folder_is_refused_by_its_path(tmp_path):
    make(tmp_path, dict(LAYOUT) | {"test/NORMAL": []})
    with pytest.raises(DataError, match=r"test/NORMAL is empty; at least 2.*train folder alone"):
        layouts.scan(tmp_path)
    (tmp_path / "test/NORMAL/notes.txt").write_text("")
    with pytest.raises(DataError, match="test/NORMAL has no images; at least 2"):
        layouts.scan(tmp_path)


def test_each_image_without_patient_number_is_its_own_group(tmp_path):
    make(tmp_path)
    for split in ("train", "test"):
        for place in ("NORMAL", "PNEUMONIA"):
            (tmp_path / split / place / "0001.jpeg").write_bytes(b"")
    files = layouts.scan(tmp_path).files
    groups = files.loc[files["file"].str.endswith("0001.jpeg"), "group"]
    assert groups[groups.str.contains("/0001")].nunique() == 4

import pytest
from folders import LAYOUT, make

from cxr_helpers.data import class_names, folder
from cxr_helpers.system.errors import DataError


def test_classes_and_groups_come_from_folder_and_name(tmp_path):
    files = folder.scan(make(tmp_path)).files.set_index("file")
    assert files.loc["train/PNEUMONIA/person1_bacteria_1.jpeg", "class_name"] == "bacterial"
    assert files.loc["test/PNEUMONIA/person1_virus_7_2.jpeg", "class_name"] == "viral"
    assert files.loc["train/NORMAL/IM-0115-0001.jpeg", "class_name"] == "normal"
    assert len(files) == sum(map(len, LAYOUT.values()))
    # personN counts within a class: the same number is another child
    assert (
        files.loc["train/PNEUMONIA/person1_bacteria_1.jpeg", "group"]
        != files.loc["train/PNEUMONIA/person1_virus_6.jpeg", "group"]
    )
    # two series of normals count apart
    assert files["group"].str.startswith("normal").sum() == 5
    assert files.loc[files["class_name"] == "normal", "group"].nunique() == 5


def test_mendeley_has_no_val(tmp_path):
    layout = {place: names for place, names in LAYOUT.items() if not place.startswith("val")}
    assert set(folder.scan(make(tmp_path, layout)).files["folder"]) == {"train", "test"}


def test_clutter_is_ignored_and_named(tmp_path):
    make(tmp_path)
    place = tmp_path / "train/PNEUMONIA"
    for name in (".DS_Store", "Thumbs.db", "._person1_virus_6.jpeg", "notes.txt"):
        (place / name).write_bytes(b"")
    (place / "person3_virus_1.jpeg").symlink_to(place / "person1_virus_6.jpeg")
    found = folder.scan(tmp_path)
    assert len(found.files) == sum(map(len, LAYOUT.values()))
    assert found.ignored["reason"].value_counts().to_dict() == {
        "system file": 3,
        "not an image name": 1,
        "link": 1,
    }


@pytest.mark.parametrize("name", ["child.jpeg", "person1_BACTERIA_1.jpeg", "person1_2.jpeg"])
def test_a_cause_is_never_guessed(tmp_path, name):
    make(tmp_path)
    (tmp_path / "train/PNEUMONIA" / name).write_bytes(b"")
    files = folder.scan(tmp_path).files.set_index("file")
    assert files.loc[f"train/PNEUMONIA/{name}", "class_name"] == class_names.UNKNOWN


@pytest.mark.parametrize(
    "name", ["person9_virus_1 é.jpeg", "person9_virus_$(x){y}.JPEG", "person9_virus_\n.png"]
)
def test_odd_names_are_only_names(tmp_path, name):
    make(tmp_path)
    (tmp_path / "train/PNEUMONIA" / name).write_bytes(b"")
    assert f"train/PNEUMONIA/{name}" in set(folder.scan(tmp_path).files["file"])


def test_a_name_that_is_no_text_is_set_aside(tmp_path):
    import os

    make(tmp_path)
    place = os.fsencode(tmp_path / "train/PNEUMONIA")
    with open(os.path.join(place, b"person9_virus_\xff.jpeg"), "wb"):
        pass
    found = folder.scan(tmp_path)
    assert found.ignored["reason"].tolist() == ["name is not UTF-8"]
    assert found.ignored["file"][0].encode()


def test_an_empty_class_is_refused(tmp_path):
    layout = dict(LAYOUT) | {"test/NORMAL": []}
    make(tmp_path, layout)
    with pytest.raises(DataError, match=r"test/NORMAL is empty; at least 2.*train folder alone"):
        folder.scan(tmp_path)
    (tmp_path / "test/NORMAL/notes.txt").write_text("")
    with pytest.raises(DataError, match="test/NORMAL has no images; at least 2"):
        folder.scan(tmp_path)


@pytest.mark.parametrize("case", [str.lower, str.title, str.upper])
def test_case_of_the_folders_does_not_count(tmp_path, case):
    files = folder.scan(make(tmp_path, {case(p): images for p, images in LAYOUT.items()})).files
    assert files["folder"].value_counts().to_dict() == {"train": 4, "val": 2, "test": 4}
    assert files["class_name"].value_counts().to_dict() == {
        "normal": 5, "bacterial": 3, "viral": 2
    }  # fmt: skip
    assert all((tmp_path / name).is_file() for name in files["file"])


@pytest.mark.parametrize("bacterial, viral", [("bacterial", "viral"), ("Bacteria", "VIRUS")])
def test_a_folder_may_tell_the_kind(tmp_path, bacterial, viral):
    places = {
        "normal": ["1.png", "2.png"],
        bacterial: ["1.png", "person7_bacteria_1.jpeg"],
        viral: ["1.png", "person7_virus_2.jpeg", "person7_3.jpeg"],
    }
    files = folder.scan(make(tmp_path, {f"train/{p}": names for p, names in places.items()})).files
    assert files["class_name"].value_counts().to_dict() == {
        "viral": 3, "bacterial": 2, "normal": 2
    }  # fmt: skip
    assert files["group"].nunique() == 6 and (files["group"] == "viral 7").sum() == 2


def test_a_image_without_a_number_is_a_group_of_its_own(tmp_path):
    make(tmp_path)
    for split in ("train", "test"):
        for place in ("NORMAL", "PNEUMONIA"):
            (tmp_path / split / place / "0001.jpeg").write_bytes(b"")
    files = folder.scan(tmp_path).files
    groups = files.loc[files["file"].str.endswith("0001.jpeg"), "group"]
    assert groups[groups.str.contains("/0001")].nunique() == 4

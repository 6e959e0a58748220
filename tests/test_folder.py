import pytest

from cxr_helpers import folder
from cxr_helpers.folder import DataError

LAYOUT = {
    "train/NORMAL": ["IM-0115-0001.jpeg", "NORMAL2-IM-0115-0001.jpeg"],
    "train/PNEUMONIA": ["person1_bacteria_1.jpeg", "person1_virus_6.jpeg"],
    "val/NORMAL": ["NORMAL2-IM-1427-0001.jpeg"],
    "val/PNEUMONIA": ["person1946_bacteria_4874.jpeg"],
    "test/NORMAL": ["IM-0001-0001.jpeg", "IM-0003-0001-0002.jpeg"],
    "test/PNEUMONIA": ["person100_bacteria_475.jpeg", "person1_virus_7_2.jpeg"],
}


def make(root, layout=LAYOUT):
    for place, names in layout.items():
        (root / place).mkdir(parents=True)
        for name in names:
            (root / place / name).write_bytes(b"x")
    return root


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


@pytest.mark.parametrize("above", [".", "chest_xray", "a/chest_xray"])
def test_root_is_found_just_below(tmp_path, above):
    root = make(tmp_path / above)
    assert folder.scan(tmp_path).root == root


def test_a_folder_without_test_is_taken_where_none_has_both(tmp_path):
    layout = {place: names for place, names in LAYOUT.items() if place.startswith("train")}
    make(tmp_path / "originals", layout)
    assert folder.scan(tmp_path).root == tmp_path / "originals"
    make(tmp_path / "deeper" / "chest_xray")
    assert folder.scan(tmp_path).root == tmp_path / "deeper" / "chest_xray"


def test_a_test_folder_with_a_class_missing_is_no_folder_without_test(tmp_path):
    make(tmp_path, {p: names for p, names in LAYOUT.items() if p != "test/NORMAL"})
    with pytest.raises(DataError, match=r"expected train/NORMAL"):
        folder.scan(tmp_path)


def test_a_nested_second_copy_counts_once(tmp_path):
    root = make(tmp_path / "chest_xray")
    make(root / "chest_xray")
    make(tmp_path / "__MACOSX" / "chest_xray")
    found = folder.scan(tmp_path)
    assert found.root == root and len(found.files) == sum(map(len, LAYOUT.values()))


def test_two_roots_at_one_depth_are_refused(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(DataError, match=r"several data folders \(a, b\)"):
        folder.scan(tmp_path)


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


def test_link_loops_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="no chest X-ray folder"):
        folder.scan(tmp_path)


@pytest.mark.parametrize("name", ["child.jpeg", "person1_BACTERIA_1.jpeg", "person1_2.jpeg"])
def test_a_cause_is_never_guessed(tmp_path, name):
    make(tmp_path)
    (tmp_path / "train/PNEUMONIA" / name).write_bytes(b"")
    files = folder.scan(tmp_path).files.set_index("file")
    assert files.loc[f"train/PNEUMONIA/{name}", "class_name"] == folder.UNKNOWN


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


def test_missing_folder_and_wrong_layout_say_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        folder.scan(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"expected train/NORMAL.*found images"):
        folder.scan(tmp_path)


def test_an_empty_class_is_refused(tmp_path):
    layout = dict(LAYOUT) | {"test/NORMAL": []}
    make(tmp_path, layout)
    with pytest.raises(DataError, match="test/NORMAL has 0 images; at least 2"):
        folder.scan(tmp_path)


def test_a_film_without_a_number_is_a_group_of_its_own(tmp_path):
    make(tmp_path)
    for split in ("train", "test"):
        for place in ("NORMAL", "PNEUMONIA"):
            (tmp_path / split / place / "0001.jpeg").write_bytes(b"")
    files = folder.scan(tmp_path).files
    groups = files.loc[files["file"].str.endswith("0001.jpeg"), "group"]
    assert groups[groups.str.contains("/0001")].nunique() == 4

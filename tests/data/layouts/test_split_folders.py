import pytest
from folders import LAYOUT, make

from cxr_helpers.data import layouts
from cxr_helpers.data.layouts import split_folders
from cxr_helpers.data.scans import Match
from cxr_helpers.system.errors import DataError


def part(*prefixes):
    return {path: names for path, names in LAYOUT.items() if path.startswith(prefixes)}


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        (LAYOUT, Match(rank=0)),
        (part("train", "test"), Match(rank=0)),
        (part("train"), Match(rank=1)),
        (part("test"), Match(rank=0, missing="train/NORMAL and train/PNEUMONIA are missing")),
        (part("train/NORMAL"), Match(rank=1, missing="train/PNEUMONIA is missing")),
        ({"NORMAL": [], "PNEUMONIA": []}, None),
        ({"other": []}, None),
    ],
)
def test_match_ranks_splits_and_lists_missing_folders(tmp_path, paths, match):
    assert split_folders.recognise(make(tmp_path, paths)) == match


def test_file_is_not_recognised(tmp_path):
    (tmp_path / "train").touch()
    assert split_folders.recognise(tmp_path / "train") is None


def test_incomplete_test_folder_is_refused_with_the_remedy(tmp_path):
    make(tmp_path, {path: names for path, names in LAYOUT.items() if path != "test/NORMAL"})
    with pytest.raises(
        DataError, match=r": test/NORMAL is missing; a train folder alone is enough"
    ):
        layouts.scan(tmp_path)


def test_mendeley_folders_without_val_are_read(tmp_path):
    files = layouts.scan(make(tmp_path, part("train", "test"))).files
    assert files["folder"].value_counts().to_dict() == {"train": 4, "test": 4}


@pytest.mark.parametrize("case", [str.lower, str.title, str.upper])
def test_case_of_folder_names_is_ignored(tmp_path, case):
    files = layouts.scan(make(tmp_path, {case(p): names for p, names in LAYOUT.items()})).files
    assert files["folder"].value_counts().to_dict() == {"train": 4, "val": 2, "test": 4}
    assert files["class_name"].value_counts().to_dict() == {
        "normal": 5, "bacterial": 3, "viral": 2
    }  # fmt: skip
    assert all((tmp_path / name).is_file() for name in files["file"])


@pytest.mark.parametrize("bacterial, viral", [("bacterial", "viral"), ("Bacteria", "VIRUS")])
def test_folders_may_name_the_kind_of_pneumonia(tmp_path, bacterial, viral):
    places = {
        "normal": ["1.png", "2.png"],
        bacterial: ["1.png", "person7_bacteria_1.jpeg"],
        viral: ["1.png", "person7_virus_2.jpeg", "person7_3.jpeg"],
    }
    paths = {f"train/{place}": names for place, names in places.items()}
    files = layouts.scan(make(tmp_path, paths)).files
    assert files["class_name"].value_counts().to_dict() == {
        "viral": 3, "bacterial": 2, "normal": 2
    }  # fmt: skip
    assert files["group"].nunique() == 6 and (files["group"] == "viral 7").sum() == 2

import pytest
from folders import LAYOUT, make

from cxr_helpers.data import layouts
from cxr_helpers.data.layouts import class_folders
from cxr_helpers.data.scans import Match

CLASSES = {path.split("/")[1]: names for path, names in LAYOUT.items() if path.startswith("train")}


@pytest.mark.parametrize("above", [".", "a/b"])
def test_all_images_of_class_folders_are_training_images(tmp_path, above):
    make(tmp_path / above, CLASSES)
    found = layouts.scan(tmp_path)
    assert found.root == tmp_path / above
    assert (found.files["folder"] == "train").all()
    assert found.files.loc[0, ["file", "class_name", "group"]].tolist() == [
        "NORMAL/IM-0115-0001.jpeg", "normal", "normal 115"
    ]  # fmt: skip
    assert found.files["class_name"].tolist() == ["normal", "normal", "bacterial", "viral"]


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        (CLASSES, Match(rank=2)),
        ({"normal": [], "VIRAL": []}, Match(rank=2)),
        ({"NORMAL": []}, Match(rank=2, missing="PNEUMONIA is missing")),
        ({"PNEUMONIA": []}, Match(rank=2, missing="NORMAL is missing")),
        (CLASSES | {"train/NORMAL": []}, None),
        (LAYOUT, None),
        ({"other": []}, None),
    ],
)
def test_match_requires_class_folders_and_no_split(tmp_path, paths, match):
    assert class_folders.recognise(make(tmp_path, paths)) == match

import subprocess
import sys

import pytest
from folders import LAYOUT, make
from machine import ROOT, powerless

from cxr_helpers.data import folders, layouts
from cxr_helpers.data.scans import Match
from cxr_helpers.system.errors import DataError

TRAIN = {path: names for path, names in LAYOUT.items() if path.startswith("train")}


def test_every_module_of_the_package_offers_the_protocol():
    names = [layout.__name__.rpartition(".")[2] for layout in layouts.installed()]
    assert names == ["class_folders", "medmnist", "nih", "split_folders"]
    for layout in layouts.installed():
        assert layout.EXPECTED and layout.__doc__
        assert callable(layout.recognise) and callable(layout.scan)


@pytest.mark.parametrize("above", [".", "chest_xray", "a/chest_xray"])
def test_root_is_found_within_two_levels(tmp_path, above):
    root = make(tmp_path / above)
    assert layouts.scan(tmp_path).root == root


def test_root_three_levels_below_is_not_found(tmp_path):
    make(tmp_path / "a" / "b" / "chest_xray")
    with pytest.raises(DataError, match="no chest X-ray folder"):
        layouts.find(tmp_path)


def test_folder_with_test_is_preferred_to_a_shallower_one_without(tmp_path):
    make(tmp_path / "originals", TRAIN)
    assert layouts.scan(tmp_path).root == tmp_path / "originals"
    make(tmp_path / "deeper" / "chest_xray")
    assert layouts.scan(tmp_path).root == tmp_path / "deeper" / "chest_xray"


def test_train_folder_is_preferred_to_class_folders(tmp_path):
    make(tmp_path / "a", {path.split("/")[1]: names for path, names in TRAIN.items()})
    make(tmp_path / "b" / "c", TRAIN)
    assert layouts.scan(tmp_path).root == tmp_path / "b" / "c"


def test_nested_second_copy_is_ignored(tmp_path):
    root = make(tmp_path / "chest_xray")
    make(root / "chest_xray")
    make(tmp_path / "__MACOSX" / "chest_xray")
    found = layouts.scan(tmp_path)
    assert found.root == root and len(found.files) == sum(map(len, LAYOUT.values()))


def test_two_roots_at_one_depth_are_refused(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(DataError, match=r"several data folders \(a, b\)"):
        layouts.scan(tmp_path)


def test_link_loop_is_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="no chest X-ray folder"):
        layouts.scan(tmp_path)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        layouts.scan(tmp_path / "nowhere")


def test_refusal_lists_expected_and_found(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(
        DataError, match=r"expected train/NORMAL.*where there are.*\.npz.*found images"
    ):
        layouts.scan(tmp_path)


def test_incomplete_folder_is_refused_by_its_path(tmp_path):
    make(tmp_path / "a", {"train/NORMAL": ["1.png", "2.png"]})
    with pytest.raises(DataError, match=r"/a': train/PNEUMONIA is missing$"):
        layouts.scan(tmp_path)


def test_complete_folder_itself_is_taken_without_a_search(tmp_path, monkeypatch):
    make(tmp_path, TRAIN)
    make(tmp_path / "copy")
    searched, entries = [], folders.entries
    monkeypatch.setattr(folders, "entries", lambda path: searched.append(path) or entries(path))
    assert layouts.scan(tmp_path).root == tmp_path
    assert not any("copy" in path.parts for path in searched)


def test_root_of_the_file_system_is_not_searched(monkeypatch):
    monkeypatch.setattr(folders, "levels_below", None)
    monkeypatch.setattr(layouts, "recognise", lambda path: None)
    with pytest.raises(DataError, match="'/' is a whole disk"):
        layouts.scan("/")


def test_search_of_many_folders_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAXIMUM_FOLDERS", 3)
    make(tmp_path / "a" / "chest_xray")
    assert layouts.scan(tmp_path).root == tmp_path / "a" / "chest_xray"
    for name in "bcd":
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="more than 3 folders: name the image folder"):
        layouts.scan(tmp_path)


SCAN = (
    "import sys; from cxr_helpers.data import layouts; print(len(layouts.scan(sys.argv[1]).files))"
)


@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        ("lost+found", "10\n"),
        ("chest_xray/train/NORMAL", "/train/NORMAL' cannot be read (Permission denied)"),
        (".", "cannot be read (Permission denied): change its permissions"),
    ],
)
def test_unreadable_folder_is_skipped_in_a_search_and_refused_in_a_data_set(
    tmp_path, closed, expected
):
    make(tmp_path / "chest_xray")
    (tmp_path / closed).mkdir(exist_ok=True)
    (tmp_path / closed).chmod(0)
    try:
        command = [*powerless(), sys.executable, "-c", SCAN, tmp_path]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    finally:
        (tmp_path / closed).chmod(0o755)
    assert expected in done.stdout + done.stderr


class Planted:
    """A layout that recognises every folder as the given match."""

    EXPECTED = "anything"

    def __init__(self, match):
        self.match = match

    def recognise(self, path):
        return self.match


def test_complete_match_of_lowest_rank_is_taken(tmp_path, monkeypatch):
    matches = [None, Match(rank=0, missing="x"), Match(rank=2), Match(rank=1), Match(rank=1)]
    planted = tuple(Planted(match) for match in matches)
    monkeypatch.setattr(layouts, "installed", lambda: planted)
    assert layouts.recognise(tmp_path) == (matches[3], planted[3])
    assert layouts.find(tmp_path) == (tmp_path, planted[3])

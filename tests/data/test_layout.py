import subprocess
import sys

import pytest
from folders import LAYOUT, make
from machine import ROOT, powerless

from cxr_helpers.data import folder, layout
from cxr_helpers.system.errors import DataError


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
    with pytest.raises(
        DataError, match=r": test/NORMAL is missing; a train folder alone is enough"
    ):
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


def test_link_loops_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="no chest X-ray folder"):
        folder.scan(tmp_path)


def test_missing_folder_and_wrong_layout_say_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        folder.scan(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"expected train/NORMAL.*where there are.*found images"):
        folder.scan(tmp_path)


@pytest.mark.parametrize("above", [".", "a/b"])
def test_class_folders_without_a_split_are_train(tmp_path, above):
    places = {p.split("/")[1]: images for p, images in LAYOUT.items() if p.startswith("train")}
    make(tmp_path / above, places)
    found = folder.scan(tmp_path)
    assert found.root == tmp_path / above
    assert (found.files["folder"] == "train").all() and len(found.files) == 4


def test_the_folder_itself_is_looked_at_first(tmp_path, monkeypatch):
    make(tmp_path, {p: images for p, images in LAYOUT.items() if p.startswith("train")})
    make(tmp_path / "copy")
    seen, listed = [], layout.listed
    monkeypatch.setattr(layout, "listed", lambda path: seen.append(path) or listed(path))
    assert folder.scan(tmp_path).root == tmp_path
    assert not any("copy" in path.parts for path in seen)


def test_a_whole_disk_is_not_searched(monkeypatch):
    monkeypatch.setattr(layout, "_levels_below", None)
    with pytest.raises(DataError, match="'/' is a whole disk"):
        folder.scan("/")


def test_a_home_folder_is_not_searched_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAXIMUM_FOLDERS", 3)
    make(tmp_path / "a" / "chest_xray")
    assert folder.scan(tmp_path).root == tmp_path / "a" / "chest_xray"
    for name in "bcd":
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="more than 3 folders: name that of the images"):
        folder.scan(tmp_path)


SCAN = "import sys; from cxr_helpers.data import folder; print(len(folder.scan(sys.argv[1]).files))"


@pytest.mark.parametrize(
    ("closed", "words"),
    [
        ("lost+found", "10\n"),
        ("chest_xray/train/NORMAL", "/train/NORMAL' cannot be read (Permission denied)"),
        (".", "cannot be read (Permission denied): change its permissions"),
    ],
)
def test_a_folder_without_permission(tmp_path, closed, words):
    """It is skipped beside the images, and named where it should hold some."""
    make(tmp_path / "chest_xray")
    (tmp_path / closed).mkdir(exist_ok=True)
    (tmp_path / closed).chmod(0)
    try:
        command = [*powerless(), sys.executable, "-c", SCAN, tmp_path]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    finally:
        (tmp_path / closed).chmod(0o755)
    assert words in done.stdout + done.stderr

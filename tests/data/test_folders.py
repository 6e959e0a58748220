from folders import LAYOUT, make

from cxr_helpers.data import folders


def test_subfolders_are_listed_by_lower_case_name_without_clutter(tmp_path):
    for name in ("Train", "TRAIN", "__MACOSX", ".cache", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "val").write_bytes(b"a file")
    assert folders.subfolders(tmp_path) == {"train": ["TRAIN", "Train"], "other": ["other"]}


def test_class_folders_carry_the_path_below_the_root(tmp_path):
    make(tmp_path)
    (tmp_path / "train" / "reports").mkdir()
    assert folders.class_folders(tmp_path) == {}
    assert folders.class_folders(tmp_path, below="train") == {
        "normal": ["train/NORMAL"],
        "pneumonia": ["train/PNEUMONIA"],
    }


def test_levels_leave_out_links_and_folders_of_a_data_set(tmp_path):
    make(tmp_path / "a" / "b" / "c", LAYOUT)
    make(tmp_path, LAYOUT)
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    levels = list(folders.levels_below(tmp_path))
    assert levels == [[tmp_path / "a"], [tmp_path / "a" / "b"]]

"""What is predicted is tested on whole runs, in test_whole_chain.py."""

import sys

import pytest

from cxr_helpers.pipeline import classifiers, prediction
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system.errors import DataError


def test_images_are_found_in_files_and_in_folders_and_below_them(tmp_path):
    names = ("b.png", "a.jpeg", "notes.txt", ".DS_Store", "sub/c.JPG", "__MACOSX/d.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    single = tmp_path / "notes.txt"  # a file that is named is read, whatever its name
    found = prediction.find([tmp_path / "sub", single])
    assert [path.name for path in found] == ["c.JPG", "notes.txt"]
    assert [p.name for p in prediction.find([tmp_path])] == ["a.jpeg", "b.png", "c.JPG"]
    both = prediction.find([tmp_path, tmp_path / "b.png"])  # once, though it is named twice
    assert both == prediction.find([tmp_path])
    (tmp_path / "d.TIF").touch()  # is named as not read, instead of left out without a word
    found = prediction.find([tmp_path])
    assert [p.name for p in found] == ["a.jpeg", "b.png", "d.TIF", "c.JPG"]


@pytest.mark.parametrize(
    ("name", "message"), [("none", "none does not exist"), ("empty", r"empty: no image \(\.jpeg")]
)
def test_nothing_to_predict_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        prediction.find([tmp_path / name])


def test_networks_are_loaded_for_deterministic_operations(tmp_path, monkeypatch):
    """Before the first one is built: so that --predict does not compile it with XLA on a GPU."""

    class Prepared(Exception):
        pass

    def prepare():
        assert "tensorflow" in sys.modules
        raise Prepared

    monkeypatch.setattr(classifiers.accelerators, "prepare", prepare)
    with pytest.raises(Prepared):
        classifiers.load(Run(tmp_path))

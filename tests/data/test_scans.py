import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import scans
from cxr_helpers.system.errors import DataError

ROWS = [
    (f"{split}/{n}", split, name, f"{name} {n}")
    for split in ("train", "test")
    for n, name in enumerate(["normal", "normal", "viral", "bacterial"])
]
NOTHING = pd.DataFrame(columns=["file", "reason"])


def scan(rows=ROWS, **options):
    files = pd.DataFrame(rows, columns=[*scans.COLUMNS])
    return scans.Scan(Path("data"), files, NOTHING, **options)


def test_image_files_are_read_below_the_root(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    found = scans.Scan(tmp_path, pd.DataFrame(), NOTHING)
    assert found.image("a.png") == tmp_path / "a.png"
    assert found.sha256("a.png") == hashlib.sha256(b"x").hexdigest()


def test_equal_arrays_have_equal_digests():
    values = np.arange(6, dtype=np.uint8)
    pixels = {"a": values.reshape(2, 3), "b": values.reshape(2, 3).copy(), "c": values[::-1]}
    pixels |= {"d": values.reshape(3, 2), "e": values.reshape(3, 2).T}
    found = scan(pixels=pixels)
    assert found.image("a") is pixels["a"]
    assert found.sha256("a") == found.sha256("b")
    assert len({found.sha256(name) for name in "acde"}) == 4


def test_complete_scan_passes_the_check():
    assert scans.check(found := scan()) is found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.drop(columns="group"), "lacks group; expected file, folder"),
        (lambda files: files.assign(folder="dev"), r"folder \['dev'\]; expected train, val, test"),
        (lambda files: files.assign(class_name="pneumonia"), r"class_name \['pneumonia'\]"),
        (lambda files: files.assign(file="a"), "'a' twice"),
    ],
)
def test_mistake_of_a_layout_is_a_value_error(change, message):
    wrong = scans.Scan(Path("data"), change(scan().files), NOTHING)
    with pytest.raises(ValueError, match=message) as error:
        scans.check(wrong)
    assert not isinstance(error.value, DataError)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (("test/0",), "data: test has 1 images of normal; at least 2"),
        (("train/2", "train/3"), "data: train has 0 images of pneumonia"),
    ],
)
def test_too_few_images_of_a_class_are_refused(left_out, message):
    with pytest.raises(DataError, match=message):
        scans.check(scan([row for row in ROWS if row[0] not in left_out]))


def test_images_of_val_count_as_train():
    rows = [(file, folder.replace("train", "val"), *rest) for file, folder, *rest in ROWS]
    assert len(scans.check(scan(rows)).files) == 8

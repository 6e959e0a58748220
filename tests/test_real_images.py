"""Tests on real images, where the environment names a folder of them; none is in the repository."""

import os
from pathlib import Path

import numpy as np
import pytest

from cxr_helpers.data import decoding, ingestion, kermany, layouts, splits

FOLDER = os.environ.get("CXR_DATA_DIR")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="CXR_DATA_DIR does not name a folder of real images"
)


@pytest.fixture(scope="module")
def scan():
    return layouts.scan(Path(FOLDER) / "chest_xray")


def test_counts_of_the_development_copy_are_those_of_kaggles_train(scan):
    counts = scan.files["class_name"].value_counts().to_dict()
    assert counts == kermany.COUNTS["train"]
    assert len(scan.ignored) == 0


def test_no_group_is_in_train_and_test(scan):
    tested = set(scan.files.loc[scan.files["folder"] == "test", "group"])
    assert tested.isdisjoint(scan.files.loc[scan.files["folder"] == "train", "group"])


def test_validation_split_keeps_groups_together(scan):
    train = scan.files[scan.files["folder"] != "test"]
    mask = splits.validation_mask(train["group"], train["class_name"], fraction=0.15, seed=0)
    assert set(train["group"][mask]).isdisjoint(train["group"][~mask])
    assert mask.mean() == pytest.approx(0.15, abs=0.03)


def test_originals_of_each_mode_are_decoded():
    paths = sorted((Path(FOLDER) / "originals").rglob("*.jpeg"))
    assert len(paths) == 90
    modes, widths = set(), set()
    for path in paths:
        pixels, facts = decoding.decode(path, 128)
        assert pixels.std() > 10
        modes.add(facts["mode"])
        widths.add(facts["width"])
    assert modes == {"L", "RGB"} and len(widths) > 30


def test_test_set_is_split_off_originals_in_whole_groups(tmp_path):
    source = ingestion.read(
        str(Path(FOLDER) / "originals"),
        size=64,
        framing="pad",
        cache_dir=tmp_path,
        phantom_options={},
    )
    assert source.test_from_train and source.index["split"].value_counts()["test"] in range(15, 30)
    assert source.index.groupby("group")["split"].nunique().max() == 1


def test_reduced_scale_decoding_stays_close_to_full_decoding():
    from PIL import Image

    path = next((Path(FOLDER) / "originals").rglob("*.jpeg"))
    pixels, _ = decoding.decode(path, 128)
    with Image.open(path) as image:
        full = image.convert("L").resize((128, 128), Image.Resampling.BICUBIC)
    difference = np.abs(pixels.astype(int) - np.asarray(full).astype(int))
    assert difference.mean() < 1.5

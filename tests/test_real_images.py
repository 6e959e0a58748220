"""On the real images, where they are at hand: never in the repository, never needed."""

import os
from pathlib import Path

import numpy as np
import pytest

from cxr_helpers.data import decoding, ingestion, kermany, layouts, splits

HOME = os.environ.get("CXR_DATA_DIR")
pytestmark = pytest.mark.skipif(
    not HOME, reason="CXR_DATA_DIR does not name a folder of real images"
)


@pytest.fixture(scope="module")
def scan():
    return layouts.scan(Path(HOME) / "chest_xray")


def test_the_development_copy_is_kaggles_training_set(scan):
    counts = scan.files["class_name"].value_counts().to_dict()
    assert counts == kermany.COUNTS["train"]
    assert len(scan.ignored) == 0


def test_no_group_is_parted_by_the_published_folders(scan):
    learnt = scan.files["folder"] != "test"
    tested = set(scan.files.loc[~learnt, "group"])
    assert tested.isdisjoint(scan.files.loc[scan.files["folder"] == "train", "group"])


def test_a_validation_split_parts_no_group(scan):
    train = scan.files[scan.files["folder"] != "test"]
    mask = splits.validation_mask(train["group"], train["class_name"], fraction=0.15, seed=0)
    assert set(train["group"][mask]).isdisjoint(train["group"][~mask])
    assert mask.mean() == pytest.approx(0.15, abs=0.03)


def test_originals_of_every_mode_are_read():
    paths = sorted((Path(HOME) / "originals").rglob("*.jpeg"))
    assert len(paths) == 90
    modes, widths = set(), set()
    for path in paths:
        pixels, facts = decoding.decode(path, 128)
        assert pixels.std() > 10
        modes.add(facts["mode"])
        widths.add(facts["width"])
    assert modes == {"L", "RGB"} and len(widths) > 30


def test_originals_without_a_test_folder_get_one_of_whole_groups(tmp_path):
    source = ingestion.read(
        str(Path(HOME) / "originals"),
        size=64,
        framing="pad",
        cache_dir=tmp_path,
        phantom_options={},
    )
    assert source.test_from_train and source.index["split"].value_counts()["test"] in range(15, 30)
    assert source.index.groupby("group")["split"].nunique().max() == 1


def test_reduced_scale_decoding_stays_close_to_full_decoding():
    from PIL import Image

    path = next((Path(HOME) / "originals").rglob("*.jpeg"))
    pixels, _ = decoding.decode(path, 128)
    with Image.open(path) as image:
        full = image.convert("L").resize((128, 128), Image.Resampling.BICUBIC)
    difference = np.abs(pixels.astype(int) - np.asarray(full).astype(int))
    assert difference.mean() < 1.5

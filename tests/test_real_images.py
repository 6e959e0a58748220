"""Tests on real images, where the environment names a folder of them; none is in the repository."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import decoding, ingestion, kermany, layouts, splits
from cxr_helpers.explain import localization, markers

FOLDER = os.environ.get("CXR_DATA_DIR")
LETTERS = Path(__file__).parent.parent / "docs" / "decisions" / "letters.csv"
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


def test_most_letters_boxed_by_hand_are_found():
    """The boxes, as shares of the side, of 60 test images of the development copy."""
    table = pd.read_csv(LETTERS)
    paths = [Path(FOLDER) / "chest_xray" / file for file in table["file"]]
    size = 224
    images = np.stack([decoding.decode(path, size)[0] for path in paths])
    corners = table[["left", "top", "right", "bottom"]].fillna(0) * size
    true = localization.box_masks(corners.round().astype(int).to_numpy(), size)
    found = markers.find(images)
    shared, pixels = (found & true).sum(axis=(1, 2)), true.sum(axis=(1, 2))
    hit = shared >= 0.5 * np.maximum(1, np.minimum(found.sum(axis=(1, 2)), pixels))
    recall, precision = hit[pixels > 0].mean(), hit[found.any(axis=(1, 2))].mean()
    assert (pixels > 0).sum() == 56 and recall > 0.9 and precision > 0.95, (recall, precision)

"""Lung outlines of made-up images."""

import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_helpers.data import lung_outlines
from cxr_helpers.system.errors import DataError

INDEX = pd.DataFrame(
    {
        "file": ["train/a.jpeg", "train/b.jpeg", "test/c.jpeg"],
        "width": [100, 120, 140],
        "height": [80, 80, 90],
    }
)


def write(folder, name, size, *, mode="L", value=255, rest=0):
    """Write a mask of (width, height) whose left half, but for its edge, is lung."""
    folder.mkdir(exist_ok=True, parents=True)
    pixels = np.full(size[::-1], rest, np.uint8)
    pixels[1:-1, 1 : size[0] // 2] = value
    Image.fromarray(pixels).convert(mode).save(folder / name)


def read(folder, index=INDEX):
    return lung_outlines.read(folder, index, size=16, framing="squeeze")


def test_masks_are_found_by_name_below_the_folder_too(tmp_path):
    write(tmp_path / "x", "a.png", (50, 40))
    write(tmp_path, "c.png", (64, 64), mode="1")  # square copies have lost their shape
    found = read(tmp_path)
    assert found.by == "name" and found.found.tolist() == [True, False, True]
    assert found.masks[0, 2:-2, 2:7].all() and not found.masks[0, :, 9:].any()
    assert not found.masks[1].any() and found.masks[2, 8, 3]
    assert found.notes() == (
        "2 of 3 images have lung outlines, matched by name (1 images without a mask)."
    )


def test_masks_that_are_not_kept_are_counted_alike(tmp_path):
    write(tmp_path, "a.png", (50, 40))
    write(tmp_path, "b.png", (40, 50))  # of another shape than its image
    write(tmp_path, "c.png", (64, 64))
    everything = read(tmp_path)
    kept = np.array([False, True, True])
    options = {"size": 16, "framing": "squeeze", "kept": kept}
    some = lung_outlines.read(tmp_path, INDEX, **options)
    assert (some.masks == everything.masks[kept]).all() and some.masks[1].any()
    assert some.found.tolist() == everything.found.tolist() == [True, False, True]
    assert some.notes() == everything.notes() and "1 masks of a different shape" in some.notes()


def test_masks_without_names_are_matched_by_a_stored_size_that_only_one_has(tmp_path):
    index = pd.concat([INDEX, INDEX.iloc[[2]].assign(file="test/d.jpeg")], ignore_index=True)
    write(tmp_path, "1.png", (100, 80))
    write(tmp_path, "2.png", (120, 80))
    write(tmp_path, "3.png", (120, 80))  # two masks have this size
    write(tmp_path, "4.png", (140, 90))  # two images have this size
    write(tmp_path, "5.png", (33, 44))
    found = read(tmp_path, index)
    assert found.by == "stored size" and found.found.tolist() == [True, False, False, False]
    assert found.counts["masks whose size several images or masks share"] == 3
    assert found.counts["masks without an image"] == 1
    assert "matched by stored size" in found.notes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": (50, 40), "mode": "RGB"}, "masks in colour"),
        ({"size": (50, 40), "value": 0}, "empty masks"),
        ({"size": (50, 40), "value": 127}, "empty masks"),  # "ignore" of V7
        ({"size": (40, 50)}, "masks of a different shape from their image"),
        (
            {"size": (50, 40), "rest": 255, "value": 0},
            "masks with lung in the corners (inverted or all white)",
        ),
        ({"size": (50, 40), "rest": 255}, "masks with lung in the corners (inverted or all white)"),
        ({"size": (50, 40), "rest": 127, "value": 0, "mode": "I;16"}, "empty masks"),
    ],
)
def test_mask_that_does_not_fit_is_counted(tmp_path, options, reason):
    write(tmp_path, "a.png", **options)
    write(tmp_path, "b.png", (60, 40))
    found = read(tmp_path)
    assert found.found.tolist() == [False, True, False] and found.counts[reason] == 1
    assert f"1 {reason}" in found.notes()


def test_mask_of_a_rotated_image_is_counted(tmp_path):
    write(tmp_path, "a.png", (50, 40))
    write(tmp_path, "b.png", (60, 40))
    # nan: of a phantom; text where an index with empty fields was read
    for rotated in ([True, np.nan, False], ["True", "", "False"]):
        found = read(tmp_path, INDEX.assign(rotated=rotated))
        assert found.found.tolist() == [False, True, False]
        assert found.counts["masks of images with a stored rotation"] == 1


@pytest.mark.parametrize("second", [1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_of_numbered_lungs_is_read(tmp_path, dtype, second):
    pixels = np.zeros((40, 50), dtype)
    pixels[1:-1, 1:25] = 1
    pixels[1:-1, 30:35] = second
    for name, values in (("numbered", pixels), ("full", np.uint8((pixels > 0) * 255))):
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "a.png")
    numbered, full = (read(tmp_path / name).masks[0] for name in ("numbered", "full"))
    np.testing.assert_array_equal(numbered, full)
    assert numbered[8, 4] and numbered[8, 10] and not numbered[8, 13]


def test_mask_of_more_regions_than_lungs_is_counted(tmp_path):
    pixels = np.zeros((40, 50), np.uint8)
    for number, left in ((1, 1), (2, 20), (3, 35)):  # the third may be the heart
        pixels[1:-1, left : left + 10] = number
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write(tmp_path, "b.png", (120, 80))
    assert "1 masks of more than two regions" in read(tmp_path).notes()


def test_palette_in_colour_is_counted_and_in_grey_is_read(tmp_path):
    for name, width, colour in (("a", 50, [200, 0, 0]), ("b", 60, [255, 255, 255])):
        image = Image.fromarray(np.pad(np.ones((30, width - 10), np.uint8), 5))
        image.putpalette([0, 0, 0, *colour])
        image.save(tmp_path / f"{name}.png")
    found = read(tmp_path)
    assert found.found.tolist() == [False, True, False] and found.counts["masks in colour"] == 1


def test_square_mask_is_padded_as_its_image_is(tmp_path):
    write(tmp_path, "a.png", (64, 64))
    index = INDEX.assign(width=200, height=100)
    mask = lung_outlines.read(tmp_path, index, size=16, framing="pad").masks[0]
    assert mask[5:11, 3].all() and not mask[:4].any() and not mask[12:].any()


def test_one_name_in_common_does_not_hide_masks_that_fit_by_size(tmp_path):
    write(tmp_path, "c.png", (100, 80))  # of the name of another image
    write(tmp_path, "2.png", (120, 80))
    found = read(tmp_path)
    assert found.by == "stored size" and found.found.tolist() == [True, True, False]


def test_masks_that_are_too_large_are_counted_where_sizes_are_compared(tmp_path):
    write(tmp_path, "1.png", (100, 80))
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    size, check = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n" + size + chunk + check)
    found = read(tmp_path)
    assert found.found.sum() == 1 and found.counts["masks that cannot be read"] == 1


def test_damaged_mask_and_mask_without_an_image_are_counted(tmp_path):
    write(tmp_path, "b.png", (60, 40))
    write(tmp_path, "zzz.png", (60, 40))
    (tmp_path / "a.png").write_bytes(b"no image")
    counts = read(tmp_path).counts
    assert counts["masks that cannot be read"] == counts["masks without an image"] == 1
    truncated = Image.new("L", (60, 40), 255)
    truncated.save(tmp_path / "a.png", exif=b"Exif\0\0II*\0")
    assert read(tmp_path).counts["masks that cannot be read"] == 1


def test_two_masks_of_one_name_are_not_used(tmp_path):
    write(tmp_path / "x", "a.png", (50, 40))
    write(tmp_path / "y", "a.png", (50, 40))
    write(tmp_path, "b.png", (60, 40))
    found = read(tmp_path)
    assert found.found.tolist() == [False, True, False]
    assert found.counts["masks whose name several images or masks share"] == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "is not a folder: expected PNG files named like the images"),
        ("empty", "holds no PNG file"),
        ("other", r"no mask fits an image \(1 masks without an image; 3 images without a mask\)"),
    ],
)
def test_folder_without_outlines_is_refused_in_one_line(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other", "q.png", (5, 5))
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_real_outlines_fit_real_images(shared_data):
    names = sorted((shared_data / "lung_masks" / "test").rglob("*.png"))[:4]
    index = pd.DataFrame({"file": [f"test/{path.stem}.jpeg" for path in names]})
    found = read(shared_data / "lung_masks", index.assign(width=224, height=224))
    assert found.found.all() and 0.1 < found.masks.mean() < 0.6

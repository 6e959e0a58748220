import errno
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folders import LAYOUT, make
from machine import ROOT, powerless, small_disk
from PIL import Image

from cxr_helpers.data import decoding, layouts
from cxr_helpers.system import errors, files
from cxr_helpers.system.errors import DataError


def gradient(width=80, height=60):
    return np.tile(np.linspace(0, 255, width, dtype=np.uint8), (height, 1))


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.fixture
def grey():
    return Image.fromarray(gradient())


def test_grey_jpeg_is_squeezed(tmp_path, grey):
    pixels, facts = decoding.decode(saved(tmp_path / "a.jpeg", grey, quality=95), 20)
    assert pixels.shape == (20, 20) and pixels.dtype == np.uint8
    assert facts == {"width": 80, "height": 60, "mode": "L", "rotated": False}
    assert np.all(np.diff(pixels.mean(axis=0)) > 0)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P", "RGBA", "LA", "1"])
def test_each_colour_mode_is_decoded_to_the_same_grey(tmp_path, grey, mode):
    name = "a.jpeg" if mode in {"RGB", "CMYK"} else "a.png"
    pixels, facts = decoding.decode(saved(tmp_path / name, grey.convert(mode)), 20)
    assert facts["mode"] == mode
    expected, _ = decoding.decode(saved(tmp_path / "grey.png", grey), 20)
    if mode != "1":
        assert np.abs(pixels.astype(int) - expected).max() < 12
    else:
        assert pixels[:, -1].mean() > pixels[:, 0].mean()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    wide = gradient().astype(np.uint16) * 16
    path = saved(tmp_path / "a.png", Image.fromarray(wide))
    pixels, _ = decoding.decode(path, 20)
    assert pixels.min() < 10 and pixels.max() > 245 and len(np.unique(pixels)) > 15


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_more_bits_change_no_grey_level(tmp_path, bits):
    """Whatever the range of the levels is, which need not be the full one."""
    low = 40 + gradient() // 2
    expected, _ = decoding.decode(saved(tmp_path / "a.png", Image.fromarray(low)), 20)
    wide = np.round(low * ((2**bits - 1) / 255)).astype(np.uint16)
    found, _ = decoding.decode(saved(tmp_path / "b.png", Image.fromarray(wide)), 20)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_progressive_and_misnamed_files_are_read(tmp_path, grey):
    decoding.decode(saved(tmp_path / "a.jpeg", grey, progressive=True), 20)
    decoding.decode(saved(tmp_path / "b.jpeg", grey, format="PNG"), 20)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpeg", "L"), ("a.jpeg", "RGB"), *(("a.png", m) for m in ("L", "P", "LA", "RGBA", "I;16"))],
)
def test_exif_orientation_is_applied_and_recorded(tmp_path, grey, name, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by a quarter turn clockwise
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        picture = grey.convert(mode)
    pixels, facts = decoding.decode(saved(tmp_path / name, picture, exif=exif), 20)
    assert facts["rotated"] and facts["mode"].startswith(mode[:1])
    assert np.all(np.diff(pixels.mean(axis=1)) > 0)


def test_padding_keeps_the_aspect_ratio_and_squeezing_does_not(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("L", (80, 40), 200).save(path)
    padded, _ = decoding.decode(path, 20, framing="pad")
    squeezed, _ = decoding.decode(path, 20)
    assert (padded[:4] == 0).all() and (padded[-4:] == 0).all()
    assert (padded[6:14] == 200).all() and (squeezed == 200).all()
    with pytest.raises(ValueError, match="framing 'crop'"):
        decoding.decode(path, 20, framing="crop")


@pytest.mark.parametrize("cut", [0.5, 200, 2])
def test_truncated_files_are_refused(tmp_path, grey, cut):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8))
    path = saved(tmp_path / "a.jpeg", noisy)
    content = path.read_bytes()
    keep = int(len(content) * cut) if cut < 1 else len(content) - int(cut)
    path.write_bytes(content[:keep])
    with pytest.raises(OSError):
        decoding.decode(path, 20)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_file_that_is_not_an_image_is_refused(tmp_path, content):
    path = tmp_path / "a.jpeg"
    path.write_bytes(content)
    with pytest.raises(OSError, match="not a readable image"):
        decoding.decode(path, 20)


def test_truncated_exif_is_no_error_of_another_type(tmp_path, grey):
    exif = {"exif": b"Exif\0\0II*\0"}
    with pytest.raises(OSError, match="not a readable image"):
        decoding.decode(saved(tmp_path / "a.png", grey, **exif), 20)
    pixels, facts = decoding.decode(saved(tmp_path / "a.jpg", grey, **exif), 20)  # as stored
    expected, _ = decoding.decode(saved(tmp_path / "b.jpg", grey), 20)
    assert np.array_equal(pixels, expected) and not facts["rotated"]


def test_damaged_exif_data_beside_the_orientation_do_not_matter(tmp_path, grey):
    """The resolution is stored as text."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "72 dpi"
    path = saved(tmp_path / "a.jpg", grey, exif=exif)
    content = path.read_bytes()
    for order in "<>":
        content = content.replace(
            struct.pack(f"{order}HH", 0x010E, 2), struct.pack(f"{order}HH", 0x011A, 2)
        )
    assert content != path.read_bytes()
    path.write_bytes(content)
    pixels, facts = decoding.decode(path, 20)
    assert facts["rotated"] and (facts["width"], facts["height"]) == (80, 60)
    assert np.all(np.diff(pixels.mean(axis=1)) > 0)  # from left to right as stored


def test_error_of_the_network_is_none_of_the_file(tmp_path, monkeypatch):
    """The next command reads all images."""
    scan, real = images(tmp_path / "d"), decoding.decode

    def decode(source, *args, **options):
        if faulty:
            raise OSError(errno.EIO, "Input/output error")
        return real(source, *args, **options)

    monkeypatch.setattr(decoding, "decode", decode)
    for faulty in (True, False):
        expected = pytest.raises(DataError, match="cannot be read now") if faulty else nullcontext()
        with expected as error:
            pixels, _, unreadable = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
        if faulty:
            fault = errors.classify(error.value)
            assert fault.code == errors.MACHINE and scan.files["file"][0] in fault.message
    assert len(pixels) == len(scan.files) and unreadable.empty


def test_decompression_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "a.png"
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0), b"IDAT", b"IEND")
    checked = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(checked))
    with pytest.raises(OSError, match=r"too large|bomb"):
        decoding.decode(path, 20)


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def images(root, damaged=0, copies=1):
    make(root, {place: [] for place in LAYOUT})
    draw = np.random.default_rng(0)
    for place, names in LAYOUT.items():
        for name in names:
            for copy in range(copies):
                stem = name.removesuffix(".jpeg")
                image = Image.fromarray(draw.integers(0, 255, (40, 50), dtype=np.uint8))
                image.save(root / place / f"{stem}_{copy}.jpeg")
    for path in sorted(root.glob("train/NORMAL/*.jpeg"))[:damaged]:
        path.write_bytes(b"")
    return layouts.scan(root)


def test_rows_of_pixels_and_table_agree(tmp_path):
    scan = images(tmp_path / "d")
    pixels, table, unreadable = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert len(pixels) == len(table) == len(scan.files) and unreadable.empty
    for row in (0, len(table) - 1):
        expected, _ = decoding.decode(scan.root / table["file"][row], 16)
        assert np.array_equal(pixels[row], expected)


def test_second_call_reads_the_cache(tmp_path, monkeypatch):
    scan = images(tmp_path / "d")
    first, *_ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    monkeypatch.setattr(decoding, "decode", None)
    again, *_ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert np.array_equal(first, again)
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_changed_labels_are_those_of_the_scan_and_nothing_is_decoded_again(tmp_path, monkeypatch):
    scan = images(tmp_path / "d")
    decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    changed = scan.files.assign(folder="test", group="viral 1")
    monkeypatch.setattr(decoding, "decode", None)
    _, table, _ = decoding.decode_all(replace(scan, files=changed), 16, cache_dir=tmp_path / "c")
    assert set(table["folder"]) == {"test"} and set(table["group"]) == {"viral 1"}
    assert (table["width"] == 50).all() and len(table) == len(scan.files)


def test_entry_with_fewer_rows_than_images_is_replaced(tmp_path):
    """Planted: a row of the table is gone, so that the others would belong to other images."""
    scan = images(tmp_path / "d")
    decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    (table,) = (tmp_path / "c").glob("*/table.csv")
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:2] + lines[3:]))
    pixels, found, _ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert len(found) == len(pixels) == len(scan.files)


def test_changed_content_makes_a_new_cache_entry(tmp_path):
    scan = images(tmp_path / "d")
    decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    Image.new("L", (40, 40), 200).save(scan.root / scan.files["file"][0])
    pixels, *_ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert np.all(np.abs(pixels[0].astype(int) - 200) < 3)


def test_damaged_image_is_listed_as_unreadable(tmp_path):
    scan = images(tmp_path / "d", damaged=1, copies=12)
    pixels, table, unreadable = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert len(pixels) == len(table) == len(scan.files) - 1
    assert unreadable["file"].tolist() == [
        scan.files["file"][scan.files["file"].str.contains("train/NORMAL")].iloc[0]
    ]
    assert table["file"].isin(unreadable["file"]).sum() == 0
    # the reason names the file as the folder of images does, not as if it began at the root
    assert unreadable["file"].item() in unreadable["reason"].item()
    assert "'/" not in unreadable["reason"].item()


def test_three_damaged_images_are_left_out_of_a_small_data_set(tmp_path):
    scan = images(tmp_path / "d", damaged=3, copies=8)
    pixels, _, unreadable = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert len(scan.files) == 80 and len(pixels) == 77 and len(unreadable) == 3


def test_image_without_permission_is_listed_as_unreadable(tmp_path):
    scan = images(tmp_path / "d")
    bad = scan.files["file"][0]
    (scan.root / bad).chmod(0)
    code = (
        "import sys; from cxr_helpers.data import decoding, layouts; "
        "*_, bad = decoding.decode_all(layouts.scan(sys.argv[1]), 16, cache_dir=sys.argv[2]); "
        "print(bad.to_csv(index=False))"
    )
    command = [*powerless(), sys.executable, "-c", code, scan.root, tmp_path / "c"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["file,reason", f"{bad},Permission denied"], done.stderr


def test_many_damaged_images_are_refused(tmp_path):
    scan = images(tmp_path / "d", damaged=4, copies=3)
    with pytest.raises(DataError, match=r"4 of 30 images cannot be read.*first train/NORMAL/"):
        decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_fingerprint_depends_on_content_not_order():
    one, two = pd.Series(["b", "a"]), pd.Series(["a", "b"])
    assert decoding.fingerprint(one) == decoding.fingerprint(two)
    # printf 'a\nb' | sha256sum
    expected = "7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78"
    assert decoding.fingerprint(one) == expected


@pytest.mark.parametrize("mapped", [False, True])
def test_many_images_are_resized_as_each_alone(tmp_path, mapped):
    images = np.random.default_rng(0).integers(0, 256, (2 * decoding.AT_ONCE + 3, 9, 9), np.uint8)
    np.save(tmp_path / "images.npy", images)
    given = np.load(tmp_path / "images.npy", mmap_mode="r") if mapped else images
    alone = np.concatenate([decoding.resize(image[None], 6) for image in images])
    assert np.array_equal(decoding.resize(given, 6), alone)
    rows = np.random.default_rng(1).permutation(len(images))[:-1]
    alone = np.concatenate([decoding.shrink(images[[row]], 6) for row in rows])
    assert np.array_equal(decoding.shrink(given, 6, rows=rows), alone)


def test_shrink_averages_blocks_of_pixels():
    image = np.array([[[0, 100], [100, 200]]], np.uint8)
    assert decoding.shrink(image, 1).tolist() == [[[100]]]
    assert decoding.shrink(image, 2).tolist() == image.tolist()


@pytest.mark.parametrize(
    "name",
    ["-x.jpeg", "a b ü.jpeg", "x😀.jpeg", "a\nb.jpeg", "$(x){y}'\".jpeg", "A.JPEG", "a,b.png"],
)
def test_unusual_file_names_are_decoded_and_kept(tmp_path, grey, name):
    make(tmp_path / "d", {place: [] for place in LAYOUT})
    for place in ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"):
        for odd in (name, "person1_virus_1.png"):
            grey.save(tmp_path / "d" / place / odd, format="PNG")
    scan = layouts.scan(tmp_path / "d")
    pixels, table, unreadable = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert len(pixels) == 8 and unreadable.empty
    assert table["file"].tolist() == scan.files["file"].tolist()


def test_incomplete_cache_entry_is_removed_and_replaced(tmp_path):
    scan = images(tmp_path / "d")
    decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    (entry,) = (tmp_path / "c").iterdir()
    left = tmp_path / "c" / f"{files.PARTIAL}999999999-abc"
    entry.rename(left)  # as after a kill
    (left / "table.csv").unlink()
    pixels, *_ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert len(pixels) == len(scan.files) and entry.is_dir()
    assert not left.exists()


def test_concurrent_runs_fill_the_cache_once(tmp_path):
    scan = images(tmp_path / "d", copies=10)
    code = (
        "import sys; from cxr_helpers.data import decoding, layouts; "
        "p, *_ = decoding.decode_all(layouts.scan(sys.argv[1]), 64, cache_dir=sys.argv[2]); "
        "print(int(p.sum(dtype='int64')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "d"), str(tmp_path / "c")]
    root = Path(decoding.__file__).parents[2]
    runs = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) for _ in range(3)]
    sums = {run.communicate(timeout=60)[0] for run in runs}
    assert {run.returncode for run in runs} == {0} and len(sums) == 1
    pixels, *_ = decoding.decode_all(scan, 64, cache_dir=tmp_path / "c")
    assert int(pixels.sum(dtype="int64")) == int(sums.pop())
    assert len(list((tmp_path / "c").iterdir())) == 1


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(("damaged", "copies"), [(0, 3), (2, 3)])
def test_cache_is_filled_where_mapped_files_are_locked(tmp_path, damaged, copies):
    """On Windows, a folder with a mapped file cannot be renamed, and the file not be replaced."""
    scan = images(tmp_path / "d", damaged=damaged, copies=copies)
    for _ in range(2):  # from the files, then from the cache
        pixels, table, unreadable = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
        assert len(pixels) == len(table) == len(scan.files) - damaged
        assert len(unreadable) == damaged and len(list((tmp_path / "c").iterdir())) == 1
    (entry,) = (tmp_path / "c").iterdir()
    (entry / "table.csv").unlink()
    again, *_ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert np.array_equal(again, pixels)


@pytest.mark.usefixtures("windows")
def test_refusal_is_not_hidden_where_mapped_files_are_locked(tmp_path):
    """The temporary folder cannot be removed yet; the next call does so."""
    scan = images(tmp_path / "d", damaged=6, copies=3)
    with pytest.raises(DataError, match="6 of 30 images cannot be read"):
        decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    good = images(tmp_path / "e")
    decoding.decode_all(good, 16, cache_dir=tmp_path / "c")
    (entry,) = (tmp_path / "c").iterdir()
    assert not entry.name.startswith(files.PARTIAL)


@pytest.mark.parametrize("damage", ["short", "empty", "gone", "objects"])
def test_damaged_cache_entry_is_replaced(tmp_path, damage):
    scan = images(tmp_path / "d")
    first = np.array(decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")[0])
    (entry,) = (tmp_path / "c").iterdir()
    path = entry / "pixels.npy"
    content = {"short": path.read_bytes()[:-9], "empty": b""}
    if damage == "gone":
        path.unlink()
    elif damage == "objects":
        np.save(path, np.array([Evil(tmp_path / "PWNED")], dtype=object))
    else:
        path.write_bytes(content[damage])
    again, *_ = decoding.decode_all(scan, 16, cache_dir=tmp_path / "c")
    assert np.array_equal(first, again) and not (tmp_path / "PWNED").exists()


def test_full_disk_raises_os_error(tmp_path):
    """Without allocated space, the mapped write would end the process with SIGBUS."""
    images(tmp_path / "d", copies=40)
    code = (
        "import sys; from cxr_helpers.data import decoding, layouts\n"
        "try: decoding.decode_all(layouts.scan(sys.argv[1]), 128, cache_dir=sys.argv[2])\n"
        "except OSError as error: sys.exit(str(error))"
    )
    with small_disk(tmp_path / "c", 1_000_000) as disk:
        command = [sys.executable, "-c", code, str(tmp_path / "d"), str(disk)]
        root = Path(decoding.__file__).parents[2]
        done = subprocess.run(command, cwd=root, stderr=subprocess.PIPE, text=True, timeout=60)
        left = list(disk.iterdir())
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert left == []


def test_resize_keeps_grey_levels_and_suppresses_aliasing():
    stripes = np.tile(np.array([0, 255], np.uint8), (3, 32, 16))
    small = decoding.resize(stripes, 8)
    assert small.shape == (3, 8, 8) and small.dtype == np.uint8
    assert np.abs(small.astype(int) - 127).max() < 12
    assert (decoding.resize(np.full((2, 10, 10), 77, np.uint8), 15) == 77).all()

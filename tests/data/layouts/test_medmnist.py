import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import class_names, decoding, ingestion, layouts, sources
from cxr_helpers.data.layouts import medmnist
from cxr_helpers.system.errors import DataError

COUNTS = {"train": 12, "val": 4, "test": 6}


def arrays(size=28, channel=False):
    """Return the arrays of a small file: image i of a split is grey with the value i."""
    found = {}
    for split, n in COUNTS.items():
        images = np.repeat(np.arange(n, dtype=np.uint8), size * size).reshape(n, size, size)
        found[f"{split}_images"] = images[..., None] if channel else images
        found[f"{split}_labels"] = (np.arange(n, dtype=np.uint8) % 2)[:, None]
    return found


def saved(path, **changes):
    np.savez_compressed(path, **arrays() | changes)
    return path


@pytest.mark.parametrize("size", [28, 64, 128, 224])
@pytest.mark.parametrize("channel", [False, True])
def test_images_labels_and_splits_are_read(tmp_path, size, channel):
    path = saved(tmp_path / "x.npz", **arrays(size, channel))
    scan = layouts.scan(path)
    assert scan.root == path and scan.ignored.empty
    assert scan.files["folder"].value_counts(sort=False).to_dict() == COUNTS
    assert set(scan.files["class_name"]) == {"normal", class_names.UNKNOWN}
    row = scan.files[scan.files["folder"] == "val"].iloc[3]
    assert (row["file"], row["class_name"]) == ("val/00003", class_names.UNKNOWN)
    assert scan.image("val/00003").shape == (size, size)
    assert (scan.image("val/00003") == 3).all()
    assert list(scan.pixels) == scan.files["file"].tolist() and len(scan.pixels) == 22


def test_scan_reads_no_image(tmp_path, monkeypatch):
    read, array = [], medmnist._array
    monkeypatch.setattr(medmnist, "_array", lambda path, key: read.append(key) or array(path, key))
    scan = layouts.scan(saved(tmp_path / "x.npz"))
    assert read == ["train_labels", "val_labels", "test_labels"]
    scan.image("test/00001"), scan.image("test/00002")
    assert read[3:] == ["test_images"]


def test_equal_images_have_equal_digests(tmp_path):
    scan = layouts.scan(saved(tmp_path / "x.npz"))
    digest = decoding.digest_each(scan)
    assert digest.nunique() == 12  # grey values 0 to 11, of which val and test repeat the first
    assert scan.sha256("train/00002") == scan.sha256("test/00002") == digest[2]


def test_arrays_are_decoded_and_cached_like_files(tmp_path, monkeypatch):
    scan = layouts.scan(saved(tmp_path / "x.npz"))
    pixels, table, unreadable = decoding.decode_all(scan, 40, cache_dir=tmp_path / "c")
    assert pixels.shape == (22, 40, 40) and unreadable.empty
    assert pixels[:, 5, 5].tolist() == [*range(12), *range(4), *range(6)]
    facts = table[["width", "height", "mode", "rotated"]].drop_duplicates().values.tolist()
    assert facts == [[28, 28, "L", False]]
    monkeypatch.setattr(decoding, "decode", None)
    again, *_ = decoding.decode_all(scan, 40, cache_dir=tmp_path / "c")
    assert np.array_equal(pixels, again)


@pytest.mark.parametrize("name", ["pneumoniamnist_28.npz", "x.NPZ", "images.zip"])
def test_file_is_no_archive_of_images(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        np.savez(file, **arrays())
    path = str(tmp_path / name)
    source = sources.find(path, cache_dir=tmp_path / "c")
    assert source == sources.Source(Path(name).stem, path, path)
    assert sources.fetch(path, cache_dir=tmp_path / "c") == source
    assert not (tmp_path / "c").exists()


def test_val_joins_train_and_classes_are_two(tmp_path):
    path = str(saved(tmp_path / "x.npz"))
    read = ingestion.read(
        path, size=32, framing="pad", cache_dir=tmp_path / "c", phantom_options={}
    )
    assert read.index["split"].value_counts().to_dict() == {"train": 16, "test": 6}
    assert read.name == "x.npz" and not read.test_from_train
    classes, reason = class_names.distinguishable(read.index)
    assert classes == class_names.BINARY_CLASSES and reason
    assert class_names.count_without_patient(read.index) == read.index["group"].nunique() == 22
    fingerprint, n = ingestion.identify(sources.find(path, cache_dir=tmp_path / "c"))
    assert len(fingerprint) == 64 and n == 22


OBJECTS = np.array([{}, {}], dtype=object)
IMAGES, LABELS = np.zeros((6, 28, 28), np.uint8), np.zeros((6, 1), np.uint8)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("test_images", IMAGES.astype(float), "is float64 of shape (6, 28, 28); expected uint8"),
        ("test_images", IMAGES[:, :20], "is uint8 of shape (6, 20, 28); expected"),
        ("test_images", IMAGES[..., None].repeat(3, -1), "is uint8 of shape (6, 28, 28, 3)"),
        ("test_images", OBJECTS, "is object of shape (2,)"),
        ("test_labels", OBJECTS, "is object of shape (2,); expected integers of shape (6, 1)"),
        ("test_labels", LABELS[:5], "is uint8 of shape (5, 1); expected integers of shape (6, 1)"),
        ("test_labels", LABELS.repeat(14, 1), "is uint8 of shape (6, 14)"),
        ("test_labels", LABELS + 2, "holds 2; expected 0 (normal) and 1 (pneumonia)"),
    ],
)
def test_array_of_another_form_is_refused_by_file_and_key(tmp_path, key, value, message):
    path = saved(tmp_path / "x.npz", **{key: value})
    with pytest.raises(DataError) as error:
        layouts.scan(path)
    assert str(error.value).startswith(f"x.npz: {key} {message}") and "\n" not in str(error.value)


def test_images_of_two_sizes_are_refused(tmp_path):
    path = saved(tmp_path / "x.npz", val_images=np.zeros((4, 32, 32), np.uint8))
    with pytest.raises(DataError, match=r"x\.npz: images differ in size: train_images \(12, 28"):
        layouts.scan(path)


def test_missing_array_is_refused_with_the_expected_keys(tmp_path):
    content = arrays()
    del content["val_labels"]
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(DataError, match=r"x\.npz: val_labels is missing; expected train_images, "):
        layouts.scan(tmp_path / "x.npz")


def test_one_class_alone_is_refused(tmp_path):
    path = saved(tmp_path / "x.npz", test_labels=np.ones((6, 1), np.uint8))
    with pytest.raises(DataError, match=r"x\.npz: test has 0 images of normal; at least 2"):
        layouts.scan(path)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4" + bytes(50)])
def test_file_that_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    source = sources.find(str(tmp_path / "x.npz"), cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"^x\.npz: train_images cannot be read: "):
        ingestion.identify(source)


@pytest.mark.parametrize("position", [0.3, 0.6])
def test_damaged_images_are_refused(tmp_path, position):
    path = tmp_path / "x.npz"
    content = arrays()
    content["train_images"] = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    np.savez_compressed(path, **content)
    damaged = bytearray(path.read_bytes())
    start = damaged.index(b"train_images.npy") + 16
    damaged[start + int(9000 * position)] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"x\.npz: train_images cannot be read: "):
        ingestion.identify(sources.find(str(path), cache_dir=tmp_path))


def test_header_of_an_array_too_large_for_the_memory_is_refused(tmp_path):
    header = io.BytesIO()
    shape = (10**6, 224, 224)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("train_images.npy", header.getvalue())
    with pytest.raises(DataError, match=r"train_images would take 50,176,000,000 bytes of memory"):
        layouts.scan(tmp_path / "x.npz")


def test_objects_in_a_file_are_not_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "PWNED").touch, ()

    path = saved(tmp_path / "x.npz", train_labels=np.array([[Evil()]] * 12, dtype=object))
    with pytest.raises(DataError, match="train_labels is object"):
        layouts.scan(path)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("content", [b"text", b"PK\3\4"])
def test_other_files_are_not_recognised(tmp_path, content):
    (tmp_path / "images.zip").write_bytes(content)
    assert medmnist.recognise(tmp_path / "images.zip") is None
    assert medmnist.recognise(tmp_path) is None


def test_preview_and_notes_need_no_pixels(tmp_path, monkeypatch):
    path = str(saved(tmp_path / "x.npz"))
    monkeypatch.setattr(medmnist._Pixels, "__getitem__", None)
    assert isinstance(ingestion.preview(path, n_phantoms=0, seed=0), pd.DataFrame)
    kind, patient = ingestion.notes(path)
    assert "bacterial or viral" in kind and "22 of 22" in patient

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from folders import make
from PIL import Image

from cxr_helpers.data import dataset, decoding, ingestion, sources
from cxr_helpers.phantoms import rendering
from cxr_helpers.pipeline.stages import Stage
from cxr_helpers.system.errors import DataError


@pytest.fixture
def earlier(tmp_path):
    """Return the images of a run: two in each split, all of grey level 1."""
    index = pd.DataFrame({"split": np.repeat(dataset.SPLITS, 2), "class_name": "normal"})
    index["file"] = [f"old {i}" for i in range(len(index))]
    index["group"] = "normal 1"
    facts = {"name": "old images", "synthetic": False, "fingerprint": "f"}
    stage = Stage("01_data", run_dir=tmp_path)
    return dataset.save(stage, np.ones((len(index), 8, 8), np.uint8), index, facts)


def new(*splits, size=8, **changes):
    """Return a source of images of grey level 2."""
    index = pd.DataFrame({"split": splits, "class_name": "viral", "group": "viral 1"})
    index["file"] = [f"new {i}" for i in range(len(index))]
    nothing = pd.DataFrame(columns=["file", "reason"])
    options = {"name": "new images", "synthetic": False, "fingerprint": "g", "truth": {"masks": 1}}
    images = np.full((len(index), size, size), 2, np.uint8)
    return ingestion.ImageSet(
        **options | changes, images=images, index=index, ignored=nothing, unreadable=nothing
    )


def test_only_test_images_are_replaced(earlier, tmp_path):
    combined = ingestion.as_test(new("train", "test", "test"), earlier, cache_dir=tmp_path)
    assert combined.index["file"].tolist() == [*(f"old {i}" for i in range(6)), "new 1", "new 2"]
    assert combined.index["split"].tolist() == [
        *("train", "train", "validation", "validation", "contiguous", "contiguous"),
        *("test", "test"),
    ]
    assert combined.images[:, 0, 0].tolist() == [1] * 6 + [2, 2]
    assert combined.name == "new images, scored by the models of old images"
    assert combined.fingerprint == "g" and combined.truth == {} and not combined.synthetic


@pytest.mark.parametrize("change", ["test_from_train", "synthetic"])
def test_all_images_become_test_images_without_a_published_test_set(earlier, change, tmp_path):
    combined = ingestion.as_test(
        new("train", "test", **{change: True}), earlier, cache_dir=tmp_path
    )
    assert combined.index["file"].tolist()[6:] == ["new 0", "new 1"]
    assert (combined.index["split"][6:] == "test").all() and not combined.test_from_train
    assert combined.synthetic == (change == "synthetic")


def test_images_of_another_size_are_refused(earlier, tmp_path):
    with pytest.raises(DataError, match="16 pixels cannot be scored by models for images of 8"):
        ingestion.as_test(new("test", size=16), earlier, cache_dir=tmp_path)


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_detail_is_kept_at_the_size_of_the_earlier_run(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(ingestion.array_files, "IN_MEMORY", in_memory)
    index = pd.DataFrame({"split": np.repeat(dataset.SPLITS, 2), "class_name": "normal"})
    index["file"], index["group"] = [f"old {i}" for i in range(len(index))], "normal 1"
    images, facts = np.ones((8, 8, 8), np.uint8), {"name": "old images", "synthetic": False}
    stage = Stage("01_data", run_dir=tmp_path)
    detail = np.ones((8, 12, 12), np.uint8)
    earlier = dataset.save(stage, images, index, facts, detail=detail)
    larger = np.full((2, 20, 20), 2, np.uint8)
    for source in (new("test", "test"), new("test", "test", detail=larger)):
        combined = ingestion.as_test(source, earlier, cache_dir=tmp_path)
        assert combined.detail.shape == (8, 12, 12)
        assert combined.detail[:, 0, 0].tolist() == [1] * 6 + [2, 2]
        assert combined.images[:, 0, 0].tolist() == [1] * 6 + [2, 2]
        assert isinstance(combined.images, np.memmap) == (in_memory == 0)


def test_changed_labels_are_other_data(tmp_path, monkeypatch):
    """The files and their names are the same."""
    source = sources.find(str(make(tmp_path / "a")), cache_dir=tmp_path)
    before = ingestion.identify(source)
    scan = ingestion.layouts.scan(source.located)
    viral = scan.files["class_name"] == "viral"
    for change in ({"class_name": "bacterial"}, {"folder": "val"}, {"group": "viral 99"}):
        files = scan.files.copy()
        for name, value in change.items():
            files.loc[viral, name] = value
        changed = replace(scan, files=files)
        monkeypatch.setattr(ingestion.layouts, "scan", lambda _, changed=changed: changed)
        after = ingestion.identify(source)
        assert after[0] != before[0] and after[1] == before[1], change


def test_images_are_decoded_once_for_both_sizes(tmp_path):
    for place, level in (("NORMAL", 60), ("PNEUMONIA", 200)):
        for split in ("train", "test"):
            folder = tmp_path / "d" / split / place
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(np.full((40, 40), level + i, np.uint8)).save(folder / f"{i}.png")
    options = {"framing": "squeeze", "cache_dir": tmp_path / "c", "phantom_options": {}}
    read = ingestion.read(str(tmp_path / "d"), size=16, detail_size=24, **options)
    assert read.images.shape == (8, 16, 16) and read.detail.shape == (8, 24, 24)
    assert np.array_equal(read.images[:, 0, 0], read.detail[:, 0, 0])
    assert len(list((tmp_path / "c" / ingestion.DECODED).iterdir())) == 1
    assert ingestion.read(str(tmp_path / "d"), size=16, detail_size=16, **options).detail is None


def test_many_phantoms_are_drawn_into_files_once(tmp_path, monkeypatch):
    phantoms = {"n": 70, "seed": 1, "lesion_contrast": 1.5, "marker_bias": 0.5}
    options = {"size": 32, "framing": "squeeze", "cache_dir": tmp_path, "phantom_options": phantoms}
    in_memory = ingestion.read("phantom", **options)
    monkeypatch.setattr(ingestion, "IN_MEMORY", 60)
    in_files = ingestion.read("phantom", **options)
    assert isinstance(in_files.images, np.memmap) and in_memory.decoded == ""
    assert (tmp_path / ingestion.DECODED / in_files.decoded).is_dir()
    assert np.array_equal(in_files.images, in_memory.images)
    assert in_files.fingerprint == in_memory.fingerprint
    for name, array in in_memory.truth.items():
        assert np.array_equal(in_files.truth[name], array) and in_files.truth[name].dtype == bool
    pd.testing.assert_frame_equal(in_files.index, in_memory.index)
    monkeypatch.setattr(rendering, "stream", None)  # drawing again would fail
    assert ingestion.read("phantom", **options).decoded == in_files.decoded
    assert len(list((tmp_path / ingestion.DECODED).iterdir())) == 1


@pytest.mark.parametrize("damage", ["images.npy", "index.csv"])
def test_phantoms_are_drawn_again_where_their_files_are_damaged(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(ingestion, "IN_MEMORY", 5)
    phantoms = {"n": 8, "seed": 1}
    options = {"size": 32, "framing": "squeeze", "cache_dir": tmp_path, "phantom_options": phantoms}
    first = ingestion.read("phantom", **options)
    path, pixels = tmp_path / ingestion.DECODED / first.decoded / damage, np.array(first.images)
    if damage == "index.csv":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:500])
    again = ingestion.read("phantom", **options)
    assert np.array_equal(again.images, pixels) and again.decoded == first.decoded


def test_other_phantoms_are_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr(ingestion, "IN_MEMORY", 5)
    options = {"framing": "squeeze", "cache_dir": tmp_path}
    keys = {
        ingestion.read("phantom", size=size, phantom_options=phantoms, **options).decoded
        for size, phantoms in (
            (32, {"n": 6, "seed": 0}), (36, {"n": 6, "seed": 0}), (32, {"n": 6, "seed": 1}),
            (32, {"n": 7, "seed": 0}), (32, {"n": 6, "seed": 0, "marker_bias": 1.0}),
        )
    }  # fmt: skip
    assert len(keys) == 5


def test_smaller_images_are_kept_beside_the_larger(tmp_path):
    for place in ("NORMAL", "PNEUMONIA"):
        for split in ("train", "test"):
            folder = tmp_path / "d" / split / place
            folder.mkdir(parents=True)
            for i in range(2):
                grey = np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)
                Image.fromarray(grey).save(folder / f"{i}.png")
    options = {"framing": "squeeze", "cache_dir": tmp_path / "c", "phantom_options": {}}
    read = ingestion.read(str(tmp_path / "d"), size=16, detail_size=24, **options)
    assert np.array_equal(read.images, decoding.resize(read.detail, 16))
    kept = tmp_path / "c" / ingestion.DECODED / read.decoded / "pixels-16.npy"
    expected = np.array(read.images)
    del read
    kept.write_bytes(kept.read_bytes()[:200])  # damaged: written again
    again = ingestion.read(str(tmp_path / "d"), size=16, detail_size=24, **options)
    assert np.array_equal(again.images, expected)

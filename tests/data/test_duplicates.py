import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_helpers.data import duplicates
from cxr_helpers.phantoms import rendering


@pytest.fixture(scope="module")
def images():
    drawn = rendering.render(n=40, size=96)
    index = drawn.index[["file", "split", "class_name"]].copy()
    index["group"] = index["class_name"] + " " + drawn.index["patient"].astype(str)
    index["sha256"] = [f"{i:064d}" for i in range(40)]
    return drawn.images, index


def with_copy(images, picture, *, split, sha256="copy", class_name=None, group="other 1"):
    """Return the images and an additional one, in ``split``."""
    images, index = images
    row = index.iloc[[0]].assign(split=split, sha256=sha256, group=group, file="copy.png")
    if class_name:
        row["class_name"] = class_name
    return np.concatenate([images, picture[None]]), pd.concat([index, row], ignore_index=True)


def reencoded(image, **options):
    """Return an image that was resized and saved as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).resize((140, 150)).save(buffer, "JPEG", **options)
    size = image.shape[::-1]
    with Image.open(buffer) as image:
        return np.asarray(image.resize(size))


def test_different_images_are_not_duplicates(images):
    assert duplicates.find(*images).empty


def test_equal_digest_is_an_exact_duplicate(images):
    images, index = with_copy(images, images[0][5], split="train", sha256=images[1]["sha256"][5])
    (pair,) = duplicates.find(images, index).itertuples()
    assert (pair.first, pair.second, pair.kind, pair.difference) == (5, 40, "exact", 0)


@pytest.mark.parametrize("quality", [95, 50])
def test_reencoded_image_is_a_near_duplicate(images, quality):
    copy = reencoded(images[0][5], quality=quality)
    (pair,) = duplicates.find(*with_copy(images, copy, split="train")).itertuples()
    assert (pair.first, pair.second, pair.kind) == (5, 40, "near")


@pytest.mark.parametrize("side", [3, 16, 30, 45])
def test_pairs_are_those_that_comparing_all_images_finds(monkeypatch, side):
    """Noise with perceptual hashes that always agree: only grey levels distinguish the images."""
    monkeypatch.setattr(duplicates, "_bits", lambda image: 0)
    rng = np.random.default_rng(side)
    images = rng.integers(0, 256, (60, side, side), dtype=np.uint8)
    for copy, original in enumerate(rng.integers(0, 30, 30), start=30):
        shift = rng.choice([-9, 9], (side, side)) * (rng.random((side, side)) < rng.random())
        images[copy] = np.clip(images[original] + shift, 0, 255)
    index = pd.DataFrame({"split": "train", "class_name": "normal", "sha256": np.arange(60)})
    gaps = np.abs(images[:, None].astype(int) - images).mean(axis=(2, 3))
    expected = np.argwhere(np.triu(gaps <= duplicates.NEAR_GREY, 1))
    found = duplicates.find(images, index)
    assert 5 < len(expected) < 60
    assert np.array_equal(found[["first", "second"]], expected)
    assert found["difference"].to_numpy() == pytest.approx(gaps[tuple(expected.T)])


def test_close_images_with_another_perceptual_hash_are_no_duplicates(monkeypatch, images):
    hashes = iter([0, 2 ** (duplicates.NEAR_BITS + 1) - 1])
    monkeypatch.setattr(duplicates, "_bits", lambda image: next(hashes))
    pairs = duplicates.find(*with_copy(images, images[0][5], split="train"))
    assert pairs.empty and pairs["across_splits"].sum() == 0


def test_pairs_across_splits_and_classes_are_marked(images):
    row = images[1].index[(images[1]["split"] == "test") & (images[1]["class_name"] == "normal")][0]
    images, index = with_copy(images, images[0][row], split="train", class_name="viral")
    (pair,) = duplicates.find(images, index).itertuples()
    assert pair.across_splits and pair.across_classes


def test_training_image_with_a_copy_in_test_is_dropped(images):
    row = images[1].index[images[1]["split"] == "test"][0]
    images, index = with_copy(images, reencoded(images[0][row], quality=70), split="train")
    leaking = duplicates.leaks(index, duplicates.find(images, index))
    assert np.flatnonzero(leaking).tolist() == [40]


def test_training_image_of_a_group_in_test_is_dropped(images):
    group = images[1].loc[images[1]["split"] == "test", "group"].iloc[0]
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    images, index = with_copy(images, noise, split="train", group=group)
    leaking = duplicates.leaks(index, duplicates.find(images, index))
    assert np.flatnonzero(leaking).tolist() == [40]


def test_test_image_shared_with_the_models_is_dropped_with_its_group(images):
    """Models of an earlier run are scored: test gives way, whatever split the other copy is in."""
    train = images[1].index[images[1]["split"] == "train"][0]
    copy = reencoded(images[0][train], quality=70)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
    group = images[1]["group"][train]
    images, index = with_copy(images, copy, split="test", group="new 7")
    images, index = with_copy((images, index), noise, split="test", group=group)
    images, index = with_copy((images, index), noise.T, split="test", group="new 8")
    for split in ("train", "validation", "contiguous"):
        index.loc[train, "split"] = split
        leaking = duplicates.leaks(index, duplicates.find(images, index), drop="test")
        shared = index["group"].isin(index.loc[index["split"] != "test", "group"])
        expected = (index["split"] == "test") & (shared | (np.arange(43) == 40))
        assert np.array_equal(leaking, expected)
        assert leaking[40] and leaking[41] and not leaking[42]


@pytest.mark.parametrize(
    ("drop", "one", "other"), [("train", "test", "train"), ("test", "train", "test")]
)
def test_other_images_of_a_patient_whose_image_has_a_copy_are_dropped(drop, one, other):
    """The copies have different patient numbers: one of them is wrong, or they are one patient."""
    groups = ["normal 300", "normal 5", "normal 5", "normal 9"]
    index = pd.DataFrame({"split": [one, other, other, other], "group": groups})
    pairs = pd.DataFrame({"first": [0], "second": [1]})
    assert duplicates.leaks(index, pairs, drop=drop).tolist() == [False, True, True, False]


def test_equal_groups_without_a_shared_image_are_not_leakage(images):
    group = images[1].loc[images[1]["split"] == "train", "group"].iloc[0]
    index = images[1].copy()
    index.loc[index["split"] == "test", "group"] = group
    assert not duplicates.leaks(index, duplicates.find(images[0], index), drop="test").any()
    assert duplicates.leaks(index, duplicates.find(images[0], index)).any()


def test_unknown_side_to_drop_is_refused(images):
    with pytest.raises(ValueError, match="drop 'validation' is neither"):
        duplicates.leaks(images[1], duplicates.find(*images), drop="validation")


def test_duplicates_within_train_are_kept(images):
    row = images[1].index[images[1]["split"] == "train"][0]
    images, index = with_copy(images, images[0][row], split="train")
    assert not duplicates.leaks(index, duplicates.find(images, index)).any()

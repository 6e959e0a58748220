import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import class_names, dataset, splits
from cxr_helpers.pipeline.stages import Stage


def make_images(n=120, size=8):
    draw = np.random.default_rng(0)
    index = pd.DataFrame(
        {
            "file": [f"{i}.png" for i in range(n)],
            "split": np.array(["test", "validation", "train", "contiguous"])[np.arange(n) % 4],
            "class_name": np.array(["normal", "bacterial", "viral"])[np.arange(n) // 4 % 3],
        }
    )
    index["group"] = index["class_name"] + " " + (np.arange(n) // 4).astype(str)
    index["cluster"] = np.arange(n) // 8
    return draw.integers(0, 255, (n, size, size), dtype=np.uint8), index


@pytest.fixture
def stage(tmp_path):
    return Stage("01_data", run_dir=tmp_path)


def test_images_and_index_keep_their_order_when_sorted_by_split(stage):
    images, index = make_images()
    saved = dataset.save(stage, images, index, {"synthetic": True}, truth={"mask": images > 99})
    stage.finish()
    loaded = dataset.load(Stage("02_binary", run_dir=stage.run_dir))
    with loaded.evaluation():
        assert loaded.index["split"].tolist() == [s for s in dataset.SPLITS for _ in range(30)]
        rows = [int(name.removesuffix(".png")) for name in loaded.index["file"]]
        assert np.array_equal(loaded.images, images[rows])
        for split in dataset.SPLITS:
            assert (loaded[split].index["file"].isin(index["file"][index["split"] == split])).all()
    assert np.array_equal(np.load(stage.folder / "mask.npy"), np.asarray(saved.images) > 99)
    assert loaded.facts["image_size"] == 8 and loaded.synthetic


def test_category_is_the_position_of_the_class_and_minus_one_if_unknown(stage):
    images, index = make_images(12)
    index.loc[6, "class_name"] = "unknown subtype"
    part = dataset.save(stage, images, index, {"synthetic": False})["train"]
    assert part.index["class_name"].tolist() == ["normal", "unknown subtype", "viral"]
    assert part.pneumonia.tolist() == [0, 1, 1]
    assert part.category.tolist() == [0, -1, 2]
    assert len(part.where(part.category >= 0)) == 2


def test_with_two_classes_all_pneumonia_has_label_one(stage):
    images, index = make_images(24)
    index.loc[index["class_name"] == "viral", "class_name"] = "unknown subtype"
    index = class_names.relabelled(index, class_names.BINARY_CLASSES)
    facts = {
        "synthetic": False,
        "classes": class_names.BINARY_CLASSES,
        "two_class_reason": "no name gives the kind",
    }
    data = dataset.save(stage, images, index, facts)
    part = data["train"]
    assert data.classes == part.classes == part.where(part.pneumonia == 1).classes
    assert part.category.tolist() == part.pneumonia.tolist() == [0, 1, 1, 0, 1, 1]
    assert not data.three_classes
    assert list(dataset.counts(index)) == ["split", "normal", "pneumonia", "all"]


@pytest.mark.parametrize("without_patient", [0, 3])
def test_caption_names_what_the_bootstrap_resamples(stage, without_patient):
    facts = {"synthetic": False, "without_patient": without_patient}
    drawn = dataset.save(stage, *make_images(), facts).resampled
    assert drawn.startswith("whole patient groups") and drawn.endswith("drawn within each class")
    assert ("single images without patient number" in drawn) == bool(without_patient)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({}, "random groups, contiguous blocks"),
        ({"contiguous": "train"}, "random groups"),
        ({"validation": "test", "contiguous": "test"}, ""),
    ],
)
def test_caption_names_the_validation_splits_that_have_images(stage, split, expected):
    images, index = make_images()
    index["split"] = [split.get(name, name) for name in index["split"]]
    assert dataset.save(stage, images, index, {"synthetic": True}).validation_splits == expected


def test_images_of_a_split_are_a_memory_mapped_view(stage):
    images, index = make_images()
    train = dataset.save(stage, images, index, {"synthetic": True})["train"]
    assert isinstance(train.images, np.memmap)


@pytest.mark.usefixtures("windows")
def test_data_are_written_again_while_they_are_in_use(stage):
    """01_data run again in a live kernel, on Windows: what is mapped cannot be replaced."""
    images, index = make_images()
    facts = {"synthetic": True}
    first = dataset.save(stage, images, index, facts, detail=images)
    part = first["train"]
    again = dataset.save(stage, 255 - images, index, facts, detail=255 - images)
    assert np.array_equal(again.images, 255 - first.images)
    assert np.array_equal(again["train"].detail, 255 - part.detail)


def test_development_holds_out_clusters_of_train_without_validation(stage):
    images, index = make_images()
    index["split"] = index["split"].replace({"validation": "train", "contiguous": "train"})
    train, validation = dataset.save(stage, images, index, {"synthetic": True}).development(seed=0)
    assert len(train) + len(validation) == 90 and len(validation)
    assert set(train.index["cluster"]).isdisjoint(validation.index["cluster"])


@pytest.mark.parametrize("seed", range(10))
def test_minimum_number_of_groups_suffices_for_development(seed):
    """Where there is no validation split; detectors need at least three normal images to fit."""
    least = splits.MINIMUM_GROUPS["train"]
    index = pd.DataFrame({"split": "train", "class_name": ["normal", "viral"] * least})
    index["cluster"] = np.arange(2 * least)
    data = dataset.Dataset(np.zeros((2 * least, 2, 2), np.uint8), index, {"synthetic": True})
    train, validation = data.development(seed=seed)
    assert (train.pneumonia == 0).sum() >= 3 and set(validation.pneumonia) == {0, 1}


def test_counts_have_row_and_column_sums():
    table = dataset.counts(make_images()[1]).set_index("split")
    assert table.loc["all", "all"] == 120
    assert table.loc["train", ["normal", "bacterial", "viral"]].tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("column", "message"), [("split", "unknown split"), ("class_name", "unknown class_name")]
)
def test_unknown_split_or_class_name_is_refused(stage, column, message):
    images, index = make_images(9)
    index.loc[0, column] = "other"
    with pytest.raises(ValueError, match=message):
        dataset.save(stage, images, index, {})


def test_numbers_of_rows_and_images_must_agree(stage):
    images, index = make_images(9)
    with pytest.raises(ValueError, match="8 images but 9 rows"):
        dataset.save(stage, images[:8], index, {})


def test_access_to_an_unknown_split_is_refused(stage):
    data = dataset.save(stage, *make_images(9), {"synthetic": True})
    with pytest.raises(ValueError, match="'val' is not one of"):
        data["val"]


@pytest.mark.parametrize(
    ("choose_by", "split"), [("group", "validation"), ("contiguous", "contiguous")]
)
def test_selection_split_follows_choose_by_and_all_splits_are_scored(stage, choose_by, split):
    data = dataset.save(stage, *make_images(), {"synthetic": True, "choose_by": choose_by})
    assert (data.selection.index["split"] == split).all()
    assert data.scored() == ["validation", "contiguous", "test"]


def test_object_arrays_are_not_unpickled(stage, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "PWNED").touch, ()

    dataset.save(stage, *make_images(9), {"synthetic": True})
    np.save(stage.folder / "images.npy", np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match="objects"):
        dataset.read(stage.folder)
    assert not (tmp_path / "PWNED").exists()


def test_detail_follows_the_order_of_the_images_through_splits_and_masks(stage):
    images, index = make_images()
    detail = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    saved = dataset.save(stage, images, index, {"synthetic": True}, detail=detail)
    for part in (saved, saved["validation"], saved["train"].where(np.arange(30) % 2 == 0)):
        assert np.array_equal(part.detail[:, ::2, ::2], part.images)
        assert part.at(8) is part.images and part.at(12).shape == (len(part), 12, 12)
    twice = saved["train"].where(np.arange(30) % 2 == 0).where(np.arange(15) % 3 == 0)
    assert len(twice) == 5 and np.array_equal(twice.detail[:, ::2, ::2], twice.images)
    assert saved.facts["detail_size"] == 16


def test_without_detail_the_images_are_the_largest_there_are(stage):
    images, index = make_images()
    saved = dataset.save(stage, images, index, {"synthetic": True})
    assert saved.detail is saved.images and saved.facts["detail_size"] == 0
    assert saved["test"].at(4).shape == (30, 4, 4)


def test_trainable_images_are_all_but_those_of_test(stage):
    images, index = make_images()
    saved = dataset.save(stage, images, index, {"synthetic": True})
    trainable = saved.trainable
    assert set(trainable.index["split"]) == set(dataset.SPLITS) - {"test"}
    assert len(trainable) == 90 and np.array_equal(trainable.images, saved.images[:90])


def test_a_mask_that_keeps_all_images_copies_none(stage):
    images, index = make_images()
    train = dataset.save(stage, images, index, {"synthetic": True})["train"]
    assert train.where(np.ones(30)) is train
    assert len(train.where(np.arange(30) > 9)) == 20


def test_rows_that_are_left_out_are_not_written(stage):
    images, index = make_images()
    kept = np.flatnonzero(np.arange(len(images)) % 3)
    truth, detail = {"mask": images > 99}, np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    options = {"truth": truth, "detail": detail}
    facts = {"synthetic": True}
    rows = index.iloc[kept].reset_index(drop=True)
    dataset.save(stage, images, rows, facts, **options, rows=kept)
    names = ("images.npy", "detail.npy", "mask.npy", "index.csv", "dataset.json")
    written = [(stage.folder / name).read_bytes() for name in names]
    options = {"truth": {"mask": truth["mask"][kept]}, "detail": detail[kept]}
    dataset.save(stage, images[kept], rows, facts, **options)
    assert written == [(stage.folder / name).read_bytes() for name in names]

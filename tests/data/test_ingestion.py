import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import dataset, ingestion
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
    said = {"name": "new images", "synthetic": False, "fingerprint": "g", "truth": {"masks": 1}}
    images = np.full((len(index), size, size), 2, np.uint8)
    return ingestion.ImageSet(
        **said | changes, images=images, index=index, ignored=nothing, unreadable=nothing
    )


def test_only_test_is_new(earlier):
    made = ingestion.as_test(new("train", "test", "test"), earlier)
    assert made.index["file"].tolist() == [*(f"old {i}" for i in range(6)), "new 1", "new 2"]
    assert made.index["split"].tolist() == [
        *("train", "train", "validation", "validation", "contiguous", "contiguous"),
        *("test", "test"),
    ]
    assert made.images[:, 0, 0].tolist() == [1] * 6 + [2, 2]
    assert made.name == "new images, scored by the models of old images"
    assert made.fingerprint == "g" and made.truth == {} and not made.synthetic


@pytest.mark.parametrize("change", ["test_from_train", "synthetic"])
def test_without_a_test_of_their_own_all_images_are_scored(earlier, change):
    made = ingestion.as_test(new("train", "test", **{change: True}), earlier)
    assert made.index["file"].tolist()[6:] == ["new 0", "new 1"]
    assert (made.index["split"][6:] == "test").all() and not made.test_from_train
    assert made.synthetic == (change == "synthetic")


def test_images_of_another_size_are_refused(earlier):
    with pytest.raises(DataError, match="16 pixels cannot be scored by models of 8"):
        ingestion.as_test(new("test", size=16), earlier)

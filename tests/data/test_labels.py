import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from cxr_helpers.data import dataset
from cxr_helpers.data.labels import LabelsWithheld
from cxr_helpers.evaluation.scorecard import Scorecard
from cxr_helpers.pipeline.stages import Stage


@pytest.fixture
def radiographs():
    index = pd.DataFrame({"split": np.repeat(["train", "validation", "test"], 20), "width": 9})
    index["class_name"] = ["normal", "viral"] * 30
    index["file"] = index["class_name"] + ".png"
    index["group"] = index["class_name"] + " 1"
    index["severity"], index["border_normal"] = index["class_name"] != "normal", 0.4
    return dataset.Dataset(np.zeros((60, 2, 2), np.uint8), index, {"synthetic": True})


READINGS = {
    "category": lambda data: data.category,
    "pneumonia": lambda data: data.pneumonia,
    "test": lambda data: data["test"].pneumonia,
    "of some test images": lambda data: data["test"].where(np.arange(20) < 9).category,
    "not train": lambda data: data.index["class_name"][data.index["split"] != "train"],
    "columns": lambda data: data.index[["split", "class_name"]],
    "rows first": lambda data: data.index.iloc[40:]["class_name"],
    "mask first": lambda data: data.index[data.index["split"] == "test"]["class_name"],
    "file names": lambda data: data["test"].index["file"],
    "patient groups": lambda data: data.index["group"],
    "severity": lambda data: data["test"].index["severity"],
    "scores": lambda data: Scorecard(data).binary("row", y_pred=np.zeros(60, int)),
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
def test_test_labels_are_withheld_until_evaluation_is_declared(radiographs, read):
    with pytest.raises(LabelsWithheld, match=r"radiographs\.evaluation\(\)"):
        read(radiographs)
    radiographs.evaluation()  # outside a notebook this alone declares nothing
    with pytest.raises(LabelsWithheld):
        read(radiographs)
    with radiographs.evaluation():
        read(radiographs)
    with pytest.raises(LabelsWithheld):
        read(radiographs)


@pytest.mark.parametrize(
    "read",
    [
        lambda index: index.loc[:, "class_name"],
        lambda index: index.class_name,
        lambda index: index.groupby("class_name").size(),
        lambda index: index.query("class_name == 'normal'"),
    ],
)
def test_withheld_labels_cannot_be_read_through_pandas(radiographs, read):
    with pytest.raises((LabelsWithheld, KeyError, AttributeError, NameError)):
        read(radiographs.index)
    assert "viral" not in radiographs.index.to_csv()


def test_columns_that_do_not_reveal_the_class_are_visible(radiographs):
    assert (radiographs.index["split"] == "test").sum() == 20 == len(radiographs["test"])
    assert radiographs.index[["width", "border_normal"]].to_numpy().shape == (60, 2)


def test_labels_of_train_and_validation_are_visible(radiographs):
    for name in ("train", "validation"):
        assert radiographs[name].pneumonia.sum() == 10
        assert set(radiographs[name].index["class_name"]) == {"normal", "viral"}


def test_declaration_ends_with_the_notebook_cell(radiographs):
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        shell.user_ns["radiographs"] = radiographs

        def cell(text):
            return shell.run_cell(text, store_history=True, silent=False)

        cell("radiographs.evaluation()\ntest = radiographs['test']\nread = test.pneumonia")
        assert shell.user_ns["read"].sum() == 10
        for text in ("test.pneumonia", "radiographs.category"):
            assert isinstance(cell(text).error_in_exec, LabelsWithheld)
    finally:
        InteractiveShell.clear_instance()


def test_test_images_are_in_random_order(tmp_path):
    """Folders are sorted by class: position must not reveal it."""
    stage = Stage("01_data", run_dir=tmp_path)
    n = 200
    index = pd.DataFrame({"split": ["test"] * n, "class_name": np.repeat(["normal", "viral"], 100)})
    index["file"], index["group"] = index.index.astype(str), "1"
    saved = dataset.save(stage, np.zeros((n, 2, 2), np.uint8), index, {})
    with saved.evaluation():
        first_half = saved.pneumonia[:100].mean()
    assert 0.35 < first_half < 0.65

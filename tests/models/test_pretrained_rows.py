"""The rows of a network from ImageNet in chapter 3, with weights of this test's own."""

from __future__ import annotations

import dataclasses
from functools import partial

import cells
import keras
import numpy as np
import pytest
from test_notebook_cells import Published, radiographs

from cxr_helpers.evaluation import scorecard
from cxr_helpers.models import pretrained, recipes

PUBLISHED = object()  # what the published network predicted, which later cells read


def rows_of(data, monkeypatch, folder, *, name, weights="", earlier=None):
    """Run the cells that build, train and score the network; return their names and sentences."""
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    one_epoch = dataclasses.replace(pretrained.RECIPE, epochs=1, batch_size=4)
    monkeypatch.setattr(pretrained, "RECIPE", one_epoch)
    stage = cells.FakeStage(folder)
    if earlier:
        stage.earlier, stage.copy_earlier = earlier, lambda name: earlier / name
    names = cells.run(
        "03_categorical",
        *("6d90e3fa", "2e7fb0d9"),
        radiographs=data,
        stage=stage,
        classes=data.classes,
        ours_train=data["train"],
        one_hot=partial(keras.utils.to_categorical, num_classes=3),
        card=scorecard.Scorecard(data),
        table=published,
        unseen_splits=["test"],
        y_pred=PUBLISHED,
        recipe=recipes.Recipe(
            epochs=9, batch_size=9, learning_rate=1.0, crop_sizes=(32,), crop_area=0.5
        ),
        sampling_weights=None,
        ours_test_size=32,
        seed=0,
        **{"pretrained": name, "pretrained_weights": weights},
    )
    return names, published


def small(*, weights, include_top, input_tensor=None):
    """A backbone of one convolution: to trace a step of the real one takes twenty seconds."""
    tensor = keras.Input((None, None, 3)) if input_tensor is None else input_tensor
    x = keras.layers.Conv2D(8, 3, strides=32, padding="same", name="Conv1")(tensor)
    x = keras.layers.BatchNormalization(name="bn_Conv1")(x)
    model = keras.Model(keras.utils.get_source_inputs(tensor)[0], x)
    if weights:
        model.load_weights(weights)
    return model


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of random weights of the backbone."""
    own = dataclasses.replace(pretrained.BACKBONES["mobilenet_v2"], application=small)
    monkeypatch.setitem(pretrained.BACKBONES, "mobilenet_v2", own)
    small(weights=None, include_top=False).save_weights(tmp_path / "own.weights.h5")
    return tmp_path / "own.weights.h5"


@pytest.mark.slow
def test_a_file_of_weights_gives_two_rows(monkeypatch, tmp_path, weights):
    data = radiographs(train=12, test=9)
    options = {"name": "mobilenet_v2", "weights": str(weights)}
    names, published = rows_of(data, monkeypatch, tmp_path, **options)
    rows = set(names["results"]["row"])
    assert rows == {"pretrained_binary", "pretrained_categorical"}
    assert names["y_pred"] is PUBLISHED
    assert "1 epochs" in published.captions["tab-pretrained"]
    transfer = names["transfer"]
    before = pretrained.build("mobilenet_v2", classes=3, weights=str(weights)).get_weights()
    unchanged = [
        variable.path
        for variable, initial in zip(transfer.weights, before, strict=True)
        if np.array_equal(variable, initial)
    ]
    assert unchanged == [] and np.isfinite(names["y_prob"]).all()
    # a run that scores this one's models trains nothing, and predicts the same
    (tmp_path / "new").mkdir()
    monkeypatch.setattr(recipes, "fit", None)
    again, _ = rows_of(data, monkeypatch, tmp_path / "new", earlier=tmp_path, **options)
    assert np.allclose(again["y_prob"], names["y_prob"], atol=1e-6)


def test_without_a_connection_one_line_says_so_and_there_is_no_row(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise pretrained.Unavailable("pretrained=mobilenet_v2: no connection; connect once")

    monkeypatch.setattr(pretrained, "build", offline)
    data = radiographs(train=12, test=9)
    names, published = rows_of(data, monkeypatch, tmp_path, name="mobilenet_v2")
    assert published.sentences == [
        "No row for a network from ImageNet: pretrained=mobilenet_v2: no connection; connect once."
    ]
    assert "results" not in names and not published.captions


def test_no_network_is_built_by_default(monkeypatch, tmp_path):
    names, published = rows_of(radiographs(train=12, test=9), monkeypatch, tmp_path, name="")
    assert names["transfer"] is None and not published.sentences

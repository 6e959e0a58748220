"""A network is one file: it is trained, scored, searched for neighbours, and explained."""

import sys
from types import SimpleNamespace

import cells
import keras
import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import dataset
from cxr_helpers.evaluation import scorecard, tables
from cxr_helpers.explain import measures
from cxr_helpers.models import networks
from cxr_helpers.pipeline import results
from cxr_helpers.pipeline.graph import Graph
from cxr_helpers.pipeline.runs import Run

FILE = """
from cxr_helpers.models.networks import Network

def build(image_size, classes):
    import keras
    from keras import layers
    return keras.Sequential([
        keras.Input((image_size, image_size, 1)),
        layers.Conv2D(4, 3, padding="same", activation="relu", name="features"),
        layers.GlobalAveragePooling2D(name="embedding"),
        layers.Dense(classes, activation="softmax", name="category"),
    ])

NETWORK = Network("tiny", "Tiny network", build, feature_map="features", epochs=25, batch_size=20,
                  learning_rate=0.05, average=0.0)
"""


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Add the one file to the package."""
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "planted_tiny.py").write_text(FILE)
    path = [*networks.__path__, str(tmp_path / "networks")]
    monkeypatch.setattr(networks, "__path__", path)
    return tmp_path


@pytest.fixture
def radiographs():
    """Return images in which normal is dark, bacterial has a bright left half, viral a right."""
    names = np.array(["normal", "bacterial", "viral"])[np.arange(180) % 3]
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (180, 16, 16))
    images[names == "bacterial", :, :8] += 190
    images[names == "viral", :, 8:] += 90
    index = pd.DataFrame(
        {"class_name": names, "split": np.repeat(["train", "validation", "test"], 60)}
    )
    index["group"] = [f"{name} {i}" for i, name in enumerate(names)]
    index["border_normal"] = 0.5
    return dataset.Dataset(images.astype(np.uint8), index, {"synthetic": True, "image_size": 16})


def test_added_network_is_found(added):
    assert "tiny" in [network.id for network in networks.registered()]


def test_added_network_has_rows_in_table_one_after_ours(added, tmp_path):
    rows = [row.id for row in results.rows(Run(tmp_path))]
    assert rows.index("tiny_binary") > rows.index("knn_ours")
    assert {"tiny_categorical", "knn_tiny"} <= set(rows)
    scores = scorecard.unavailable("tiny_binary", "test", 9)
    assert list(tables.table_one(scores, results.rows(Run(tmp_path)))["Row"]) == ["Tiny network"]
    assert isinstance(Run(tmp_path).graph, Graph)


def test_added_network_is_trained_scored_and_explained(added, radiographs, monkeypatch):
    stage, shown, sentences = cells.FakeStage(added), {}, []
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", sentences.append)
    card = scorecard.Scorecard(radiographs)
    common = {"radiographs": radiographs, "stage": stage, "size": 16, "seed": 0}
    classes = radiographs.classes
    names = cells.run(
        "03_categorical",
        *("3f0a9d21", "8c1b7e44"),
        train=radiographs["train"],
        validation=radiographs["validation"],
        classes=classes,
        one_hot=lambda category: keras.utils.to_categorical(category, 3),
        card=card,
        table=lambda table, *, id, caption: shown.update({id: (table, caption)}),
        **common,
    )
    test = names["of_test"]
    assert test["tiny_binary", "accuracy"] > 0.9 and ("tiny_categorical", "accuracy") in test
    assert sentences == ["## Further networks"]
    assert set(shown["tab-further-networks"][0]["row"]) == {"tiny binary", "tiny categorical"}

    networks_of_05 = {"radiographs": radiographs, **common}
    vectors = np.load(added / "tiny_probabilities.npy")
    names = cells.run(
        "05_knn",
        *("267bca26", "14ad6e1e"),
        embedding={"ours": vectors, "tiny": vectors},
        options={"ours": {"metric": "cosine", "weights": "distance"}},
        in_train=(radiographs._rows["split"] == "train").to_numpy(),
        not_train=(radiographs._rows["split"] != "train").to_numpy(),
        split=radiographs._rows["split"].to_numpy(),
        train=radiographs["train"],
        test=radiographs["test"],
        voters=np.ones(len(radiographs["train"]), dtype=bool),
        voting=np.flatnonzero(radiographs._rows["split"] == "train"),
        card=scorecard.Scorecard(radiographs),
        k=3,
        k_ours=3,
        pool_of={},
        unseen_splits={},
        table=lambda *_, **__: None,
        **networks_of_05,
    )
    assert names["of_test"]["knn_tiny", "accuracy"] > 0.8

    names = cells.run("07_explainability", "07-further", classes=classes, networks={}, **common)
    ((label, (model, feature_map)),) = names["networks"].items()
    assert (label, feature_map) == ("Tiny network", "features")
    with radiographs.evaluation():
        images = radiographs["test"].images[:4]
    maps, _ = measures.attribution_maps(model, images, feature_map=feature_map, patch_share=0.25)
    assert maps["Grad-CAM"].shape == (4, 16, 16)


def test_without_added_networks_nothing_is_shown(radiographs, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "registered", list)
    sentences = []
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", sentences.append)
    names = cells.run(
        "03_categorical",
        *("3f0a9d21", "8c1b7e44"),
        radiographs=radiographs,
        stage=cells.FakeStage(tmp_path),
        card=SimpleNamespace(table=pd.DataFrame({"row": ["a"]}), of_test=None),
        validation=[],
    )
    assert names["further"] == {} and sentences == []


@pytest.mark.parametrize("content", ["", "NETWORK = 1", FILE.replace('"tiny"', '"not an id"')])
def test_module_without_a_valid_network_is_named(tmp_path, monkeypatch, content):
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.setattr(networks, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "cxr_helpers.models.networks.broken", raising=False)
    with pytest.raises(ValueError, match=r"models/networks/broken\.py: expected NETWORK"):
        networks.registered()

"""What a session answers is what the run computed."""

import dataclasses
import io
import shutil

import numpy as np
import pandas as pd
import pytest
import small
from chain import rounding
from PIL import Image
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors

from cxr_helpers.data import decoding
from cxr_helpers.explore.session import MAPS, PATCH, Session, changed
from cxr_helpers.models import pretrained, recipes
from cxr_helpers.pipeline import classifiers
from cxr_helpers.pipeline.runs import DECLARED
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # a fixture is a whole run
SAVED = {
    "published, binary": ("02_binary", "probabilities.npy"),
    "published, categorical": ("03_categorical", "probabilities.npy"),
    "ours": ("03_categorical", "ours_probabilities.npy"),
}


@pytest.fixture(scope="module")
def session(on_phantoms, tmp_path_factory):
    return Session(on_phantoms, store=Store(tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize("name", SAVED)
def test_probabilities_are_those_of_the_run(session, on_phantoms, name):
    stage, file = SAVED[name]
    saved = np.load(on_phantoms.stage(stage) / file)
    expected = saved if saved.ndim == 1 else 1 - saved[:, 0]
    for row in (0, 3, len(saved) - 1):
        probability, _ = session.networks[name].answer(session.images[row])
        assert probability == pytest.approx(float(expected[row]), abs=10 * rounding(on_phantoms))


@pytest.mark.parametrize(("name", "metric"), [("binary", "euclidean"), ("ours", "cosine")])
def test_neighbours_are_those_of_scikit_learn_in_the_saved_embedding(
    session, on_phantoms, name, metric
):
    with np.load(on_phantoms.stage("05_knn") / "embeddings.npz") as saved:
        vectors = saved[name]
    nearest = NearestNeighbors(n_neighbors=4, metric=metric).fit(vectors[session.train_rows])
    network = session.networks[name if name == "ours" else f"published, {name}"]
    for row in session.rows("test")[:5]:
        distances, _ = nearest.kneighbors(vectors[[row]])
        _, vector = network.answer(session.images[row])
        found = vectors[session.train_rows[network.neighbours(vector, 4)]]
        again = NearestNeighbors(n_neighbors=4, metric=metric).fit(found).kneighbors(vectors[[row]])
        np.testing.assert_allclose(again[0], distances, atol=1e-4)


def test_confusion_matrix_is_that_of_scikit_learn_and_its_accuracy_that_of_the_report(
    session, on_phantoms
):
    rows = session.rows("test")
    y_true = (session.index["class_name"].iloc[rows] != "normal").to_numpy(dtype=int)
    y_prob = np.load(on_phantoms.stage("02_binary") / "probabilities.npy")[rows]
    for threshold in (0.5, float(np.median(y_prob))):
        found = session.confusion("published, binary", threshold)
        np.testing.assert_array_equal(found.counts, confusion_matrix(y_true, y_prob >= threshold))
        value, low, high = found.metrics["accuracy"]
        assert low <= value <= high and value == pytest.approx(found.counts.trace() / len(rows))
    scores = pd.read_csv(on_phantoms.stage("02_binary") / "scores.csv")
    reported = scores.query("row == 'binary_cnn' and split == 'test' and metric == 'accuracy'")
    accuracy = session.confusion("published, binary", 0.5).metrics["accuracy"][0]
    assert accuracy == pytest.approx(reported["value"].item())


def test_occlusion_map_is_that_of_keras_predictions(session):
    network, image = session.networks["published, categorical"], session.images[0]

    def score(copies):
        return 1 - network.classifier.model.predict(copies, verbose=0)[:, 0]

    patch = round(PATCH * len(image))
    expected = small.fall_where_covered(score, image, patch=patch, stride=patch)
    found = network.heat(image, "occlusion")
    assert found.signed
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


@pytest.mark.parametrize("method", MAPS)
def test_every_method_explains_every_network(session, method):
    for network in session.networks.values():
        heat = network.heat(session.images[1], method)
        assert heat.values.shape == (network.classifier.size,) * 2
        assert np.isfinite(heat.values).all() and (heat.signed or heat.values.min() >= 0)


def test_phantom_without_changes_is_the_image_of_the_run(session):
    for row in (0, 5, len(session.images) - 1):
        np.testing.assert_array_equal(session.redraw(row), session.images[row])
    assert (session.redraw(0, marker=1.0) != session.images[0]).any()


def test_uploaded_file_is_decoded_as_the_images_of_the_run(session):
    with io.BytesIO() as file:
        Image.fromarray(session.images[2]).convert("RGB").save(file, "PNG")
        np.testing.assert_array_equal(session.decode(file.getvalue()), session.images[2])
    with pytest.raises(OSError, match="not a readable image"):
        session.decode(b"no image")


def test_anomaly_is_that_of_the_run(session, on_phantoms):
    saved = pd.read_csv(on_phantoms.stage("04_autoencoder") / "predictions.csv")
    saved = saved.query("row == 'anomaly_both' and split == 'test'")["y_score"].to_numpy()
    found = [session.unlike(session.images[row])[0] for row in session.rows("test")[:5]]
    np.testing.assert_allclose(found, saved[:5], rtol=1e-3)


def test_networks_are_named_that_were_trained_on_an_image(session):
    seen = {split: session.trained_on(session.rows(split)[0]) for split in ("train", "test")}
    assert seen == {"train": list(session.networks), "test": []}
    assert session.trained_on(session.rows("validation")[0]) == ["ours"]


def test_network_from_imagenet_predicts_and_is_not_explored(on_phantoms, tmp_path, monkeypatch):
    copy = type(on_phantoms)(tmp_path / "copy")
    shutil.copytree(on_phantoms.folder, copy.folder)
    network = pretrained.build("mobilenet_v2", classes=3, weights=None)
    network.save_weights(copy.stage("03_categorical") / "pretrained.weights.h5")
    declared = files.read_json(copy.stage("03_categorical") / DECLARED)
    declared["outputs"]["pretrained.weights.h5"] = ""
    files.write_json(copy.stage("03_categorical") / DECLARED, declared)
    manifest = copy.manifest("03_categorical")
    manifest["recipe"]["parameters"]["pretrained"] = "mobilenet_v2"
    monkeypatch.setattr(type(copy), "manifest", lambda run, stage: manifest)
    found = classifiers.load(copy)
    assert list(found)[-1] == "mobilenet_v2"
    own = np.random.default_rng(0).integers(0, 256, (2, 48, 48), dtype=np.uint8)
    assert found["mobilenet_v2"].size == found["ours"].size
    larger = dataclasses.replace(found["mobilenet_v2"], size=32)  # this network's smallest size
    expected = recipes.predict(network, decoding.resize(own, 32))  # the mean with the mirror image
    np.testing.assert_allclose(larger.predict(own), expected, atol=1e-5)
    explored = Session(copy, store=Store(tmp_path / "store"))
    assert "mobilenet_v2" not in explored.networks


def test_marker_is_drawn_where_its_height_says(session):
    row = session.rows("test")[0]
    again = session.redraw(row, marker=session.marker_height(row))
    size = session.radiographs.facts["image_size"]
    top, bottom = session.index.iloc[row][["marker_y0", "marker_y1"]].astype(int)
    changed_rows = np.flatnonzero((again != session.images[row]).any(axis=1))
    margin = max(3, 0.1 * size)  # its size may be another one
    assert not len(changed_rows) or changed_rows.min() >= top - margin
    assert not len(changed_rows) or changed_rows.max() <= bottom + margin


def test_border_is_black_and_a_rectangle_has_the_mean_of_the_image():
    image = np.random.default_rng(0).integers(1, 255, (40, 40), dtype=np.uint8)
    assert np.array_equal(changed(image), image)
    found = changed(image, border=0.1, rows=(0.5, 0.75), columns=(0.25, 0.5))
    assert (found[:4] == 0).all() and (found[:, -4:] == 0).all()
    assert (found[20:30, 10:20] == round(image.mean())).all()
    rest = np.ones((40, 40), dtype=bool)
    rest[20:30, 10:20] = False
    rest[:4] = rest[-4:] = rest[:, :4] = rest[:, -4:] = False
    assert (found[rest] == image[rest]).all()
    assert (changed(image, border=0.5) == 0).all()

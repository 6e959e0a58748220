import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from cxr_helpers.explain import localization
from cxr_helpers.models import training
from cxr_helpers.shortcuts import twins


@pytest.fixture(scope="module")
def pair():
    lines = []
    found = twins.train(n_images=60, epochs=1, seed=0, log=lines.append)
    assert [line.split(" · ")[1] for line in lines] == list(twins.BIAS)
    return found


def test_twins_are_trained_on_other_markers(pair):
    assert list(pair.weights) == list(twins.BIAS)
    one, other = pair.weights.values()
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    network, predictions = twins.network(), []
    for weights in pair.weights.values():
        network.set_weights(weights)
        predictions.append(training.predict(network, pair.images))
    assert not np.array_equal(*predictions)


def test_twins_differ_by_their_markers_only(monkeypatch):
    """With the same markers they are the same network: same start, images, and order."""
    monkeypatch.setattr(twins, "BIAS", dict.fromkeys(twins.BIAS, 1.0))
    one, other = twins.train(n_images=60, epochs=1, seed=0).weights.values()
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_the_marker_is_exchanged(pair):
    boxes = localization.box_masks(pair.markers, twins.SIZE)
    changed = pair.images != pair.exchanged
    assert changed.any(axis=(1, 2)).all()
    assert (changed & boxes).any(axis=(1, 2)).all()
    assert not changed[:, :, twins.SIZE // 2 :].any()  # markers are at the left edge


def test_exchanged_marker_is_that_of_the_other_class(pair):
    """Large and high in pneumonia, small and low in normal images; exchanged the other way round."""
    tops = pair.markers[:, 1]
    assert tops[pair.y_true == 1].max() < tops[pair.y_true == 0].min()
    below = np.abs(pair.images.astype(int) - pair.exchanged)[:, -twins.SIZE // 4 :]
    assert (below.max(axis=(1, 2)) > 0).all()


def test_same_seed_gives_the_same_images_and_patients_are_named(pair):
    again = twins.train(n_images=60, epochs=1, seed=0)
    assert np.array_equal(again.images, pair.images)
    assert len(pair.groups) == len(pair.y_true) == len(pair.images)


def test_default_run_plants_the_shortcut_in_one_of_the_twins():
    notebook = Path(__file__).parents[2] / "notebooks" / "07_explainability.ipynb"
    preset = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["cxr"]["presets"]["demo"]
    pair = twins.train(n_images=preset["twin_images"], epochs=preset["twin_epochs"], seed=0)
    network, reliance = twins.network(), []
    for weights in pair.weights.values():
        network.set_weights(weights)
        own, exchanged = (
            special.logit(training.predict(network, images)[:, 0].astype(float))
            for images in (pair.images, pair.exchanged)
        )
        reliance.append(np.where(pair.y_true == 1, own - exchanged, exchanged - own).mean())
    assert reliance[0] > 2 * twins.RELIES and abs(reliance[1]) < twins.RELIES / 2

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from cxr_helpers.data import dataset
from cxr_helpers.models import architectures, networks
from cxr_helpers.pipeline import classifiers, repeatability
from cxr_helpers.pipeline.runs import MAP_SIMILARITY, Run
from cxr_helpers.pipeline.store import Store


@pytest.fixture
def run(on_phantoms, tmp_path):
    """Return a run with a second seed, whose binary network was not trained."""
    shutil.copytree(on_phantoms.folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    for stage in ("01_data", "02_binary", "03_categorical"):
        shutil.copytree(run.stage(stage), run.seed(1).stage(stage))
    keras.utils.set_random_seed(1)
    untrained = architectures.binary_cnn(32)
    untrained.save_weights(run.seed(1).stage("02_binary") / "binary.weights.h5")
    return run


def test_maps_of_equal_networks_are_equal_and_others_less(run, tmp_path):
    table = repeatability.write(run, seeds=[1], store=Store(tmp_path / "store"))
    pd.testing.assert_frame_equal(repeatability.read(run), table)
    assert list(table) == repeatability.COLUMNS
    gradients = table[table["method"] == "absolute gradient"].set_index("network")
    assert list(gradients.index) == list(classifiers.load(run))
    assert gradients.loc["published, categorical", "similarity"] == pytest.approx(1)
    assert gradients.loc["published, binary", "similarity"] < 0.9
    assert (gradients["other"] < 1).all()
    gap = table["similarity"] - table["other"]
    of_all = table["n"] == table["n"].max()
    np.testing.assert_allclose(table["gap"][of_all], gap[of_all], atol=1e-6)
    known = table.dropna()  # constant maps have no similarity
    assert len(known) and (known["low"] <= known["similarity"]).all() and known["n"].gt(2).all()


def test_number_of_threads_is_fixed_before_a_result_is_stored(run, monkeypatch):
    done = []
    monkeypatch.setattr(repeatability.environment, "fix_threads", lambda: done.append("fixed"))

    def call(*_, **__):
        done.append("called")
        return pd.DataFrame(columns=["method", "similarity", "other"])

    repeatability.write(run, seeds=[1], store=SimpleNamespace(call=call))
    assert done[:2] == ["fixed", "called"] and done.count("fixed") == 1


def test_difference_from_other_images_is_paired(run):
    """Both vary from image to image, but not their difference; one image has no other."""
    image = np.arange(repeatability.IMAGES)
    table = pd.DataFrame({"method": "x", "similarity": 0.5 + image / 100, "other": image / 100})
    table.loc[0, "other"] = np.nan

    def call(*_, **__):
        n = len(test_rows)
        return table.iloc[:n]

    data = dataset.read(run.stage("01_data"))
    with data.evaluation():
        test_rows = np.flatnonzero(data["test"].pneumonia)[: repeatability.IMAGES]
    found = repeatability.write(run, seeds=[1], store=SimpleNamespace(call=call))
    assert found["gap"].to_numpy() == pytest.approx(0.5)
    assert (found["low"] < found["high"]).all()


def test_table_of_earlier_trainings_goes_with_their_report(run):
    (run.folder / MAP_SIMILARITY).write_text("network,method")
    run.retire_report()
    assert repeatability.read(run).empty
    assert (run.folder / "previous" / MAP_SIMILARITY).is_file()


def test_network_that_was_added_since_is_not_loaded(run, monkeypatch):
    known = list(classifiers.load(run))
    added = SimpleNamespace(id="added", label="added", build=None, feature_map="")
    monkeypatch.setattr(networks, "registered", lambda: [added])
    assert list(classifiers.load(run)) == known


def test_without_the_networks_of_a_seed_there_are_no_rows(run, tmp_path):
    (run.seed(1).stage("03_categorical") / "ours.weights.h5").unlink()
    assert repeatability.write(run, seeds=[1], store=Store(tmp_path / "store")).empty
    assert repeatability.read(run).empty

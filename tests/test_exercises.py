"""The exercises of the notebooks are done as their text says, and what they answer is true."""

import ast
import gc
import json
import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from cells import FOLDER, play
from sklearn.metrics import balanced_accuracy_score

from cxr_helpers.figures import publishing
from cxr_helpers.pipeline import graph, parameters, settings, stages
from cxr_helpers.shortcuts import border

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # a fixture is a whole run
ANSWERED = {  # by which cell
    "01_data": "b389fed8",
    "02_binary": "d18becb4",
    "03_categorical": "8c1b7e44",
    "04_autoencoder": "3f2d3917",
    "05_knn": "14ad6e1e",
    "06_tsne": "06-08",
    "07_explainability": "07-08",
}
SETS = re.compile(r"\*\*Exercise (\d)\.\*\* Set `(\w+) = ([^`]+)`\.")


def exercises(notebook):
    """Return the parameter that each exercise of a notebook changes, with its value as text."""
    cells = json.loads((FOLDER / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    return {
        number: (name, value) for number, name, value in SETS.findall("".join(cells[-1]["source"]))
    }


@pytest.mark.parametrize("notebook", graph.default())
def test_two_exercises_with_a_folded_answer_change_one_parameter_each(notebook):
    cells = json.loads((FOLDER / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[-1]["source"])
    assert list(exercises(notebook)) == ["1", "2"]
    assert text.count("<details><summary>Answer</summary>") == text.count("</details>") == 2
    schema = {stage: parameters.read(spec.notebook) for stage, spec in graph.default().items()}
    for name, value in exercises(notebook).values():
        values = settings.resolve(
            schema, preset={}, settings=[f"{notebook}.{name}={ast.literal_eval(value)}"]
        )
        assert values[notebook][name] != schema[notebook][name].default


@pytest.fixture
def do(on_phantoms, tmp_path, monkeypatch):
    """Return a function that does an exercise; it returns all names of the notebook until then."""
    monkeypatch.setattr(publishing, "pictures", _undrawn)
    monkeypatch.setattr(border, "SIZE", 32)  # that of the run's images
    monkeypatch.setenv(stages.RUNNER, str(on_phantoms.folder.parent / stages.STORE))

    def done(notebook, number, **further):
        name, value = exercises(notebook)[str(number)]
        changed = {name: ast.literal_eval(value)} | further
        return play(notebook, on_phantoms, tmp_path, until=ANSWERED[notebook], **changed)

    yield done
    with warnings.catch_warnings():  # of files that notebooks leave open, not in a later test
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _undrawn(fig, *, id):
    plt.close(fig)
    return "", b""


@pytest.fixture(scope="module")
def before(on_phantoms):
    """Return a function that looks a score of the unchanged run up."""

    def score(stage, row, metric, split="test"):
        table = pd.read_csv(on_phantoms.stage(stage) / "scores.csv")
        found = table.set_index(["row", "split", "metric"])["value"]
        return found[row, split, metric]

    return score


def after(names, row, metric):
    return float(names["of_test"][row, metric])


def test_biased_marker_is_read_by_the_border_network(do, before):
    names = do("01_data", 1, n_phantoms=160, border_epochs=12)
    biased = after(names, "border_binary", "auroc")
    assert biased > 0.7 and biased > before("01_data", "border_binary", "auroc") + 0.1
    assert names["size_prob"]["pneumonia"] is None


def test_border_network_that_sees_the_centre_is_a_classifier(do):
    """The same training with and without the centre."""
    options = {"n_phantoms": 140, "border_epochs": 6, "lesion_contrast": 2.0}
    seen = do("01_data", 2, **options)
    hidden = do("01_data", 2, **options | {"centre_share": 0.68})
    auroc = [after(names, "border_binary", "auroc") for names in (seen, hidden)]
    assert auroc[0] > auroc[1] + 0.05


def test_large_learning_rate_gives_a_constant_prediction(do):
    names = do("02_binary", 1, epochs=3)
    assert np.ptp(names["probability"]) < 0.05
    sensitivity, specificity = (
        after(names, "binary_cnn", metric) for metric in ("sensitivity", "specificity")
    )
    assert sorted([sensitivity, specificity]) == [0, 1]


def test_balanced_sampling_lowers_the_probabilities(do, on_phantoms):
    balanced = do("02_binary", 2)
    saved = np.load(on_phantoms.stage("02_binary") / "probabilities.npy")
    assert balanced["probability"].mean() < saved.mean()


def test_network_without_validation_images_is_scored_on_them(do, on_phantoms):
    names = do("03_categorical", 1)
    ours = names["results"].query("row == 'ours_binary'")
    table = pd.read_csv(on_phantoms.stage("03_categorical") / "scores.csv")
    assert set(table.query("row == 'ours_binary'")["split"]) == {"test"}
    assert {"validation", "test"} <= set(ours["split"])
    assert len(names["ours_train"]) < (names["radiographs"].index["split"] != "test").sum()


def test_without_a_shortcut_no_image_conflicts_with_it(do, before):
    names = do("03_categorical", 2)
    assert not names["conflicting"].any()
    for row in ("ours_binary", "ours_categorical"):
        assert after(names, row, "accuracy") == before("03_categorical", row, "accuracy")


def test_percentile_moves_the_calls_and_not_the_order(do, before):
    names = do("04_autoencoder", 1)
    assert after(names, "autoencoder", "auroc") == before("04_autoencoder", "autoencoder", "auroc")
    for metric in ("accuracy", "sensitivity"):
        old = before("04_autoencoder", "autoencoder", metric)
        assert after(names, "autoencoder", metric) != old, metric
    assert after(names, "autoencoder", "sensitivity") < before(
        "04_autoencoder", "autoencoder", "sensitivity"
    )


def test_quantile_of_normal_images_is_the_specificity(do, before):
    names = do("04_autoencoder", 2)
    normal = names["held_out"].pneumonia == 0
    for name, distances in names["held_out_distance"].items():
        below = (distances[normal] <= names["anomaly_thresholds"][name]).mean()
        assert below == pytest.approx(0.5, abs=0.5 / normal.sum())
        rises = after(names, name, "sensitivity") - before("04_autoencoder", name, "sensitivity")
        assert rises >= 0
        assert after(names, name, "auroc") == before("04_autoencoder", name, "auroc")


def test_all_training_images_vote_for_the_larger_class(do):
    names = do("05_knn", 1)
    assert names["k"] == (~names["not_train"]).sum() < 1000
    for row in ("knn_binary", "knn_autoencoder"):
        part = names["card"].predictions.query(f"row == {row!r} and split == 'test'")
        assert (part["y_pred"] == 1).all()  # pneumonia
        assert after(names, row, "accuracy") == pytest.approx((part["y_true"] == 1).mean())
        assert after(names, row, "auroc") == 0.5


def test_single_vote_has_the_auroc_of_its_call(do):
    names = do("05_knn", 2)
    part = names["card"].predictions.query("row == 'knn_ours' and split == 'test'")
    assert part["y_score"].nunique() <= 2
    expected = balanced_accuracy_score(part["y_true"], part["y_pred"])
    assert after(names, "knn_ours", "auroc") == pytest.approx(expected)


def test_small_perplexity_makes_islands(do, on_phantoms):
    """The gap between neighbouring islands, relative to that between neighbouring points, grows."""
    names = do("06_tsne", 1)
    saved = pd.read_csv(on_phantoms.stage("06_tsne") / "maps.csv")

    def islands(points):
        from scipy.cluster.hierarchy import fcluster, linkage

        steps = linkage(points, "single")
        return fcluster(steps, 3 * np.median(steps[:, 2]), "distance").max()

    after_ = [islands(m[["x", "y"]]) for m in names["maps"].values()]
    before_ = [islands(m[["x", "y"]]) for _, m in saved.groupby("embedding")]
    assert sum(after_) > sum(before_)


def test_seed_changes_only_the_map_of_the_embedding_that_is_reduced_by_chance(do):
    every = {"max_images": 1500}  # that is, all images
    one, other = do("06_tsne", 2, **every)["maps"], do("06_tsne", 2, seed=0, **every)["maps"]
    for name, plane in one.items():
        moved = np.abs(plane[["x", "y"]].to_numpy() - other[name][["x", "y"]].to_numpy()).max()
        assert (moved > 1) == (name == "autoencoder"), (name, moved)
        assert moved > 1 or moved == 0
    fewer, again = do("06_tsne", 2)["maps"], do("06_tsne", 2, seed=0)["maps"]
    assert set(fewer["ours"]["file"]) != set(again["ours"]["file"])


def test_another_cover_gives_another_map(do):
    grey = do("07_explainability", 1)
    black = do("07_explainability", 1, cover="black")
    for name, maps in grey["maps"].items():
        alike = np.corrcoef(maps.ravel(), black["maps"][name].ravel())[0, 1]
        assert alike < 0.95, name


def test_large_patch_gives_nine_values_at_most(do):
    names = do("07_explainability", 2)
    for heat in np.concatenate(list(names["maps"].values())):
        rows = 1 + (np.abs(np.diff(heat, axis=0)) > 0).any(axis=1).sum()
        columns = 1 + (np.abs(np.diff(heat, axis=1)) > 0).any(axis=0).sum()
        assert rows <= 4 and columns <= 4  # patches that overlap by half share their pixels

"""Single cells of the notebooks, run on synthetic data."""

import collections
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cells
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import special
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from cxr_helpers.data import class_names, dataset
from cxr_helpers.evaluation import bootstrap, map_scores, scorecard, tables
from cxr_helpers.figures.captions import Captions
from cxr_helpers.models import architectures, sampling
from cxr_helpers.pipeline import graph
from cxr_helpers.shortcuts import twins


def radiographs(*, side=8, **n_images):
    """Return a small dataset with the given number of images per split, two of three pneumonia."""
    n = sum(n_images.values())
    names = np.array(["normal", "bacterial", "viral"])[np.arange(n) % 3]
    index = pd.DataFrame(
        {"split": np.repeat(list(n_images), list(n_images.values())), "class_name": names}
    )
    index["group"] = [f"{name} {i}" for i, name in enumerate(names)]
    index["file"] = index["group"] + ".png"
    index["border_normal"] = np.where(np.arange(n) % 2, 0.4, 0.6)
    images = np.random.default_rng(0).integers(0, 256, (n, side, side), dtype=np.uint8)
    return dataset.Dataset(images, index, {"synthetic": True, "image_size": side})


class Published:
    """Records what a notebook publishes: captions by id, and sentences."""

    def __init__(self):
        self.captions, self.sentences, self.tables = {}, [], []

    def __call__(self, shown, *, id, caption, **_):
        self.captions[id] = caption

    def text(self, sentence):
        self.sentences.append(sentence)


def calibrated(monkeypatch, *, balanced=False, **n_images):
    """Run the section on threshold and calibration; return its names and what it published."""
    data, published = radiographs(**n_images), Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    train, validation = data["train"], data.selection
    with data.evaluation():
        y_true = data["test"].pneumonia
    probability = np.linspace(0.05, 0.95, len(data.index))
    names = cells.run(
        "02_binary",
        *("b5006de3", "ce590903", "29a65587"),
        radiographs=data,
        train=train,
        validation=validation,
        probability=probability,
        balanced=balanced,
        sampling_weights=np.where(train.pneumonia, 0.25, 0.5) if balanced else None,
        y_true=y_true,
        y_prob=probability[data.index["split"] == "test"],
        seed=0,
        figure=published,
        table=published,
    )
    return names, published


@pytest.mark.parametrize(("balanced", "odds"), [(False, 1 / 2), (True, 2)])
def test_prior_is_corrected_from_the_class_shares_in_training(monkeypatch, balanced, odds):
    """Two of three training images have pneumonia: odds of 2 to 1, or 1 to 1 if balanced."""
    names, _ = calibrated(monkeypatch, balanced=balanced, train=30, validation=30, test=30)
    corrected = list(names["curves"].values())[-1]
    shift = special.logit(corrected) - special.logit(names["y_prob"])
    assert np.allclose(shift, np.log(odds))


def test_no_threshold_or_temperature_is_fitted_without_validation(monkeypatch):
    names, published = calibrated(monkeypatch, train=30, test=30)
    assert list(names["thresholds"]) == ["0.5"] and names["temperature"] is None
    assert "no validation images" in published.captions["tab-binary-thresholds"]
    assert "temperature" not in published.captions["fig-binary-reliability"]
    assert "No temperature was fitted" in published.sentences[-1]


def test_threshold_and_temperature_are_fitted_on_validation(monkeypatch):
    names, published = calibrated(monkeypatch, train=30, validation=30, test=30)
    assert len(names["thresholds"]) == 3 and names["temperature"] > 0
    assert "chosen on 30 validation images" in published.captions["tab-binary-thresholds"]


def test_no_temperature_is_given_where_all_validation_images_are_right(monkeypatch):
    data = radiographs(train=3, validation=30, test=30)
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    y_true = np.arange(63) % 3 > 0
    with data.evaluation():
        names = cells.run(
            "02_binary",
            *("b5006de3", "ce590903", "29a65587"),
            radiographs=data,
            **{"train": data["train"], "validation": data.selection, "balanced": False},
            **{"probability": np.where(y_true, 0.9, 0.1), "sampling_weights": None, "seed": 0},
            **{"y_true": y_true[33:], "y_prob": np.where(y_true, 0.9, 0.1)[33:]},
            **dict.fromkeys(("figure", "table"), published),
        )
    assert names["temperature"] is None
    assert "all validation images are predicted correctly" in published.sentences[-1]


@pytest.mark.parametrize(
    ("adam", "sgd", "conclusion"),
    [
        ((0.512, 0.93, 0.90, 0.5), (0.503, 0.52, 0.62, 0.496), "2 of these (0.001, 0.01)"),
        (
            (0.8, 0.93, 0.9, 0.5),
            (0.55, 0.52, 0.62, 0.5),
            "agree with the statement of the course report at the rates that can be compared;",
        ),
        (
            (0.8, 0.93, 0.9, 0.8),
            (0.55, 0.52, 0.62, 0.5),
            "agree with the statement of the course report;",
        ),
        ((0.8, 0.93, 0.9, 0.5), (0.55, 0.52, 0.62, 0.8), "do not bear out the statement"),
        ((0.51, 0.52, 0.53, 0.54), (0.5, 0.49, 0.5, 0.5), "cannot test the statement"),
    ],
)
def test_optimizers_are_compared_where_a_run_exceeds_chance(monkeypatch, adam, sgd, conclusion):
    published, rates = Published(), (0.0001, 0.001, 0.01, 0.1)
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    lines = [("adam", *pair) for pair in zip(rates, adam, strict=True)]
    lines += [("sgd", *pair) for pair in zip(rates, sgd, strict=True)]
    study = pd.DataFrame(lines, columns=["optimizer", "learning_rate", "val_auroc"])
    held_out = Labelled(pneumonia=np.arange(60) % 2)
    cells.run("02_binary", "02-21", radiographs=None, study=study, held_out=held_out)
    assert conclusion in published.sentences[-1]


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        ((0.3, 0.25, 0.35), "In the outer sixth, too,"),
        ((0.5, 0.42, 0.58), "and only there, the classes are shown to differ"),
        ((0.7, 0.65, 0.75), "the opposite direction to that in the middle"),
    ],
)
def test_detail_of_the_outer_sixth_is_compared_with_the_middle(monkeypatch, middle, words):
    published, below = Published(), (0.3, [0.25, 0.35])
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    names = {"lost": [0.5] * 4, "aurocs": {"middle": {"detail": middle}}, "fewest": 100}
    names["explained"] = 0.0, -0.1, 0.1
    for name, (auroc, interval) in {"outer": below, "error": below, "equal": below}.items():
        names |= {f"{name}_auroc": auroc, f"{name}_interval": interval}
    captions = graph.default()["04_autoencoder"].notebook.parent / "captions"
    names |= {"tables": tables, "bootstrap": bootstrap}
    Captions(captions / "04_autoencoder.toml", names, synthetic=True).text("detail")
    assert words in published.sentences[-1]


def test_run_of_the_optimizer_study_that_diverges_ranks_nothing():
    def train(name, *_, **__):
        if "sgd" in name:
            raise FloatingPointError("the loss of epoch 1 is nan")
        return pd.DataFrame({"val_auroc": [0.6, 0.7]})

    images = np.zeros((4, 40, 40), np.uint8)
    found = cells.run(
        "02_binary",
        "02-19",
        stage=SimpleNamespace(train=train, save=lambda *_, **__: None),
        **dict.fromkeys(("small", "small_held_out"), images),
        **dict.fromkeys(("labels", "held_out_labels"), np.array([[0], [1], [0], [1]])),
        **{"study_rates": [0.1, 0.2, 0.1], "study_epochs": 2, "seed": 0},
    )
    assert found["study"]["val_auroc"].tolist() == [0.7, 0.7, 0.5, 0.5]


@pytest.mark.parametrize(("n_patients", "is_reversed"), [(60, True), (3, False)])
def test_autoencoder_rule_is_reversed_by_many_patients_not_by_many_images(n_patients, is_reversed):
    """An AUROC of one third on 120 images is significant from 60 patients per class, not three."""
    group = np.repeat(np.arange(2 * n_patients), 60 // n_patients)
    held_out = dataset.Part(
        np.zeros((120, 8, 8), np.uint8),
        pd.DataFrame(
            {"split": "train", "class_name": ["normal"] * 60 + ["viral"] * 60, "group": group}
        ),
    )
    normal, viral = [1.0, 2.0, 3.0], [0.5, 1.5, 2.5]  # viral is higher in 3 of the 9 pairs
    error = np.r_[np.repeat(normal, 20), np.repeat(viral, 20)]
    names = cells.run(
        "04_autoencoder",
        "04-15",
        stage=SimpleNamespace(cached=lambda *_: error),
        held_out=held_out,
        **{"model": None, "held_out_name": "images", "seed": 0},
    )
    assert names["held_out_auroc"] == pytest.approx(1 / 3)
    assert (names["direction"] == -1) == is_reversed


@pytest.mark.parametrize(("n_patients", "is_reversed"), [(5, False), (6, True)])
def test_autoencoder_rule_is_not_reversed_by_a_handful_of_patients(n_patients, is_reversed):
    """Resamples of few patients whose errors do not overlap all have an AUROC of 0."""
    n = 2 * n_patients
    names = ["normal"] * n_patients + ["viral"] * n_patients
    index = pd.DataFrame({"split": "train", "class_name": names, "group": np.arange(n)})
    found = cells.run(
        "04_autoencoder",
        "04-15",
        stage=SimpleNamespace(cached=lambda *_: np.arange(n)[::-1].astype(float)),
        held_out=dataset.Part(np.zeros((n, 8, 8), np.uint8), index),
        **{"model": None, "held_out_name": "images", "seed": 0},
    )
    assert found["held_out_auroc"] == 0 and (found["direction"] == -1) == is_reversed


def test_near_duplicates_of_different_patients_stay_in_one_split():
    """Images 0 and 300, 1 and 301 and so on are near-duplicates of different patients."""
    n = np.arange(604)
    split = np.where(n < 600, "train", "test")
    index = pd.DataFrame({"split": split, "class_name": np.where(n % 2, "viral", "normal")})
    index["group"] = index["class_name"] + " " + n.astype(str)
    source = SimpleNamespace(index=index)
    pairs = pd.DataFrame({"first": n[:300], "second": n[300:600]})
    parameters = {"validation_fraction": 0.2, "contiguous_fraction": 0.2, "choose_by": "group"}
    names = cells.run(
        "01_data",
        "01-15",
        source=source,
        pairs=pairs,
        leaking=np.zeros(604, dtype=bool),
        stage=SimpleNamespace(earlier=None),
        seed=0,
        **parameters,
    )
    split = names["index"]["split"].to_numpy()[:600]
    assert (split[:300] == split[300:]).all() and set(split) == {
        "train",
        "validation",
        "contiguous",
    }


UNINFORMATIVE = "is not shown to rank images with pneumonia above normal ones"


def with_border(data, *, informative):
    """Return the data with one in four images conflicting, or one in two (uninformative)."""
    rows = data._rows
    number = rows.groupby(["split", "class_name"]).cumcount().to_numpy()
    conflicting = number % (4 if informative else 2) == 0
    normal = (rows["class_name"] == "normal").to_numpy()
    rows["border_normal"] = np.where(normal != conflicting, 0.9, 0.05)
    rows["border_bacterial"] = rows["border_viral"] = (1 - rows["border_normal"]) / 2
    return data, conflicting


@pytest.mark.parametrize("informative", [True, False])
def test_conflicting_images_are_counted_only_where_the_border_is_informative(
    monkeypatch, informative
):
    data, _ = with_border(radiographs(train=120, test=120), informative=informative)
    published, tables = Published(), {}
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    names = cells.run(
        "01_data",
        *("b389fed8", "75872b9f"),
        radiographs=data,
        stage=SimpleNamespace(rows=()),
        size_prob={"pneumonia": None, "category": None},
        border_prob=data._rows[["border_normal", "border_bacterial", "border_viral"]].to_numpy(),
        centre_share=0.68,
        seed=0,
        table=lambda shown, *, id, **_: tables.update({id: shown}),
    )
    counts = tables["tab-border-groups"].set_index("split").loc["test"]
    assert counts[["normal, conflicting", "pneumonia, conflicting"]].sum() == informative * 30
    assert (UNINFORMATIVE in published.sentences[0]) != informative
    # the border networks are wrong on conflicting images by definition
    metrics = set(names["results"]["metric"])
    assert metrics and not metrics & {"worst_group_accuracy", "conflicting_auroc"}


@pytest.mark.parametrize("informative", [True, False])
def test_conflicting_images_are_sampled_more_often_only_where_the_border_is_informative(
    monkeypatch, informative
):
    data, conflicting = with_border(radiographs(train=120, test=3), informative=informative)
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    names = cells.run(
        "03_categorical",
        "0d4deb89",
        radiographs=data,
        train=data["train"],
        classes=data.classes,
        size=8,
        ours_batch_size=32,
        seed=0,
        **{"ours_epochs": 1, "ours_learning_rate": 0.1, "ours_weight_decay": 0.0},
        **{"ours_widths": [4], "ours_conflict_weight": 8.0, "ours_all_images": False},
        **{"ours_crop_size": 8, "ours_crop_area": 0.1},
    )
    weights = names["sampling_weights"]
    ratio = weights[conflicting[:120]].mean() / weights[~conflicting[:120]].mean()
    assert ratio == pytest.approx(8 if informative else 1)
    sentence = published.sentences[0]
    assert sentence.startswith("30 of 120 training images are shortcut-conf") == informative
    assert ("sampled 8 times as often" in sentence) == informative
    assert (UNINFORMATIVE in sentence) != informative


def compute(function, *arguments, **options):
    """Stand in for `Stage.cached`."""
    return function(*arguments, **options)


def test_gradcam_is_cached_by_image_and_explains_the_predicted_class(monkeypatch):
    """Here every pixel of a map is the index of the class that it explains."""
    calls = []
    monkeypatch.setattr(
        "cxr_helpers.explain.gradcam.gradcam",
        lambda _, images, *, layer, class_index, by_position: np.full(
            (len(images), 2, 2), class_index + 10 * by_position
        ),
    )
    names = cells.run(
        "07_explainability",
        "07-14",
        radiographs=None,
        stage=SimpleNamespace(
            cached=lambda *arguments, **options: (
                calls.append(options) or compute(*arguments, **options)
            ),
            save=lambda *_, **__: None,
        ),
        groups={"normal, right": [0, 2], "wrong": [1]},
        y_pred=np.array([0, 2, 1]),
        test=SimpleNamespace(images=np.zeros((3, 2, 2), np.uint8)),
        test_rows=np.arange(3),
        **{"categorical": None, "gradcam_layer": "conv4"},
    )
    maps = names["heat_maps"]
    assert maps["Grad-CAM"]["normal, right"][:, 0, 0].tolist() == [0, 1]
    assert maps["HiResCAM"]["normal, right"][:, 0, 0].tolist() == [10, 11]
    assert maps["Grad-CAM"]["wrong"][:, 0, 0].tolist() == [2] and len(calls) == 6


@pytest.mark.parametrize("many", [False, True])
def test_of_many_images_some_test_images_are_explained(monkeypatch, many):
    monkeypatch.setattr(sampling, "MANY", 20 if many else 30)
    monkeypatch.setattr(sampling, "EXPLAINED", 8)
    data = radiographs(train=12, test=18)
    names = cells.run("07_explainability", "07-07", radiographs=data, images_per_mean=2)
    n = 8 if many else 18
    assert len(names["test"]) == len(names["order"]) == len(names["test_rows"]) == n
    assert np.array_equal(data.images[names["in_test"]], names["test"].images)
    assert np.array_equal(data["test"].images[names["test_rows"]], names["test"].images)
    texts = cells.FOLDER / "captions" / "07_explainability.toml"
    caption = Captions(texts, names | {"patch": 2, "cover": "black"}, synthetic=True).render(
        "fig-occlusion", "caption"
    )
    assert ("takes 8 of the 18 test images" in caption) == many


class Labelled(SimpleNamespace):
    """Images with labels; evaluation is always declared."""

    evaluation = staticmethod(nullcontext)

    def __len__(self):
        return len(self.pneumonia)


def test_recalls_are_of_the_test_images_whose_kind_of_pneumonia_is_known():
    """The third of five images is no test image, and the kind of the fourth is unknown."""
    finished, no_comparison = {}, bootstrap.Comparison(0.0, 0.0, 0.0, 1.0)
    names = cells.run(
        "03_categorical",
        "03-21",
        stage=SimpleNamespace(finish=lambda **results: finished.update(results)),
        y_true=np.array([0, 1, 2]),
        y_pred=np.array([0, 1, 1]),
        ours_predicted=np.array([0, 2, 0, 1, 2]),
        test_rows=np.array([0, 1, 4]),
        in_test=np.array([True, True, False, True, True]),
        ours=SimpleNamespace(count_params=int),
        card=SimpleNamespace(predictions=None),
        robust={"AUROC": pd.DataFrame()},
        conflicting=np.zeros(1),
        classes=("normal", "bacterial", "viral"),
        **dict.fromkeys(("against_published", "against_as_two"), no_comparison),
        **{"confused": {}, "viral_auroc": (np.nan,) * 3, "averaged_less": {}, "results": None},
        **{"scored": True, "unchanged": True, "unavailable": ""},
        **dict.fromkeys(
            ("best_epoch", "sampled_share", "accuracy_as_two", "ours_conflict_weight"), 1
        ),
    )
    assert names["ours_recalls"] == {"normal": 1, "bacterial": 0, "viral": 1}
    assert finished["facts"]["misclassified"] == 1


def test_outer_sixth_is_the_region_where_nothing_else_is_known(monkeypatch):
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    names = cells.run(
        "07_explainability",
        *("07-lungs", "07-rows"),
        radiographs=Labelled(synthetic=False),
        test=Labelled(pneumonia=np.array([1, 0, 1])),
        order=np.array([2, 1, 0]),
        **{"regions": {}, "lung_masks": "", "size": 12},
        **{"images_per_mean": 1, "occlusion_images": 1, "gradient_images": 9},
    )
    assert names["rows"].tolist() == [2, 0]
    (region,) = names["regions"].values()
    assert region.shape == (3, 12, 12) and region.mean() == pytest.approx(1 - (8 / 12) ** 2)
    assert names["outlines"] is None
    assert published.sentences[-1].startswith("There are no lung outlines of these images")


def outlined(folder, monkeypatch, *, pneumonia):
    """Run the cell on four test images; a training image has the stored size of the first one."""
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    widths = [20, 20, 24, 28, 32]
    for width in widths[1:]:
        lung = np.pad(np.full((14, width - 2), 255, np.uint8), 1)
        Image.fromarray(lung).save(folder / f"{width}.png")
    index = pd.DataFrame(
        {"file": [f"{name}.png" for name in "abcde"], "split": ["train", *["test"] * 4]}
        | {"width": widths, "height": 16}
    )
    names = cells.run(
        "07_explainability",
        "07-lungs",
        radiographs=Labelled(index=index, synthetic=False, facts={"framing": "squeeze"}),
        test=Labelled(pneumonia=np.array(pneumonia)),
        in_test=np.array([False, True, True, True, True]),
        **{"regions": {}, "lung_masks": str(folder), "size": 8},
    )
    return names["regions"], published.sentences


def test_outline_of_a_size_that_a_training_image_has_too_is_not_matched(tmp_path, monkeypatch):
    regions, sentences = outlined(tmp_path, monkeypatch, pneumonia=[1, 1, 1, 0])
    assert regions["lung"].any(axis=(1, 2)).tolist() == [False, True, True, True]
    assert len(sentences) == 2 and "3 of 5 images have lung outlines" in sentences[0]
    assert "3 have outlines, 2 of them with pneumonia" in sentences[1]


@pytest.mark.parametrize("pneumonia", [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_outlines_of_too_few_images_of_a_class_are_left_out(tmp_path, monkeypatch, pneumonia):
    regions, sentences = outlined(tmp_path, monkeypatch, pneumonia=pneumonia)
    assert regions == {}
    assert sentences[-1].startswith("Too few test images of each class have lung outlines")


def test_outlines_are_not_read_for_phantoms(monkeypatch):
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    cells.run(
        "07_explainability",
        "07-lungs",
        radiographs=Labelled(),
        regions={"lung": np.ones((1, 8, 8), dtype=bool)},
        lung_masks="some folder",
    )
    assert published.sentences == ["`lung_masks` is not read: the lungs of phantoms are known."]


def test_effect_of_a_part_is_that_on_the_images_that_all_methods_explain():
    """The marker raises the log-odds of pneumonia images and lowers those of normal ones."""
    y_true = np.array([1, 0, 1, 0, 1])  # of those with pneumonia, two are explained by all
    every, diseased = np.ones(5, dtype=bool), y_true == 1
    changes = {
        ("binary", "lesion not drawn"): [-1.0, -3.0, 99.0],
        ("binary", "marker not drawn"): [-5.0, 5.0, -5.0, 5.0, 99.0],
    }
    changes = {key: SimpleNamespace(change=np.array(value)) for key, value in changes.items()}
    names = cells.run(
        "07_explainability",
        "07-heat-effect",
        radiographs=Labelled(),
        experiments={
            "lesion not drawn": (diseased, None, None),
            "marker not drawn": (every, None, None),
        },
        test=Labelled(pneumonia=y_true),
        changes=changes,
        rows=np.array([2, 0, 4]),
        n_curved=2,
        scored=pd.DataFrame(
            [
                ("binary", "occlusion", 0, 0.2, 0.1),
                ("binary", "occlusion", 1, 0.4, 0.3),
                ("binary", "occlusion", 2, 1.0, 0.0),  # not explained by all
                ("binary", "noise", 0, 0.9, 0.1),
            ],
            columns=["network", "method", "image", "lesion heat", "marker heat"],
        ).assign(**{"lesion area": 1.0, "marker area": 0.25}),
        parts={"lesion": np.ones((3, 2, 2)), "marker": np.full((3, 2, 2), [[1, 0], [0, 0]])},
        controls=["noise"],
        figure=Published(),
    )
    of_occlusion = names["of_methods"].set_index("part")
    effect = of_occlusion["effect"]
    assert effect.to_dict() == pytest.approx({"lesion": 2 / 100, "marker": 5 / 25})
    gain = of_occlusion["gain"]
    assert gain.to_dict() == pytest.approx({"lesion": 0.3, "marker": 0.8})
    assert names["agrees"].tolist() == [True] and names["controls_agree"].tolist() == [False]


def placed(region="lesion", **methods):
    """Run the cells on place with these shares of the heat; return names and what is shown."""
    shown, n = Tables(), 30
    scored = pd.concat(
        [
            pd.DataFrame({"network": "binary", "method": m, "image": np.arange(n)})
            .assign(**{f"{region} hit": 0.0, f"{region} auprc": gain / 10, f"{region} heat": gain})
            .assign(**{f"{region} gain": gain})
            for m, gain in methods.items()
        ]
    )  # fmt: skip
    index = pd.DataFrame({"group": np.arange(n)})
    names = cells.run(
        "07_explainability",
        *("07-18", "07-place-table"),
        radiographs=Labelled(),
        scored=scored,
        test=SimpleNamespace(index=index),
        rows=np.arange(n),
        regions={region: np.zeros((n, 2, 2))},
        parts={region: np.full((n, 2, 2), 0.1)},
        controls={"white noise": None, "centre": None},
        bounds={},
        seed=0,
        table=shown,
    )
    return names, shown


def test_maps_are_compared_with_the_best_control():
    rng = np.random.default_rng(0)
    base = 2 + rng.random(30)
    names, shown = placed(
        **{"occlusion": base + 1, "Grad-CAM": base - 1, "white noise": base - 2, "centre": base}
    )
    verdicts = names["place_table"].set_index("method")["verdict"].to_dict()
    assert verdicts == {"occlusion": "better", "Grad-CAM": "worse", "centre": ""}
    assert "the lesion covers 10.0% of the image" in shown.captions["tab-localization"]


def test_more_heat_in_the_outer_sixth_is_neither_better_nor_worse():
    base = 2 + np.random.default_rng(0).random(30)
    names, shown = placed("outer sixth", **{"occlusion": base + 1, "centre": base})
    assert not names["by_place"]["verdict"].any()
    assert "verdict" not in shown.frames["tab-localization"]
    assert "there is no verdict" in shown.captions["tab-localization"]


def test_method_without_any_heat_has_no_verdict():
    """After training on few images a network may be constant: Grad-CAM is then zero everywhere."""
    names, _ = placed(**{"Grad-CAM": np.full(30, np.nan), "centre": np.ones(30)})
    table = names["place_table"].set_index("method")
    assert table.loc["Grad-CAM", "verdict"] == "–" and table.loc["Grad-CAM", "lesion auprc"] == "–"


EFFECTS = pd.DataFrame(
    [
        ("letter erased", "change", -0.5, -0.7, -0.3),
        ("letter erased", "flipped", 0.1, 0.0, 0.2),
        ("as much erased elsewhere", "change", 0.02, -0.1, 0.1),
        ("as much erased elsewhere", "flipped", 0.05, 0.0, 0.1),
        ("letter minus elsewhere", "change", -0.52, -0.8, -0.2),
    ],
    columns=["intervention", "measure", "value", "low", "high"],
).assign(network="binary", n=40)


def run_letter(masks, maps, *, weights, **more):
    """Run the cell on the letter for two images of two patients; return its names."""
    return cells.run(
        "07_explainability",
        "07-letter",
        radiographs=Labelled(),
        effects=EFFECTS,
        experiments={"letter erased": ()},
        rows=np.array([0, 1]),
        marker_masks=masks,
        marked=masks.any(axis=(1, 2)),
        all_maps=maps,
        groups_of=np.array(["a", "b"]),
        resamples=lambda *_: weights,
        **more,
    )


def test_letter_is_reported_beside_its_placebo(monkeypatch):
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    monkeypatch.setattr(bootstrap, "FEWEST", 2)
    marked = np.zeros((2, 8, 8), dtype=bool)
    marked[:, :2, :2] = True
    heat, exact = np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    heat[0, 0, 0], heat[0, 7, 7] = 1, 3
    heat[1, 7, 7] = exact[:, 7, 7] = 1
    maps = {
        "binary": {"Grad-CAM": heat, "HiResCAM": exact},
        "categorical": {"Grad-CAM": heat, "HiResCAM": 0 * exact},
        "ours": {"Grad-CAM": heat},  # equal to its HiResCAM
    }
    names = run_letter(marked, maps, weights=np.array([[1, 1], [2, 0], [2, 0]]))
    assert names["letter"] == {
        "binary": {"n": 40, "value": -0.52, "low": -0.8, "high": -0.2}
        | {"erased": -0.5, "elsewhere": 0.02, "flipped": 0.1, "flipped_elsewhere": 0.05}
    }
    found = names["cam_of_letter"]["binary"]
    low, high = np.quantile([0.125, 0.25, 0.25], [0.025, 0.975])
    expected = {"n": 2, "first": 0.125, "second": 0, "area": 4 / 64}
    assert found == expected | {"gap": 0.125, "low": low, "high": high, "equal": False}
    assert names["cam_of_letter"]["categorical"]["n"] == 0  # no image on which both have heat
    assert names["cam_of_letter"]["ours"]["equal"]
    assert (
        "With our network, on 2 images with pneumonia, Grad-CAM puts 12.5% of its heat on the "
        "letter (chance 6.2%)." in published.sentences[-1]
    )
    assert published.sentences[-1].startswith(
        "Erasing the letter changes the log-odds of the binary network by −0.500 [−0.700, −0.300] on "
        "40 images; erasing an equal area on the other side changes them by +0.020 [−0.100, +0.100]. With "
        "the binary network, on 2 images with pneumonia, Grad-CAM puts 12.5% of its heat on the letter and HiResCAM "
        "0.0% (chance 6.2%)"
    )


def test_chance_of_the_letter_is_that_of_the_images_whose_heat_is_compared():
    masks, heat = np.zeros((2, 8, 8), dtype=bool), np.ones((2, 8, 8))
    masks[0, 0, 0] = masks[1, :4] = True
    maps = {"binary": {"Grad-CAM": heat, "HiResCAM": heat * [[[1]], [[0]]]}}
    names = run_letter(masks, maps, weights=np.ones((3, 2)), text=lambda _: None)
    found = names["cam_of_letter"]["binary"]
    assert found["n"] == 1 and found["area"] == found["first"] == 1 / 64


@pytest.mark.parametrize(("verdicts", "gap"), [(["better", "no"], 0.01), (["–", "–"], -0.01)])
def test_last_sentences_of_chapter_7_say_what_is_shown_and_no_more(monkeypatch, verdicts, gap):
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    rows = {"network": "binary", "method": ["occlusion", "Grad-CAM"], "verdict": verdicts}
    names = {
        **{"bootstrap": bootstrap, "map_scores": map_scores, "effects": EFFECTS},
        **{"target": "lung", "place": "lung gain", "truth_below": 0, "planted": True},
        **dict.fromkeys(("by_place", "main", "faithful"), pd.DataFrame(rows)),
        **{"networks": {"binary": None}, "few": [0], "sane": None, "tables": tables},
        "border_gaps": {"binary": {"gap": (0.125, 0.1, 0.2)}},
        "unchanged": {"ours": 0.9},
        "aurocs": {"binary": [(0.95, 0.9, 1.0), (0.9, 0.8, 1.0), (0.5, 0.4, 0.6)]},
        "lost_outside": {"binary": (0.05, gap, 0.09), "ours": (0.0, -0.1, 0.1)},
        "surroundings": {
            "binary": (0.75, 0.7, 0.05, -0.1, 0.2),
            "ours": (0.85, 0.55, 0.3, 0.2, 0.4),
        },
        "experiments": {},
        "gain_of_other": {"occlusion": (1.2, np.nan, np.nan), "Grad-CAM": (0.5, 0.4, 0.6)},
        "hottest": "occlusion",
    }
    captions = graph.default()["07_explainability"].notebook.parent / "captions"
    Captions(captions / "07_explainability.toml", names, synthetic=True).text("found")
    (sentence,) = published.sentences
    falls = "the AUROC falls most with the binary network, from 0.950 to 0.900, by 0.050 [0.010,"
    assert (falls in sentence) == (gap > 0)
    assert "The border gap is 0.125 [0.10, 0.20] with the binary network." in sentence
    surroundings = "0.550 instead of 0.850 with our network (gap 0.300 [0.200, 0.400]; on unchanged"
    assert surroundings in sentence and "0.700 instead of" not in sentence
    none = "With fewer than 6 patients there are no verdicts by removal."
    assert ("by removal, 1 of" in sentence) != sentence.startswith(none)
    assert "up to 1.2 (occlusion, the highest of 2 methods" in sentence and "nan" not in sentence


@pytest.mark.parametrize(
    ("moved", "planted"),
    [
        ((3.0, 0.1), True),
        ((3.0, 3.5), False),
        ((3.0, 0.8), False),  # the other one relies on it too, though less
        ((3.0, -0.8), False),
        ((0.2, 0.0), False),
    ],
)
def test_twins_are_compared_only_where_one_relies_on_the_marker(monkeypatch, moved, planted):
    published, n = Published(), 40
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    gains = [np.linspace(5, 9, n), np.linspace(0, 1, n)]
    names = cells.run(
        "07_explainability",
        "07-twins-table",
        radiographs=None,
        reliance={
            name: (value, value - 0.05, value + 0.05)
            for name, value in zip(twins.BIAS, moved, strict=True)
        },
        gain={name: {"occlusion": pd.Series(g)} for name, g in zip(twins.BIAS, gains, strict=True)},
        pair=SimpleNamespace(groups=np.arange(n)),
        shown=np.arange(n),
        seed=0,
        table=lambda shown, *_, **__: published.tables.append(shown),
        figure=published,
    )
    assert ("fig-twins" in published.captions) == planted
    assert names["planted"] == planted and bool(published.tables) == planted
    assert ("was not planted" in published.sentences[-1]) != planted
    if planted:
        assert published.tables[0].loc[0, "AUROC"].startswith("1.000")


class RandomEmbeddings(SimpleNamespace):
    """A stage whose embeddings are random, for any number of images."""

    def cached(self, function, *arguments, images=None, layers=(), rows=None, **_):
        if function.__name__ == "fit_transform":
            return function(*arguments)
        images = arguments[-1] if images is None else images
        n = len(images) if rows is None else len(rows)
        return dict.fromkeys(layers, np.random.default_rng(n).normal(size=(n, 8)))

    save = log = lambda *_, **__: None


def neighbours_of(
    data,
    *,
    k=5,
    neighbours=(1, 3, 5, 9),
    blocks=2,
    more=(),
    unseen=("validation", "test"),
    **planted,
):
    """Run the chapter on nearest neighbours on random embeddings; return its names."""
    rng = np.random.default_rng(1)
    small = SimpleNamespace(input_shape=(None, 8, 8, 1))
    networks = dict.fromkeys(("binary", "categorical", "autoencoder"), small)
    networks["ours"] = architectures.residual_cnn(32, widths=[4] * blocks)
    embedding = {name: rng.normal(size=(len(data.index), 8)) for name in networks}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "embeddings.npz", **embedding)
        return cells.run(
            "05_knn",
            *("7e3b4f18", "7ce472f8", "05-13", "05-14", "267bca26", "05-20", *more),
            radiographs=data,
            networks=networks,
            embedding=embedding,
            stage=RandomEmbeddings(folder=Path(folder)),
            k=k,
            neighbours=list(neighbours),
            k_ours=9,
            seed=0,
            unseen_splits={"ours": list(unseen)},
            **planted,
        )


class Tables(Published):
    """Records the tables too."""

    def __init__(self):
        super().__init__()
        self.frames = {}

    def __call__(self, shown, *, id, caption, **_):
        super().__call__(shown, id=id, caption=caption)
        self.frames[id] = shown


@pytest.mark.parametrize("all_images", [True, False])
def test_our_rows_are_in_the_table_of_their_classes_and_on_splits_not_trained_on(all_images):
    data, shown = radiographs(train=30, validation=15, contiguous=15, test=15), Tables()
    rng = np.random.default_rng(0)
    y_prob, of_test = rng.dirichlet([1, 1, 1], len(data)), rng.dirichlet([1, 1, 1], 15)
    names = cells.run(
        "03_categorical",
        *("adapted", "4405f495"),
        radiographs=data,
        stage=SimpleNamespace(cached=lambda *_, **__: of_test, rows=graph.default().rows),
        card=scorecard.Scorecard(data),
        images=data.images,
        ours_probabilities=y_prob,
        ours_train=data["train"],
        sampling_weights=np.ones(30),
        ours_all_images=all_images,
        table=shown,
        validation=data["validation"],
        **{"ours": None, "on_crops": None, "seed": 0},
    )
    two, three = shown.frames["tab-ours-binary"], shown.frames["tab-categorical-scores"]
    both = {"Ours: residual network", "Ours, adapted to the test images"}
    assert set(two["row"]) == both | {"Ours, threshold for equal priors"}
    assert set(three["row"]) == both
    splits = {"test"} if all_images else {"validation", "contiguous", "test"}
    assert set(names["results"]["split"]) == set(two["split"]) == set(three["split"]) == splits
    # two of three sampled images have pneumonia: equal priors move the threshold to 2/3
    y_pred = names["card"].predictions.query("row == 'ours_equal_priors' and split == 'test'")
    assert (y_pred["y_pred"].to_numpy() == (1 - y_prob[-15:, 0] >= 2 / 3)).all()
    adapted = names["card"].predictions.query("row == 'ours_adapted'")  # of test images alone
    assert (adapted["y_pred"].to_numpy() == (1 - of_test[:, 0] >= 0.5)).all()


def test_neighbours_are_scored_on_the_splits_on_which_our_network_is(tmp_path):
    table = pd.DataFrame({"row": ["ours_binary", "other"], "split": ["test", "validation"]})
    table.to_csv(tmp_path / "scores.csv", index=False)
    stage = SimpleNamespace(input=lambda _, name: tmp_path / name)
    names = cells.run("05_knn", "b7d04e21", radiographs=None, stage=stage)
    assert names["unseen_splits"] == {"ours": ["test"]}


@pytest.mark.parametrize("unseen", [("validation", "test"), ("test",)])
def test_votes_in_our_embedding_are_those_of_its_training_images_and_corrected(unseen):
    """For the share of pneumonia; by default our network was trained on the validation images too."""
    data = radiographs(train=60, validation=40, test=40)
    names = neighbours_of(data, unseen=unseen)
    vote, not_train = names["classifier"], data.index["split"].isin(unseen).to_numpy()
    votes = vote.predict_proba(names["embedding"]["ours"][not_train])[:, 1]
    assert vote.n_samples_fit_ == (60 if "validation" in unseen else 100)
    share = (data["train"] if "validation" in unseen else data.trainable).pneumonia.mean()
    expected = votes / share / (votes / share + (1 - votes) / (1 - share))
    assert vote.n_neighbors == names["k_ours"] == 9
    assert np.allclose(names["cosine_prob"]["ours"][not_train], expected)


def test_k_is_chosen_by_the_same_vote_that_is_scored():
    """On random points, the study of our embedding matches scikit-learn's weighted cosine vote."""
    data = radiographs(train=60, validation=40, test=40)
    names = neighbours_of(data)
    train, validation = data["train"], data["validation"]
    study = names["study"].query(f"model == 'ours' and layer == '{architectures.EMBEDDING}'")
    scored = names["classifier"]
    points, queries = (np.random.default_rng(n).normal(size=(n, 8)) for n in (60, 40))
    for line in study.itertuples():
        vote = KNeighborsClassifier(line.k, metric=scored.metric, weights=scored.weights)
        vote.fit(points, train.pneumonia)
        assert vote.score(queries, validation.pneumonia) == line.accuracy
    assert (scored.metric, scored.weights) == ("cosine", "distance")


def test_layers_of_the_study_follow_the_number_of_blocks():
    names = neighbours_of(radiographs(train=60, validation=40, test=40), blocks=1)
    layers = names["study"].query("model == 'ours'")["layer"].unique()
    assert list(layers) == ["stem_relu", "block1", architectures.EMBEDDING]


def test_k_is_limited_by_the_number_of_training_images():
    data = radiographs(train=6, validation=3, test=3)
    names = neighbours_of(data, k=1000, neighbours=[3, 9, 25])
    assert names["k"] == 6 and sorted(set(names["study"]["k"])) == [3, 6]
    assert not names["study"].duplicated(["model", "layer", "k"]).any()


def compared_with_majority(monkeypatch, data, *, right):
    """Return the ending of chapter 5's findings; other networks are right on half of the images."""
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    with data.evaluation():
        y_true = (data.index["class_name"] != "normal").to_numpy()
    rng = np.random.default_rng(0)
    y_prob = {
        name: np.where(rng.random(len(y_true)) < (0.95 if name in right else 0.5), y_true, ~y_true)
        for name in ("binary", "autoencoder", "ours")
    }
    cells.run(
        "05_knn",
        "05-24",
        radiographs=data,
        **{"train": data["train"], "test": data["test"], "split": data.index["split"].to_numpy()},
        **{"binary_prob": y_prob, "cosine_prob": y_prob, "majority": 0.63, "seed": 0},
        **{"of_test": collections.defaultdict(float), "k": 5, "k_ours": 9},
    )
    return " ".join(published.sentences[-1].split()).partition("of the training images has ")[2]


ALL_NOT_SHOWN = (
    "63.0%; neighbours in the binary embedding, the autoencoder's code and our network's embedding are not "
    "shown to be more accurate."
)


@pytest.mark.parametrize(
    ("right", "ending"),
    [
        ((), ALL_NOT_SHOWN),
        (
            ("binary", "ours"),
            "63.0%; neighbours in the autoencoder's code are not shown to be more accurate.",
        ),
        (("binary", "autoencoder", "ours"), "63.0%."),
    ],
)
def test_neighbours_are_compared_with_the_majority_class_on_the_same_images(
    monkeypatch, right, ending
):
    data = radiographs(train=60, test=60)
    assert compared_with_majority(monkeypatch, data, right=right) == ending


def test_few_patients_do_not_show_neighbours_to_be_more_accurate(monkeypatch):
    data = radiographs(train=60, test=15)  # five of them normal
    right = ("binary", "autoencoder", "ours")
    assert compared_with_majority(monkeypatch, data, right=right) == ALL_NOT_SHOWN


@pytest.mark.parametrize("many", [False, True])
def test_among_many_images_some_training_images_vote_and_captions_say_so(monkeypatch, many):
    monkeypatch.setattr(sampling, "MANY", 100 if many else 140)
    monkeypatch.setattr(sampling, "REFERENCES", 20)
    data, shown = radiographs(train=60, validation=40, test=40), Published()
    more = ("05-16", "05-17", "05-18", "05-21", "05-15")
    options = {"figure": shown, "table": shown, "pool_of": {}, "held_out_name": "images"}
    names = neighbours_of(data, more=more, text=lambda _: None, **options)
    voters, train = names["voters"], data["train"]
    assert voters.sum() == (20 if many else 60)
    points = names["embedding"]["binary"]
    vote = KNeighborsClassifier(5).fit(points[:60][voters], train.pneumonia[voters])
    expected = vote.predict_proba(points[60:])[:, 1]
    assert np.array_equal(names["binary_prob"]["binary"][60:], expected)
    assert voters[names["neighbour_rows"]].all()
    nearest = vote.kneighbors(points[100:][names["queries"]], return_distance=False)
    assert np.array_equal(names["neighbour_rows"], np.flatnonzero(voters)[nearest])
    assert (len(names["study_train"]), len(names["held_out"])) == ((20, 20) if many else (60, 40))
    assert len(names["rows"]) == (60 if many else 140)  # embedded for the chosen layers
    said = "Neighbours are sought among 20 of the 60 training images, drawn at random."
    for caption in ("fig-knn-layers", "tab-knn-chosen", "fig-neighbours"):
        assert (said in " ".join(shown.captions[caption].split())) == many


def test_among_many_images_some_normal_ones_are_references(monkeypatch):
    monkeypatch.setattr(sampling, "MANY", 100)
    monkeypatch.setattr(sampling, "REFERENCES", 15)
    data = radiographs(side=32, train=90, validation=40, test=40)
    with data.evaluation():
        names = cells.run(
            "04_autoencoder",
            "ddad3c0b",
            radiographs=data,
            held_out=data["validation"],
            stage=SimpleNamespace(cached=lambda f, *a: f(*a), log=lambda _: None),
            seed=0,
        )
    assert names["n_normal"] == 30 and len(names["normal"]) == 15
    assert len(names["of_normal"]) == 15
    assert np.isfinite(names["distance"]["anomaly_both"][90:]).all()


def test_trustworthiness_of_a_large_map_is_that_of_a_sample(monkeypatch):
    received = {}

    def trustworthiness(points, plane, *, n_neighbors):
        received.update(points=points, plane=plane, n_neighbors=n_neighbors)
        return 0.5

    points = np.random.default_rng(0).normal(size=(5100, 4))
    stage = SimpleNamespace(
        cached=lambda _, points: points[:, :2], save=lambda *_: None, log=lambda _: None
    )
    names = cells.run(
        "06_tsne",
        *("06-07", "06-08"),
        radiographs=radiographs(train=5000, test=100),
        embedding=Arrays(binary=points),
        stage=stage,
        perplexity=30.0,
        max_images=20_000,
        seed=0,
        trustworthiness=trustworthiness,
    )
    judged = points[names["judged"]]
    assert len(np.unique(judged, axis=0)) == 5000
    assert np.array_equal(received["points"], judged) and received["n_neighbors"] == 10
    assert np.array_equal(received["plane"], judged[:, :2])
    assert names["quality"]["binary"] == 0.5


@pytest.mark.parametrize("n", [3, 4, 12, 40])
def test_tsne_maps_few_images(n):
    """The embeddings have more dimensions than there are images."""
    names = cells.run(
        "06_tsne",
        *("06-07", "06-08", "06-11"),
        radiographs=radiographs(train=n - 1, test=1),
        embedding=Arrays(binary=np.random.default_rng(0).normal(size=(n, 64))),
        stage=RandomEmbeddings(),
        perplexity=30.0,
        max_images=50,
        seed=0,
    )
    assert np.isfinite(names["maps"]["binary"][["x", "y"]].to_numpy()).all()
    assert 0 <= names["quality"]["binary"] <= 1


def test_nearest_images_on_a_map_are_compared_with_chance_and_ties_are_named(monkeypatch):
    """Two maps on which every nearest image is of the same class, and one on which none is."""
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    data = radiographs(train=6, test=3)
    with data.evaluation():
        shown = pd.DataFrame({name: data.index[name] for name in ("split", "class_name")})
    of_class = pd.factorize(shown["class_name"])[0]
    grouped = pd.DataFrame({"x": 10 * of_class + np.arange(9) / 9, "y": 0})
    mixed = pd.DataFrame({"x": np.arange(9), "y": 0})
    maps = {"binary": grouped, "autoencoder": mixed, "ours": grouped}
    names = cells.run(
        "06_tsne",
        *("06-11", "06-14"),
        radiographs=data,
        **{"maps": maps, "quality": dict.fromkeys(maps, 1.0), "shown": shown},
    )
    assert names["agreement"]["by chance"].tolist() == [2 / 8] * 3  # three of nine, itself not
    sentence = " ".join(published.sentences[-1].split())
    assert "most often for the binary and our network's embedding (100%)" in sentence
    assert "least often for the autoencoder embedding (0%); by chance it would be 25%." in sentence


def test_specificity_to_expect_of_a_threshold_that_is_a_percentile_of_few_images():
    rng = np.random.default_rng(0)
    names = cells.run(
        "04_autoencoder",
        "ded5266a",
        radiographs=None,
        held_out=Labelled(pneumonia=np.repeat([0, 1], [5, 3])),
        **{"held_out_distance": {"anomaly_both": rng.random(8)}, "normal_percentile": 90.0},
        text=lambda _: None,
    )
    # of uniform values, the share below a threshold is the threshold
    thresholds = np.percentile(rng.random((20_000, 5)), 90, axis=1)
    assert names["expected_specificity"] == pytest.approx(thresholds.mean(), abs=0.003)


class Arrays(dict):
    """Stands in for an open ``.npz`` file."""

    files = property(list)


def test_tsne_runs_on_one_thread():
    """Several threads of t-SNE wait for each other thousands of times: `benchmarks/tsne.py`."""
    threads = []

    class ThreadCounting(RandomEmbeddings):
        def cached(self, _, points):
            threads.extend(p["num_threads"] for p in threadpool_info() if p["user_api"] == "openmp")
            return points[:, :2]

    with threadpool_limits(2, user_api="openmp"):
        cells.run(
            "06_tsne",
            *("06-07", "06-08"),
            radiographs=radiographs(train=30, test=10),
            embedding=Arrays(binary=np.random.default_rng(0).normal(size=(40, 4))),
            stage=ThreadCounting(),
            **{"perplexity": 5.0, "max_images": 50, "seed": 0},
        )
    assert threads and set(threads) == {1}


def test_effect_of_averaging_over_mirror_images_and_crops_is_reported(monkeypatch):
    """The network predicts every image correctly, but every mirror image and every crop wrongly."""
    data, published = radiographs(train=30, test=30), Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    monkeypatch.setattr("cxr_helpers.figures.charts.learning_curves", lambda _: None)
    with data.evaluation():
        category = data.category
    right, wrong = np.eye(3)[category], np.eye(3)[(category + 1) % 3]
    saved = {}

    def cached(function, model, images, layers=()):
        if layers:
            assert model.input_shape == (None, 8, 8, 1)
            return {layers[0]: np.ones((60, 4)), layers[1]: wrong}
        return right if np.array_equal(images, data.images) else wrong

    names = cells.run(
        "03_categorical",
        *("16000a63", "5d1c8f27"),
        radiographs=data,
        stage=SimpleNamespace(
            save=lambda name, _, values: saved.update({name: values}), cached=cached
        ),
        ours=architectures.residual_cnn(None, widths=(4,)),
        **{
            "ours_history": pd.DataFrame({"loss": [1.0, 0.5]}),
            "options": {"widths": (4,), "classes": 3},
            "seed": 0,
            "figure": published,
        },
        **{"ours_crop_size": 16, "ours_test_size": 8},  # no crop is larger than the image
        **{"ours_train": data["train"], "validation": data.selection},
    )
    assert np.array_equal(names["ours_probabilities"], right / 4 + wrong * 3 / 4)
    assert saved["ours.json"] == {"widths": (4,), "classes": 3, "image_size": 8, "crop_size": 8}
    assert saved["ours_embedding.npy"].shape == (60, 4)
    alone, mirrored, crops = published.sentences[-1].split(", ")[-3:]
    assert alone.count("100.0%") == 2 and "from the whole image alone" in alone
    assert "mirror image" in mirrored
    # bacterial for viral is wrong among three classes only
    assert crops.startswith("33.3% for normal or pneumonia")
    assert crops.endswith("and 0.0% for three classes from the ten crops.")


def error_and_detail(*, detail_difference, error_difference=0.0):
    """Return error and detail of 60 normal and 60 pneumonia images with these log differences."""
    rng = np.random.default_rng(0)
    pneumonia = np.repeat([0, 1], 60)
    detail = np.exp(rng.normal(size=120) - detail_difference * pneumonia)
    log_error = np.log(detail) + 0.2 * rng.normal(size=120)
    error = np.exp(log_error - error_difference * pneumonia)
    columns = {f"{name} {b}": np.full(120, value) for b in (1, 2, 4, 8) for name, value in BANDS}
    for region in ("whole", "middle", "outer"):
        columns |= {f"error {region}": error, f"detail {region}": detail}
    return pd.DataFrame(columns)


BANDS = [("energy", 4.0), ("lost", 3.0)]


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        ({"detail_difference": 0}, "nothing to explain"),
        ({"detail_difference": 2}, "at equal detail, no difference"),
        ({"detail_difference": 2, "error_difference": 0.15}, "smaller but still there"),
        ({"detail_difference": -2, "error_difference": 0.15}, "the opposite direction"),
        (
            {"detail_difference": -2, "error_difference": 4},
            "the difference between the classes is larger.",
        ),
        ({"detail_difference": -2, "error_difference": -0.3}, "smaller but still there"),
        (
            {"detail_difference": 2, "error_difference": -4},
            "the difference between the classes is larger.",
        ),
        ({"detail_difference": 0, "error_difference": 8}, "not shown to be smaller or larger"),
        ({"detail_difference": 0, "error_difference": -8}, "not shown to be smaller or larger"),
    ],
)
@pytest.mark.parametrize("fewest", [5, 60])
def test_verdict_on_error_and_detail_follows_the_planted_differences(
    monkeypatch, planted, verdict, fewest
):
    published = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    y_true = np.repeat([0, 1], 60)
    index = pd.DataFrame({"split": "train", "class_name": np.where(y_true, "viral", "normal")})
    names = cells.run(
        "04_autoencoder",
        *("c27f6e51", "9d04a3b7", "e85c20f4"),
        stage=SimpleNamespace(cached=lambda *_: error_and_detail(**planted)),
        held_out=dataset.Part(np.zeros((120, 1, 1), np.uint8), index),
        weights=bootstrap.resamples(np.arange(120), y_true, draws=400, seed=0),
        **{"model": None, "held_out_name": "images", "table": published, "fewest": fewest},
    )
    concluded = verdict if fewest > 5 else "of 5 patients of the rarer class, nothing is concluded"
    assert concluded in published.sentences[-1] and "75%" in published.sentences[-1]
    detail_differs = planted["detail_difference"] != 0 and fewest > 5
    assert ("outer sixth, too" in published.sentences[-1]) == detail_differs
    assert [line[0] for line in names["lines"]] == ["whole", "middle", "outer"]


def misclassified(monkeypatch, kinds):
    """Return what is published on the errors if every test image of these kinds is misclassified."""
    data, published = radiographs(train=12, test=12), Published()
    if kinds == "pneumonia":
        data = dataset.Dataset(
            data.images,
            class_names.relabelled(data._rows, class_names.BINARY_CLASSES),
            data.facts | {"two_class_reason": "their names do not say it"},
            classes=class_names.BINARY_CLASSES,
        )
    elif kinds == "none":  # a network of three classes, on images labelled with two
        rows = data._rows
        pneumonia = (rows["split"] == "test") & (rows["class_name"] != "normal")
        rows.loc[pneumonia, "class_name"] = class_names.UNKNOWN
        data.facts["two_class_reason"] = "their names do not say it"
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", published.text)
    with data.evaluation():
        y_true = data["test"].category
    labelled, n = y_true >= 0, len(data.classes)
    cells.run(
        "03_categorical",
        *("03-16", "03-17", "03-20"),
        radiographs=data,
        classes=data.classes,
        count_word={2: "two", 3: "three"}[n],
        labelled=labelled,
        y_true=y_true[labelled],
        y_pred=(n - y_true[labelled]) % n,
        y_prob=np.full((labelled.sum(), n), 1 / n),
        figure=published,
        table=published,
    )
    return published


def test_confusions_of_bacterial_and_viral_pneumonia_have_a_section(monkeypatch):
    published = misclassified(monkeypatch, "bacterial and viral")
    assert "three-class" in published.captions["fig-categorical-confusion"]
    heading, question = published.sentences
    assert heading == "## Confusion of bacterial and viral pneumonia"
    assert question.startswith("Of the test images with pneumonia, which ones does the published")
    assert "fig-confused" in published.captions


def test_two_classes_have_a_confusion_matrix_but_no_section_on_subtypes(monkeypatch):
    published = misclassified(monkeypatch, "pneumonia")
    assert "two-class" in published.captions["fig-categorical-confusion"]
    assert set(published.captions) == {"fig-categorical-confusion", "tab-categorical-classes"}
    assert not published.sentences


def test_three_class_predictions_without_subtype_labels_are_not_scored(monkeypatch):
    published = misclassified(monkeypatch, "none")
    assert not published.captions
    assert published.sentences[0].startswith("Without the kinds of pneumonia")


def test_earlier_models_of_two_classes_determine_the_classes_of_new_images(monkeypatch):
    data = radiographs(test=9)
    earlier = SimpleNamespace(
        classes=class_names.BINARY_CLASSES, facts={"two_class_reason": "as of other images"}
    )
    monkeypatch.setattr(dataset, "read", lambda _: earlier)
    names = cells.run(
        "01_data",
        "01-15",
        radiographs=data,
        source=SimpleNamespace(index=data._rows),
        pairs=pd.DataFrame({"first": [], "second": []}),
        leaking=np.zeros(9, dtype=bool),
        stage=SimpleNamespace(earlier=Path("earlier")),
        seed=0,
    )
    assert set(names["index"]["class_name"]) == {"normal", "pneumonia"}
    assert names["classes"] == class_names.BINARY_CLASSES
    assert names["two_class_reason"] == "the models of the earlier run distinguish two classes"


def test_markdown_cells_do_not_state_the_number_of_classes():
    """A run may have two or three: Markdown cells must be true of both."""
    for book in sorted(cells.FOLDER.glob("*.ipynb")):
        for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                prose = "".join(cell["source"])
                assert "three-class" not in prose and "same three" not in prose, book.name

"""What notebooks do with planted data: their own cells, run one by one."""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import cells
import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from cxr_helpers.data import class_names, dataset
from cxr_helpers.evaluation import bootstrap
from cxr_helpers.models import architectures
from cxr_helpers.pipeline import stages
from cxr_helpers.pipeline.runs import Run


def radiographs(**images):
    """Return small data with so many images of a split, two of three with pneumonia."""
    n = sum(images.values())
    names = np.array(["normal", "bacterial", "viral"])[np.arange(n) % 3]
    index = pd.DataFrame(
        {"split": np.repeat(list(images), list(images.values())), "class_name": names}
    )
    index["group"] = [f"{name} {i}" for i, name in enumerate(names)]
    index["file"] = index["group"] + ".png"
    index["border_normal"] = np.where(np.arange(n) % 2, 0.4, 0.6)
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    return dataset.Dataset(images, index, {"synthetic": True, "image_size": 8})


class Published:
    """Stands for what a notebook publishes: captions by id, and sentences."""

    def __init__(self):
        self.captions, self.sentences = {}, []

    def __call__(self, shown, *, id, caption, **_):
        self.captions[id] = caption

    def text(self, sentence):
        self.sentences.append(sentence)


def calibrated(monkeypatch, *, balanced=False, **images):
    """Run chapter 2's section on cut and calibration; return its names and what it published."""
    data, said = radiographs(**images), Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    train, validation = data["train"], data.selection
    with data.evaluation():
        truth = data["test"].pneumonia
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
        truth=truth,
        y_score=probability[data.index["split"] == "test"],
        seed=0,
        figure=said,
        table=said,
    )
    return names, said


@pytest.mark.parametrize(("balanced", "odds"), [(False, 1 / 2), (True, 2)])
def test_the_prior_is_corrected_from_what_the_network_was_trained_at(monkeypatch, balanced, odds):
    """Two of three training images have pneumonia: odds of 2 to 1 or, drawn equally often, 1 to 1."""
    names, _ = calibrated(monkeypatch, balanced=balanced, train=30, validation=30, test=30)
    corrected = list(names["curves"].values())[-1]
    moved = special.logit(corrected) - special.logit(names["score"])
    assert np.allclose(moved, np.log(odds))


def test_without_validation_no_cut_and_no_temperature_is_fitted(monkeypatch):
    names, said = calibrated(monkeypatch, train=30, test=30)
    assert list(names["cuts"]) == ["0.5"] and names["temperature"] is None
    assert "no validation images" in said.captions["tab-binary-cuts"]
    assert "temperature" not in said.captions["fig-binary-reliability"]
    assert "No temperature was fitted" in said.sentences[-1]


def test_with_validation_both_are_fitted_on_it(monkeypatch):
    names, said = calibrated(monkeypatch, train=30, validation=30, test=30)
    assert len(names["cuts"]) == 3 and names["temperature"] > 0
    assert "chosen on 30 validation images" in said.captions["tab-binary-cuts"]


@pytest.mark.parametrize(("patients", "turned"), [(60, True), (3, False)])
def test_the_direction_of_the_autoencoder_needs_patients_not_images(patients, turned):
    """An AUROC of one third on 120 images: convincing from 60 patients a class, not from three."""
    group = np.repeat(np.arange(2 * patients), 60 // patients)
    held = dataset.Part(
        np.zeros((120, 8, 8), np.uint8),
        pd.DataFrame(
            {"split": "train", "class_name": ["normal"] * 60 + ["viral"] * 60, "group": group}
        ),
    )
    normal, viral = [1.0, 2.0, 3.0], [0.5, 1.5, 2.5]  # by hand: 3 of 9 pairs are in order
    error = np.r_[np.repeat(normal, 20), np.repeat(viral, 20)]
    stage = SimpleNamespace(cached=lambda *_: error)
    names = cells.run(
        "04_autoencoder", "04-15", stage=stage, held=held, model=None, seen="images", seed=0
    )
    assert names["held_auroc"] == pytest.approx(1 / 3)
    assert (names["direction"] == -1) == turned


def test_near_duplicates_in_train_lie_on_one_side_of_every_cut():
    """Images 0 and 300, 1 and 301 and so on are near-duplicates of different patients."""
    n = np.arange(600)
    index = pd.DataFrame({"split": "train", "class_name": np.where(n % 2, "viral", "normal")})
    index["group"] = index["class_name"] + " " + n.astype(str)
    source = SimpleNamespace(index=index)
    pairs = pd.DataFrame({"first": n[:300], "second": n[300:]})
    given = {"validation_fraction": 0.2, "contiguous_fraction": 0.2, "choose_by": "group"}
    names = cells.run(
        "01_data",
        "01-15",
        source=source,
        pairs=pairs,
        leaking=np.zeros(600, dtype=bool),
        stage=SimpleNamespace(earlier=None),
        seed=0,
        **given,
    )
    split = names["index"]["split"].to_numpy()
    assert (split[:300] == split[300:]).all() and set(split) == {
        "train",
        "validation",
        "contiguous",
    }


def with_frame(data, *, knows):
    """Let the frame contradict every fourth image of each class; or every second, which is nothing."""
    rows = data._rows
    number = rows.groupby(["split", "class_name"]).cumcount().to_numpy()
    against = number % (4 if knows else 2) == 0
    normal = (rows["class_name"] == "normal").to_numpy()
    rows["border_normal"] = np.where(normal != against, 0.9, 0.05)
    rows["border_bacterial"] = rows["border_viral"] = (1 - rows["border_normal"]) / 2
    return data, against


@pytest.mark.parametrize("knows", [True, False])
def test_chapter_one_counts_what_the_frame_contradicts_or_says_that_it_knows_nothing(
    monkeypatch, knows
):
    data, _ = with_frame(radiographs(train=120, test=120), knows=knows)
    said, tables = Published(), {}
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    names = cells.run(
        "01_data",
        *("b389fed8", "75872b9f"),
        radiographs=data,
        of_size={"pneumonia": None},
        by_border=data._rows[["border_normal", "border_bacterial", "border_viral"]].to_numpy(),
        by_size=defaultdict(float),
        centre_share=0.68,
        seed=0,
        table=lambda shown, *, id, **_: tables.update({id: shown}),
    )
    groups = tables["tab-border-groups"].set_index("split").loc["test"]
    assert groups[["normal, frame against", "pneumonia, frame against"]].sum() == knows * 30
    assert ("nothing for a label to contradict" in said.sentences[0]) != knows
    # the frame itself is wrong there by definition
    scored = set(names["results"]["metric"])
    assert scored and not scored & {"worst_group_accuracy", "conflicting_auroc"}


@pytest.mark.parametrize("knows", [True, False])
def test_our_network_draws_contradicted_images_more_often_only_where_the_frame_knows(
    monkeypatch, knows
):
    data, against = with_frame(radiographs(train=120, test=3), knows=knows)
    said = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    names = cells.run(
        "03_categorical",
        "0d4deb89",
        radiographs=data,
        train=data["train"],
        classes=data.classes,
        size=8,
        batch_size=32,
        seed=0,
        **{"ours_epochs": 1, "ours_learning_rate": 0.1, "ours_weight_decay": 0.0},
        **{"ours_widths": [4], "ours_conflict_weight": 8.0},
    )
    drawn = names["chances_to_draw"]
    ratio = drawn[against[:120]].mean() / drawn[~against[:120]].mean()
    assert ratio == pytest.approx(8 if knows else 1)
    assert ("30 of 120 training images are drawn 8 times" in said.sentences[0]) == knows
    assert ("nothing for a label to contradict" in said.sentences[0]) != knows


def computed(function, *arguments, **how):
    """Stand for `Stage.cached`."""
    return function(*arguments, **how)


def test_heat_maps_of_single_images_are_kept(monkeypatch):
    """Each for the class that is said: here a map holds nothing but that class."""
    asked = []
    monkeypatch.setattr(
        "cxr_helpers.explain.gradcam.gradcam",
        lambda _, images, *, layer, class_index: np.full((len(images), 2, 2), class_index),
    )
    names = cells.run(
        "07_explainability",
        "07-14",
        radiographs=None,
        stage=SimpleNamespace(
            cached=lambda *given, **how: asked.append(how) or computed(*given, **how),
            save=lambda *_, **__: None,
        ),
        groups={"normal, right": [0, 2], "wrong": [1]},
        says=np.array([0, 2, 1]),
        test=SimpleNamespace(images=np.zeros((3, 2, 2), np.uint8)),
        **{"categorical": None, "gradcam_layer": "conv4"},
    )
    assert names["heats"]["normal, right"][:, 0, 0].tolist() == [0, 1]
    assert names["heats"]["wrong"][:, 0, 0].tolist() == [2] and len(asked) == 3


def test_on_real_images_the_section_on_heat_measures_too(monkeypatch):
    """All occlusion heat in the outermost row, all Grad-CAM heat in the centre."""
    edge, centre = np.zeros((2, 12, 12)), np.zeros((2, 12, 12))
    edge[:, 0], centre[:, 6, 6] = 1, 1
    said = Published()
    monkeypatch.setattr("cxr_helpers.explain.gradcam.gradcam", lambda *_, **__: centre)
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    cells.run(
        "07_explainability",
        *("07-17", "07-18", "07-21"),
        radiographs=SimpleNamespace(facts={"has_truth": False}),
        stage=SimpleNamespace(cached=computed),
        chosen={"pneumonia": np.array([0, 1])},
        maps={"pneumonia": edge},
        test=SimpleNamespace(images=np.zeros((2, 12, 12), np.uint8)),
        **{"size": 12, "cover": 0.0, "occlude": lambda _: edge, "binary": None, "table": said},
    )
    assert "2 test images" in said.captions["tab-localization"]
    black, _, cam = said.sentences[-1].split(" With ")
    assert "100% of the heat lies in the outer sixth of each side" in black
    assert "takes up 56% of the image" in black and cam.startswith(
        "Grad-CAM, conv4, 0% of the heat"
    )


class Remembered(SimpleNamespace):
    """A stage that has embeddings, at random, of as many images as it is asked for."""

    def cached(self, function, *_, images=None, layers=(), **__):
        if function.__name__ == "fit_transform":
            return function(*_)
        points = np.random.default_rng(len(images)).normal(size=(len(images), 8))
        return dict.fromkeys(layers, points)

    save = say = lambda *_, **__: None


def neighbours_of(data, *, k=5, neighbours=(1, 3, 5, 9), blocks=2):
    """Run chapter 5 on random embeddings up to the scores of our network's; return its names."""
    draw = np.random.default_rng(1)
    networks = dict.fromkeys(("binary", "categorical", "autoencoder", "ours"))
    networks["ours"] = architectures.residual_cnn(32, widths=[4] * blocks)
    return cells.run(
        "05_knn",
        *("7e3b4f18", "7ce472f8", "05-13", "05-14", "267bca26", "05-20"),
        radiographs=data,
        networks=networks,
        embedding={name: draw.normal(size=(len(data.index), 8)) for name in networks},
        stage=Remembered(),
        k=k,
        neighbours=list(neighbours),
        seed=0,
    )


def test_k_is_chosen_by_the_vote_that_is_scored():
    """On random points the study of our embedding is scikit-learn's by cosine and distance."""
    data = radiographs(train=60, validation=40, test=40)
    names = neighbours_of(data)
    learn, choose = data["train"], data["validation"]
    study = names["study"].query(f"model == 'ours' and layer == '{architectures.EMBEDDING}'")
    used = names["vote"]
    near, asked = (np.random.default_rng(n).normal(size=(n, 8)) for n in (60, 40))
    for line in study.itertuples():
        vote = KNeighborsClassifier(line.k, metric=used.metric, weights=used.weights)
        assert vote.fit(near, learn.pneumonia).score(asked, choose.pneumonia) == line.accuracy
    assert (used.metric, used.weights) == ("cosine", "distance")


def test_a_network_of_one_block_has_fewer_layers_to_try():
    names = neighbours_of(radiographs(train=60, validation=40, test=40), blocks=1)
    tried = names["study"].query("model == 'ours'")["layer"].unique()
    assert list(tried) == ["stem_relu", "block1", architectures.EMBEDDING]


def test_with_few_images_all_of_them_vote():
    data = radiographs(train=6, validation=3, test=3)
    names = neighbours_of(data, k=1000, neighbours=[3, 9, 25])
    assert names["k"] == 6 and sorted(set(names["study"]["k"])) == [3, 6]
    assert not names["study"].duplicated(["model", "layer", "k"]).any()


@pytest.mark.parametrize("n", [3, 4, 12, 40])
def test_few_images_make_a_map(n):
    """Of embeddings with more numbers than there are images."""
    names = cells.run(
        "06_tsne",
        *("06-07", "06-08", "06-11"),
        radiographs=radiographs(train=n - 1, test=1),
        embedding=Arrays(binary=np.random.default_rng(0).normal(size=(n, 64))),
        stage=Remembered(),
        perplexity=30.0,
        max_images=50,
        seed=0,
    )
    assert np.isfinite(names["maps"]["binary"][["x", "y"]].to_numpy()).all()
    assert 0 <= names["quality"]["binary"] <= 1


class Arrays(dict):
    """Stands for an open ``.npz`` file."""

    files = property(list)


def test_maps_are_computed_on_one_thread():
    """Threads of t-SNE wait for each other thousands of times: `benchmarks/tsne.py`."""
    threads = []

    class Watching(Remembered):
        def cached(self, _, points):
            threads.extend(p["num_threads"] for p in threadpool_info() if p["user_api"] == "openmp")
            return points[:, :2]

    with threadpool_limits(2, user_api="openmp"):
        cells.run(
            "06_tsne",
            *("06-07", "06-08"),
            radiographs=radiographs(train=30, test=10),
            embedding=Arrays(binary=np.random.default_rng(0).normal(size=(40, 4))),
            stage=Watching(),
            **{"perplexity": 5.0, "max_images": 50, "seed": 0},
        )
    assert threads and set(threads) == {1}


def test_what_only_our_network_has_is_measured_and_said(monkeypatch):
    """Right about every image as it is, and as surely wrong about its mirror image."""
    data, said = radiographs(train=30, test=30), Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    monkeypatch.setattr("cxr_helpers.figures.charts.learning_curves", lambda _: None)
    with data.evaluation():
        category = data.category
    right, wrong = np.eye(3)[category], np.eye(3)[(category + 1) % 3]

    def cached(function, model, images):
        return right if np.array_equal(images, data.images) else wrong

    names = cells.run(
        "03_categorical",
        *("16000a63", "5d1c8f27"),
        radiographs=data,
        stage=SimpleNamespace(save=lambda *_: None, cached=cached),
        ours=SimpleNamespace(count_params=lambda: 1),
        **{"ours_history": None, "recipe": {}, "seed": 0, "figure": said},
        **{"train": data["train"], "validation": data.selection},
    )
    assert np.array_equal(names["ours_probabilities"], (right + wrong) / 2)
    assert said.sentences[-1].count("100.0%") == 2 and "mirror image" in said.sentences[-1]


def test_a_network_without_any_heat_lets_the_last_chapter_end(tmp_path, monkeypatch):
    """Few images may leave a network dead: Grad-CAM is then nothing but zero."""
    said = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    columns = ["hottest point inside", "heat inside", "area (chance)"]
    found = pd.DataFrame([[0.0, np.nan, 0.5]], columns=columns)
    cells.run(
        "07_explainability",
        *("07-19", "07-21"),
        found=found.assign(method="Grad-CAM", part="lesion"),
        stage=stages.Stage("01_data", run_dir=tmp_path),
        chosen={},
        patch=2,
        truths={"lesion": None},
    )
    declared = Run(tmp_path).declared("01_data")["facts"]["localization"]
    assert declared[0]["heat inside"] is None and declared[0]["area (chance)"] == 0.5
    assert said.sentences == ["With Grad-CAM, no image has any heat."]


def error_and_detail(*, difference, beyond=0.0):
    """Return what 60 normal and 60 images with pneumonia are made to have: log detail and error."""
    draw = np.random.default_rng(0)
    sick = np.repeat([0, 1], 60)
    detail = np.exp(draw.normal(size=120) - difference * sick)
    error = np.exp(np.log(detail) + 0.2 * draw.normal(size=120) - beyond * sick)
    columns = {f"{name} {b}": np.full(120, value) for b in (1, 2, 4, 8) for name, value in BANDS}
    for region in ("whole", "middle", "outer"):
        columns |= {f"error {region}": error, f"detail {region}": detail}
    return pd.DataFrame(columns)


BANDS = [("energy", 4.0), ("lost", 3.0)]


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        ({"difference": 0}, "nothing to explain"),
        ({"difference": 2}, "at equal detail no difference"),
        ({"difference": 2, "beyond": 0.15}, "goes with part of the difference"),
        ({"difference": -2, "beyond": 0.15}, "the other way round"),
        ({"difference": -2, "beyond": 4}, "does not explain"),
    ],
)
def test_the_autoencoders_error_is_explained_by_what_was_measured(monkeypatch, planted, verdict):
    said = Published()
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    truth = np.repeat([0, 1], 60)
    index = pd.DataFrame({"split": "train", "class_name": np.where(truth, "viral", "normal")})
    names = cells.run(
        "04_autoencoder",
        *("c27f6e51", "9d04a3b7", "e85c20f4"),
        stage=SimpleNamespace(cached=lambda *_: error_and_detail(**planted)),
        held=dataset.Part(np.zeros((120, 1, 1), np.uint8), index),
        draws=bootstrap.resamples(np.arange(120), truth, draws=400, seed=0),
        **{"model": None, "seen": "images", "table": said},
    )
    assert verdict in said.sentences[-1] and "75%" in said.sentences[-1]
    apart = planted["difference"] != 0
    assert ("outer sixth, too" in said.sentences[-1]) == apart
    assert [line[0] for line in names["lines"]] == ["whole", "middle", "outer"]


def confused(monkeypatch, kinds):
    """Run chapter 3 on test images of these kinds that are all misread; return what it published."""
    data, said = radiographs(train=12, test=12), Published()
    if kinds == "pneumonia":
        data = dataset.Dataset(
            data.images,
            class_names.relabelled(data._rows, class_names.BINARY_CLASSES),
            data.facts | {"two_class_reason": "their names do not say it"},
            classes=class_names.BINARY_CLASSES,
        )
    elif kinds == "none":  # models of three classes, on images that tell two
        rows = data._rows
        ill = (rows["split"] == "test") & (rows["class_name"] != "normal")
        rows.loc[ill, "class_name"] = class_names.UNKNOWN
        data.facts["two_class_reason"] = "their names do not say it"
    monkeypatch.setattr("cxr_helpers.figures.publishing.text", said.text)
    with data.evaluation():
        truth = data["test"].category
    known, n = truth >= 0, len(data.classes)
    cells.run(
        "03_categorical",
        *("03-16", "03-17", "03-20"),
        radiographs=data,
        classes=data.classes,
        count={2: "two", 3: "three"}[n],
        known=known,
        truth=truth[known],
        says=(n - truth[known]) % n,
        sampling_weights=np.full((known.sum(), n), 1 / n),
        figure=said,
        table=said,
    )
    return said


def test_a_section_on_confused_kinds_stands_only_where_there_are_some(monkeypatch):
    said = confused(monkeypatch, "bacterial and viral")
    assert "three-class" in said.captions["fig-categorical-confusion"]
    assert said.sentences == ["## Where bacterial and viral are confused"]
    assert "fig-confused" in said.captions


def test_two_classes_have_their_matrix_and_no_section_on_kinds(monkeypatch):
    said = confused(monkeypatch, "pneumonia")
    assert "two-class" in said.captions["fig-categorical-confusion"]
    assert set(said.captions) == {"fig-categorical-confusion", "tab-categorical-classes"}
    assert not said.sentences


def test_models_of_three_classes_say_that_there_is_nothing_to_compare_with(monkeypatch):
    said = confused(monkeypatch, "none")
    assert not said.captions and "nothing to compare" in said.sentences[0]


def test_models_of_two_classes_stay_at_two_on_images_that_tell_three(monkeypatch):
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
    assert names["two_class_reason"] == "the models of the earlier run tell two apart"


def test_prose_for_every_run_does_not_count_the_classes():
    """A run may have two or three: what is written without a kernel must hold for both."""
    for book in sorted(cells.FOLDER.glob("*.ipynb")):
        for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                prose = "".join(cell["source"])
                assert "three-class" not in prose and "same three" not in prose, book.name

"""Search for a training recipe by robustness to image style, not by the test images.

    uv run run_all.py --data path/to/chest_xray --run search --only 01_data
    uv run benchmarks/search.py report/build/search                    # every recipe
    uv run benchmarks/search.py report/build/search --only published "crops, 96 at 112"

Each line of ``RECIPES`` is trained on the run's ``train`` split and predicts the validation images
(random groups and contiguous blocks), unchanged and after each change of ``shortcuts.style``.
The scores, with 95 % intervals over patient groups, are written to ``docs/decisions/search.csv``
(one recipe a line) and ``search-changes.csv`` (one change a line). ``*_gain`` are paired differences
from ``REFERENCE``, of the changes that no option of the recipes imitates: all random crops, those of
``REFERENCE`` too, vary tone and scale, so against networks trained on whole images the gain is also
that of having trained on something like brighter, darker, of low contrast or collimated closely.
``balanced_auroc`` weights
images such that their border says less about their class, see ``evaluation.shortcut_groups``. Nothing is
chosen by the labels of test images; the columns ``test_*`` are for the record, and come from the
test split of the folder that was given. Trained weights are kept in
``<run>/search/``: a recipe that is there is scored again, not trained.

With ``--held-out``, recipes are scored on shortcut-conflicting images (whose border suggests another
class), all that are no test images, in ``search-held-out.csv``. Their patients are left out of
training: ``all`` of them, or one half of them after the other (``halves``), with the other half
among the training images. With ``--held-out series``, they are trained on one of the two series of normal
images and half of the numbers of patients with pneumonia, and scored on the others: on all of their images.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr_helpers.data import dataset, decoding
from cxr_helpers.evaluation import bootstrap, calibration, metrics, robustness, shortcut_groups
from cxr_helpers.models import (
    adaptation,
    architectures,
    augmentation,
    embeddings,
    knn,
    recipes,
    sampling,
    training,
)
from cxr_helpers.shortcuts import style

REFERENCE = "crops, 96 at 112"
IMITATED = ("equalised histogram", "blurred", "sharpened", "noise", style.SWAPPED)  # by options
DECISIONS = Path(__file__).resolve().parent.parent / "docs" / "decisions"
INTEGERS = dict.fromkeys(("epochs", "batch_size", "seed", "test_size", "neighbours"), "Int64")


@dataclass(frozen=True)
class Line:
    """One recipe: what is trained, and how it predicts."""

    name: str
    network: str = "ours"  # or published
    sizes: tuple[int, ...] = (96,)  # of the crops, or of whole images
    optimizer: str = "adamw"  # as in recipes.Recipe, or adam, as of the published networks
    augmentation: str = "crops"  # or published or strong, of whole images
    epochs: int = 30
    batch_size: int = 48
    learning_rate: float = 0.0025
    weight_decay: float = 0.03
    area: float = 0.1  # smallest crop
    style: float = 0.0  # strength of changes of style in training
    swapped: float = 0.0  # share of training images with the border of one of another class
    conflict_weight: float = 1.0
    mix_style: float = 0.0  # share of the steps in which statistics of feature maps are mixed
    # not trained on: all patients of conflicting images, one of HALVES or of SERIES
    held_out: str = ""
    precision: str = "float32"
    seed: int = 0
    equalised: bool = False  # contrast-equalised images, in training and prediction
    test_size: int = 112
    views: str = "mirror"  # averaged: one, mirror, or crops (five of the training's size, mirrored)
    neighbours: int = 0  # that vote in the embedding, or 0 for the network's own probabilities
    statistics: str = ""  # of the batch normalisation: of training; or those of the views of
    # the training images (train) or of the images that are predicted (own)
    members: tuple[str, ...] = ()  # or the mean of other lines' predictions

    def training(self) -> dict:
        """Return the settings of the training: equal for equal weights."""
        settings = asdict(self)
        added = [name for name, usual in ADDED.items() if settings[name] == usual]
        return {name: settings[name] for name in settings if name not in (*PREDICTION, *added)}


# Left out where they are as usual: weights that were trained before keep their files.
ADDED = {"mix_style": 0.0, "held_out": "", "precision": "float32"}
HALVES = ("first half", "second half")
SERIES = ("first series", "second series")
# Each line of search-held-out.csv: the parts that are left out one after the other, and scored together.
SCORED = {"all": [("all",)], "halves": [HALVES], "series": [(part,) for part in SERIES]}
PREDICTION = ("name", "test_size", "views", "neighbours", "statistics", "members")  # of a line
AS_PUBLISHED = {"optimizer": "adam", "augmentation": "published", "epochs": 12}
AS_PUBLISHED |= {"batch_size": 32, "learning_rate": 0.001}
AT_128, AT_96 = {"sizes": (128,), "test_size": 128}, {"sizes": (96,), "test_size": 96}
OLD = {"augmentation": "strong", "epochs": 20, "batch_size": 32, "learning_rate": 0.002}
SMALL_FIRST = {"sizes": (64, 80, 96)}
WHOLE_AND_CROPS = ("crops, 96 at 112", "ten crops of 112")  # half each: how ours predicts
OTHER_SEED = tuple(f"{name}, other seed" for name in WHOLE_AND_CROPS)
STYLE = tuple(f"{name}, style" for name in WHOLE_AND_CROPS)
STYLE_OTHER_SEED = tuple(f"{name}, style, other seed" for name in WHOLE_AND_CROPS)
BOTH_SEEDS = WHOLE_AND_CROPS + OTHER_SEED
CONFLICTING_8 = tuple(f"{name}, conflicting 8 times" for name in ("crops", "ten crops"))
CONFLICTING_8_OTHER_SEED = tuple(f"{name}, other seed" for name in CONFLICTING_8)
CONFLICTING_8_LONG = tuple(f"{name}, 60 epochs" for name in CONFLICTING_8)
CONFLICTING_24 = tuple(f"{name}, conflicting 24 times" for name in ("crops", "ten crops"))
MIXED_STYLE = ("crops, mixed style", "ten crops, mixed style")
MIXED_STYLE_OTHER_SEED = tuple(f"{name}, other seed" for name in MIXED_STYLE)
EQUALISED = tuple(f"{name}, equalised" for name in WHOLE_AND_CROPS)
OWN = tuple(f"{name}, own statistics" for name in ("crops, 96 at 112", "ten crops"))
OWN_OTHER_SEED = tuple(f"{name}, other seed" for name in OWN)
OF_VIEWS = tuple(f"{name}, statistics of views" for name in ("crops, 96 at 112", "ten crops"))
OF_VIEWS_OTHER_SEED = tuple(f"{name}, other seed" for name in OF_VIEWS)
WITHOUT_AND_WITH = WHOLE_AND_CROPS + STYLE
RECIPES = (
    # step by step from the published network to ours, as in chapter 3
    Line("published", "published", **AS_PUBLISHED, **AT_128, views="one"),
    Line("published at 96", "published", **AS_PUBLISHED, **AT_96, views="one"),
    Line("residual network", **AS_PUBLISHED, **AT_96, views="one"),
    Line("our training, whole images", augmentation="published", test_size=96, views="one"),
    Line("our training, random crops", test_size=96, views="one"),
    Line("larger test images", views="one"),
    # what the score has to rank
    Line("published, mirrored", "published", **AS_PUBLISHED, **AT_128),
    Line("crops, 96 at 96", test_size=96),
    Line("crops, 96 at 112"),
    Line("crops, 96 at 128", test_size=128),
    Line("crops, 96 at 112, other seed", seed=1),
    Line("crops, 96 at 112, style", style=1.0),
    Line("crops, 96 at 112, style, other seed", style=1.0, seed=1),
    Line("ten crops of 112", views="crops"),
    Line("ten crops of 112, other seed", views="crops", seed=1),
    Line("whole images and ten crops", members=WHOLE_AND_CROPS),
    Line("whole images and ten crops, other seed", members=OTHER_SEED),
    Line("ten crops of 112, style", views="crops", style=1.0),
    Line("ten crops of 112, style, other seed", views="crops", style=1.0, seed=1),
    Line("whole images and ten crops, style", members=STYLE),
    Line("whole images and ten crops, style, other seed", members=STYLE_OTHER_SEED),
    Line("whole images and ten crops, mean of two seeds", members=BOTH_SEEDS),
    Line("whole images and ten crops, without and with style", members=WITHOUT_AND_WITH),
    Line("kNN, ten crops of 112, k = 201, style", neighbours=201, views="crops", style=1.0),
    Line("ours of 2026-11-23", **OLD, **AT_128, weight_decay=0.02, conflict_weight=8),
    Line("crops, 96, mean of two sizes", members=("crops, 96 at 96", "crops, 96 at 128")),
    Line("crops, mean of two seeds", members=("crops, 96 at 112", "crops, 96 at 112, other seed")),
    Line("kNN, 96 at 112", neighbours=51),
    Line("kNN, ten crops of 112", neighbours=51, views="crops"),
    Line("kNN, ten crops of 112, k = 11", neighbours=11, views="crops"),
    Line("kNN, ten crops of 112, k = 201", neighbours=201, views="crops"),
    Line("kNN, ten crops of 112, k = 501", neighbours=501, views="crops"),
    Line("kNN, ten crops of 112, k = 1001", neighbours=1001, views="crops"),
    Line("kNN, ten crops of 120", neighbours=51, views="crops", test_size=120),
    Line("small crops first at 112", **SMALL_FIRST),
    Line("crops, 96 at 112, equalised", equalised=True),
    Line("crops, with equalised", members=("crops, 96 at 112", "crops, 96 at 112, equalised")),
    Line("crops, batches of 96", batch_size=96, learning_rate=0.005),
    Line("crops, borders swapped", swapped=0.5),
    Line("ten crops, borders swapped", swapped=0.5, views="crops"),
    Line("crops, conflicting 8 times", conflict_weight=8),
    Line("ten crops, conflicting 8 times", conflict_weight=8, views="crops"),
    Line("whole images and ten crops, conflicting 8 times", members=CONFLICTING_8),
    Line(
        "kNN, ten crops, k = 201, conflicting 8 times",
        conflict_weight=8,
        neighbours=201,
        views="crops",
    ),
    Line("crops, conflicting 8 times, other seed", conflict_weight=8, seed=1),
    Line("ten crops, conflicting 8 times, other seed", conflict_weight=8, views="crops", seed=1),
    Line(
        "whole images and ten crops, conflicting 8 times, other seed",
        members=CONFLICTING_8_OTHER_SEED,
    ),
    Line("crops, conflicting 24 times", conflict_weight=24),
    Line("ten crops, conflicting 24 times", conflict_weight=24, views="crops"),
    Line("whole images and ten crops, conflicting 24 times", members=CONFLICTING_24),
    Line("crops, conflicting 8 times, 60 epochs", conflict_weight=8, epochs=60),
    Line("ten crops, conflicting 8 times, 60 epochs", conflict_weight=8, epochs=60, views="crops"),
    Line("whole images and ten crops, conflicting 8 times, 60 epochs", members=CONFLICTING_8_LONG),
    Line("crops, mixed style", mix_style=0.5),
    Line("ten crops, mixed style", mix_style=0.5, views="crops"),
    Line("whole images and ten crops, mixed style", members=MIXED_STYLE),
    Line("crops, mixed style, other seed", mix_style=0.5, seed=1),
    Line("ten crops, mixed style, other seed", mix_style=0.5, views="crops", seed=1),
    Line("whole images and ten crops, mixed style, other seed", members=MIXED_STYLE_OTHER_SEED),
    Line("kNN, ten crops, k = 201, mixed style", neighbours=201, views="crops", mix_style=0.5),
    Line("crops, 96 at 112, own statistics", statistics="own"),
    Line("crops, 96 at 112, own statistics, other seed", statistics="own", seed=1),
    Line("ten crops, own statistics", statistics="own", views="crops"),
    Line("ten crops, own statistics, other seed", statistics="own", views="crops", seed=1),
    Line("whole images and ten crops, own statistics", members=OWN),
    Line("whole images and ten crops, own statistics, other seed", members=OWN_OTHER_SEED),
    Line("crops, 96 at 112, statistics of views", statistics="train"),
    Line("crops, 96 at 112, statistics of views, other seed", statistics="train", seed=1),
    Line("ten crops, statistics of views", statistics="train", views="crops"),
    Line("ten crops, statistics of views, other seed", statistics="train", views="crops", seed=1),
    Line("whole images and ten crops, statistics of views", members=OF_VIEWS),
    Line(
        "whole images and ten crops, statistics of views, other seed", members=OF_VIEWS_OTHER_SEED
    ),
    Line("ten crops of 112, equalised", views="crops", equalised=True),
    Line("whole images and ten crops, with equalised", members=WHOLE_AND_CROPS + EQUALISED),
)


def main() -> None:
    """Train and score the recipes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run whose 01_data is complete")
    parser.add_argument("--only", nargs="+", default=[line.name for line in RECIPES])
    parser.add_argument("--held-out", choices=list(SCORED), default="", help="see above")
    parser.add_argument("--precision", default="float32", help="numeric policy, with --held-out")
    options = parser.parse_args()
    if options.precision != "float32" and not options.held_out:
        parser.error(f"--precision {options.precision}: search.csv is of float32")
    keras.mixed_precision.set_global_policy(options.precision)
    lines = {line.name: replace(line, precision=options.precision) for line in RECIPES}
    if unknown := set(options.only) - set(lines):
        parser.error(f"--only {sorted(unknown)}: expected some of {', '.join(lines)}")
    if not (options.run / "stages" / "01_data" / "dataset.json").is_file():
        parser.error(f"{options.run} has no 01_data: run run_all.py --only 01_data first")
    tf.config.experimental.enable_op_determinism()
    radiographs = dataset.read(options.run / "stages" / "01_data")
    folder = options.run / "search"
    folder.mkdir(exist_ok=True)
    if options.held_out:
        write_held_out(lines, options.only, options.held_out, radiographs, folder)
        return
    for name in options.only:
        print(name, flush=True)
        write(lines[name], score(lines, lines[name], radiographs, folder))
    write_gains({name: lines[name] for name in options.only}, folder)


def train(line: Line, radiographs: dataset.Dataset, folder: Path) -> keras.Model:
    """Return the trained network of a line, from its file where there is one."""
    keras.utils.set_random_seed(line.seed)
    part = training_images(line, radiographs)
    published = line.network == "published"
    classes = len(radiographs.classes)
    if published:
        model, one_hot = architectures.binary_cnn(line.sizes[0]), part.pneumonia[:, None]
    else:
        model = architectures.residual_cnn(None, classes=classes)
        if line.mix_style:
            model = mixing_style(model, line.mix_style, seed=line.seed)
        one_hot = keras.utils.to_categorical(part.category, classes)
    settings = line.training(), recipes.Recipe(), radiographs.facts["fingerprint"]
    stem = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
    weights = folder / f"{stem}.weights.h5"
    if weights.is_file():
        model.load_weights(weights)
        return model
    start = time.monotonic()
    common = {
        "seed": line.seed,
        "log": lambda text: print(f"{time.monotonic() - start:6.0f} s {text}", flush=True),
        "checkpoint": lambda key: folder / f"{key[:16]}.npz",
    }
    images = part.detail if line.augmentation == "crops" else part.at(line.sizes[0])
    if line.equalised:
        images = style.equalised(images)
    if line.swapped:
        images = np.array(images)
        rng = np.random.default_rng(line.seed)
        rows = np.flatnonzero(rng.random(len(images)) < line.swapped)
        others = style.donors(part.pneumonia, seed=line.seed)[rows]
        images[rows] = style.swapped_border(images[rows], images[others])
    augmentations = {
        "crops": None,  # those of the recipe
        "published": augmentation.Augmentation(),
        "strong": augmentation.StrongAugmentation(),
    }
    common["augmentation"] = augmentations[line.augmentation]
    if line.optimizer == "adam":
        loss = "binary_crossentropy" if published else "categorical_crossentropy"
        model.compile(keras.optimizers.Adam(line.learning_rate), loss)
        sizes = {"epochs": line.epochs, "batch_size": line.batch_size}
        training.fit(model, images, one_hot.astype("float32"), **sizes, **common)
    else:
        relative = np.where(are_conflicting(part.index), line.conflict_weight, 1)
        sampling_weights = sampling.balanced(part.category, relative)
        recipe = recipes.Recipe(
            epochs=line.epochs,
            batch_size=line.batch_size,
            learning_rate=line.learning_rate,
            weight_decay=line.weight_decay,
            crop_sizes=line.sizes,
            crop_area=line.area,
            crop_style=line.style,
        )
        recipes.fit(model, images, one_hot, recipe, sampling_weights=sampling_weights, **common)
    model.save_weights(weights)
    return model


def training_images(line: Line, radiographs: dataset.Dataset) -> dataset.Part:
    """Return the images on which a line is trained."""
    if line.held_out in SERIES:
        part = radiographs.trainable
        return part.where((part.category >= 0) & ~are_of_series(part.index, line.held_out))
    part = radiographs["train"]
    keep = part.category >= 0
    if line.held_out:
        cluster = part.index["cluster"]
        conflicting = cluster[are_conflicting(part.index)]
        keep &= ~(cluster.isin(conflicting) & are_held_out(cluster, line.held_out)).to_numpy()
    return part.where(keep)


def are_scored(index: pd.DataFrame, held_out: str) -> np.ndarray:
    """Return whether each image is scored where a part is left out of training, bool, shape (n,)."""
    if held_out in SERIES:
        return are_of_series(index, held_out)
    return are_conflicting(index) & are_held_out(index["cluster"], held_out).to_numpy()


def are_held_out(cluster: pd.Series, held_out: str) -> pd.Series:
    """Return whether each image is of the patients that are left out if they are conflicting.

    A half is drawn by patient (``cluster``, with the images alike), whatever other images there are.
    """
    if held_out == "all":
        return pd.Series(True, index=cluster.index)
    digests = cluster.map(lambda name: hashlib.sha256(str(name).encode()).digest()[0])
    return digests % 2 == HALVES.index(held_out)


def are_of_series(index: pd.DataFrame, name: str) -> np.ndarray:
    """Return whether each image is of one of ``SERIES``, ndarray of bool, shape (n,).

    The first has the normal images without ``NORMAL2`` in their names, and those with pneumonia whose
    number is at most the median of their class.
    """
    parsed = index["group"].str.extract(r"^(?P<kind>\w+) (?P<other>NORMAL2-)?(?P<number>\d+)$")
    number = parsed["number"].astype(float)
    later = number > number.groupby(parsed["kind"]).transform("median")
    second = np.where(parsed["kind"] == "normal", parsed["other"].notna(), later)
    return second == SERIES.index(name)


def are_conflicting(index: pd.DataFrame) -> np.ndarray:
    """Return whether each image is shortcut-conflicting, ndarray of bool, shape (n,)."""
    return shortcut_groups.alignment(index, seed=0) < 0


class MixStyle(keras.layers.Layer):
    """Gives feature maps the mean and standard deviation of a mixture with those of another image.

    Zhou et al. (2021), *Domain Generalization with MixStyle*, ICLR. In training only, in a share of
    the steps; the shares of the mixture are drawn from a beta distribution of 0.1 and 0.1.
    """

    def __init__(self, share: float, seed: int, **options) -> None:
        super().__init__(**options)
        self.share, self.seed, self.draws = share, seed, keras.random.SeedGenerator(seed)

    def get_config(self) -> dict:
        """Return the settings: stored trainings are found by them."""
        return super().get_config() | {"share": self.share, "seed": self.seed}

    def call(self, features, training=False):
        """Return features, mixed in training."""
        if not training:
            return features
        values = tf.cast(features, tf.float32)
        mean, variance = tf.nn.moments(values, (1, 2), keepdims=True)
        mean, spread = tf.stop_gradient(mean), tf.stop_gradient(tf.sqrt(variance + 1e-6))
        n = tf.shape(values)[0]
        others = tf.argsort(keras.random.uniform((n,), seed=self.draws))
        own = keras.random.beta((n, 1, 1, 1), 0.1, 0.1, seed=self.draws)
        mixes = keras.random.uniform((), seed=self.draws) < self.share
        own = tf.where(mixes, own, tf.ones_like(own))
        new_mean = own * mean + (1 - own) * tf.gather(mean, others)
        new_spread = own * spread + (1 - own) * tf.gather(spread, others)
        return tf.cast((values - mean) / spread * new_spread + new_mean, features.dtype)


def mixing_style(model: keras.Model, share: float, *, seed: int) -> keras.Model:
    """Return an untrained network with ``MixStyle`` after its stem and its first block."""
    places = ("stem_relu", "block1")

    def call(layer, *arguments, **options):
        found = layer(*arguments, **options)
        if layer.name not in places:
            return found
        own_seed = len(places) * seed + places.index(layer.name)
        return MixStyle(share, own_seed, name=f"{layer.name}_mixed")(found)

    return keras.models.clone_model(model, call_function=call)


def predict(lines: dict, line: Line, radiographs, folder: Path, images: np.ndarray) -> np.ndarray:
    """Return a line's probabilities for images at the largest size, (n, 3) or (n, 1)."""
    if line.members:
        each = (predict(lines, lines[m], radiographs, folder, images) for m in line.members)
        return np.mean(list(each), axis=0)
    model = train(line, radiographs, folder)
    if line.statistics == "own":
        model = adaptation.adapted(model, views(line, images), seed=line.seed)
    elif line.statistics:
        key = replace(line, name="")
        if key not in _ADAPTED:
            own = views(line, np.asarray(training_images(line, radiographs).detail))
            _ADAPTED[key] = adaptation.adapted(model, own, seed=line.seed)
        model = _ADAPTED[key]
    if not line.neighbours:
        key = replace(line, name=""), hashlib.sha256(images).digest()
        if key not in _PREDICTED:
            each = (training.predict(model, view) for view in views(line, images))
            _PREDICTED[key] = np.mean(list(each), axis=0)
        return _PREDICTED[key]
    part = training_images(line, radiographs)
    points, queries = (embedded(line, model, np.asarray(x)) for x in (part.detail, images))
    options = {"k": line.neighbours, "metric": "cosine", "weights": "distance"}  # as in chapter 5
    votes = knn.classifier(points, part.pneumonia, **options).predict_proba(queries)[:, 1]
    return calibration.prior_shift(votes, trained=part.pneumonia.mean(), target=0.5)[:, None]


_ADAPTED: dict[Line, keras.Model] = {}  # with statistics of training images
_PREDICTED: dict[tuple, np.ndarray] = {}  # for lines that are members of others
_EMBEDDED: dict[tuple, np.ndarray] = {}  # for lines that differ in the number of neighbours


def embedded(line: Line, model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the mean embedding of the views of images, ndarray of float32, shape (n, d)."""
    key = replace(line, name="", neighbours=0), hashlib.sha256(images).digest()
    if key not in _EMBEDDED:
        layer = architectures.EMBEDDING
        each = (embeddings.embed(model, x, layers=[layer])[layer] for x in views(line, images))
        _EMBEDDED[key] = np.mean(list(each), axis=0)
    return _EMBEDDED[key]


def views(line: Line, images: np.ndarray) -> list[np.ndarray]:
    """Return images at the size at which a line predicts, in all of its views."""
    if line.equalised:
        images = style.equalised(images)
    images = decoding.resize(images, line.test_size)
    found = embeddings.five_crops(images, line.sizes[-1]) if line.views == "crops" else [images]
    return found if line.views == "one" else [*found, *(view[:, :, ::-1] for view in found)]


def score(lines: dict, line: Line, radiographs: dataset.Dataset, folder: Path) -> pd.DataFrame:
    """Return the scores of a line by split and change, with their intervals."""
    tables = []
    with radiographs.evaluation():
        split = radiographs.index["split"].to_numpy()
        for name, chosen in (
            ("validation", np.isin(split, ["validation", "contiguous"])),
            ("test", split == "test"),
        ):
            places = np.flatnonzero(chosen)
            index, category = radiographs.index.iloc[places], radiographs.category[places]
            images = np.asarray(radiographs.detail[places])
            y_true = (index["class_name"] != "normal").to_numpy(dtype=int)
            y_prob = predict(lines, line, radiographs, folder, images)
            classes = y_prob.shape[1]  # which AdamW is given equally often, see ``train``
            balanced = line.optimizer == "adamw"
            share = 1 - 1 / classes if balanced else radiographs["train"].pneumonia.mean()
            share = 0.5 if line.neighbours else share  # they were counted for equal shares
            weights = bootstrap.resamples(index["group"], y_true, seed=0)
            balancing = shortcut_groups.balancing_weights(index)
            unchanged = scores_of(y_true, category, y_prob, share, weights, balancing)
            tables.append(unchanged.assign(split=name, change=robustness.UNCHANGED))
            if name == "validation":
                changes = {}
                for change, changed in style.versions(images, y_true, seed=0):
                    changes[change] = pneumonia(predict(lines, line, radiographs, folder, changed))
                under_changes = robustness.scores(
                    changes.items(),
                    {line.name: lambda y_prob: y_prob},
                    y_true,
                    groups=index["group"],
                    seed=0,
                )
                tables.append(under_changes.drop(columns="network").assign(split=name))
                group = index["group"].to_numpy(dtype=str)
                np.savez(folder / f"{line.name}.npz", y_true=y_true, group=group, **changes)
    return pd.concat(tables, ignore_index=True).assign(recipe=line.name)


def write_held_out(
    lines: dict[str, Line],
    names: list[str],
    held_out: str,
    radiographs: dataset.Dataset,
    folder: Path,
) -> None:
    """Score lines on the images that are left out; add them to their file, in place of earlier ones.

    ``*_gain`` are paired differences from ``REFERENCE``, which has to be scored first.
    """
    everything = radiographs.trainable
    precision = lines[REFERENCE].precision  # of all
    ordered = sorted(names, key=lambda name: name != REFERENCE)
    for parts, name in itertools.product(SCORED[held_out], ordered):
        label = parts[0] if len(parts) == 1 else held_out
        predictions = f"{{}}, {precision}, {label} held out.npy"
        reference = folder / predictions.format(REFERENCE)
        if REFERENCE not in names and not reference.is_file():
            raise SystemExit(f"{reference} is missing: give {REFERENCE!r} to --only, too")
        print(f"{name}, {label}", flush=True)
        scored_of = {held: are_scored(everything.index, held) for held in parts}
        in_any = np.any(list(scored_of.values()), axis=0)
        part = everything.where(in_any)
        images, index, y_true = np.asarray(part.detail), part.index, part.pneumonia
        weights = bootstrap.resamples(index["group"], y_true, seed=0)
        y_prob = np.zeros(len(y_true))
        for held, is_scored in scored_of.items():
            own = {key: replace(line, held_out=held) for key, line in lines.items()}
            rows = is_scored[in_any]
            y_prob[rows] = pneumonia(predict(own, own[name], radiographs, folder, images[rows]))
        np.save(folder / predictions.format(name), y_prob)
        scored = {"recipe": name, "held_out": label, "precision": precision}
        scored |= {"normal": (y_true == 0).sum(), "pneumonia": y_true.sum()}
        for metric, function in (("auroc", metrics.auroc), ("accuracy", accuracy_at_half)):
            estimates = {"": bootstrap.estimate(function, y_true, y_prob, weights=weights)}
            if name != REFERENCE:
                others = np.load(reference)
                gap = bootstrap.difference(function, y_true, y_prob, others, weights=weights)
                estimates["_gain"] = gap
            for kind, values in estimates.items():
                bounds = (f"{metric}{kind}{bound}" for bound in ("", "_low", "_high"))
                scored |= dict(zip(bounds, values, strict=True))
        scored["specificity"] = (y_prob[y_true == 0] < 0.5).mean()
        scored["sensitivity"] = (y_prob[y_true == 1] >= 0.5).mean()
        replace_lines("search-held-out.csv", pd.DataFrame([scored]), "held_out", "precision")


def gains(line: Line, folder: Path) -> dict[str, float]:
    """Return by how much a line exceeds ``REFERENCE`` under the changes that are not ``IMITATED``.

    The differences in worst and mean AUROC and in mean accuracy are paired: of the same images, in
    the same resamples. Empty until both were scored.
    """
    paths = [folder / f"{name}.npz" for name in (line.name, REFERENCE)]
    if line.name == REFERENCE or not all(path.is_file() for path in paths):
        return {}
    own, reference = (dict(np.load(path, allow_pickle=False)) for path in paths)
    y_true, group = own.pop("y_true"), own.pop("group")
    same = np.array_equal(y_true, reference["y_true"]), np.array_equal(group, reference["group"])
    if not all(same):
        raise SystemExit(f"{paths[0]} and {paths[1]} are of other images: score {REFERENCE} again")
    changes = [name for name in own if name not in IMITATED]
    weights = bootstrap.resamples(group, y_true, seed=0)
    found = {}
    for name, metric, summary in (
        ("worst_auroc", metrics.auroc, np.min),
        ("mean_auroc", metrics.auroc, np.mean),
        ("mean_accuracy", accuracy_at_half, np.mean),
    ):

        def over_changes(y_true, y_prob, weights, metric=metric, summary=summary):
            return summary([metric(y_true, y_prob[c], weights) for c in changes], axis=0)

        gain = bootstrap.difference(over_changes, y_true, own, reference, weights=weights)
        names = (f"{name}_gain", f"{name}_gain_low", f"{name}_gain_high")
        found |= dict(zip(names, gain, strict=True))
    return found


def accuracy_at_half(y_true: np.ndarray, y_prob: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the accuracy at the threshold 0.5."""
    return metrics.accuracy(y_true, (y_prob >= 0.5).astype(int), weights)


def pneumonia(y_prob: np.ndarray) -> np.ndarray:
    """Return the probability of pneumonia from (n, 3) or (n, 1) probabilities."""
    return 1 - y_prob[:, 0] if y_prob.shape[1] > 1 else y_prob[:, 0]


def scores_of(
    y_true: np.ndarray,
    category: np.ndarray,
    y_prob: np.ndarray,
    share: float,
    weights: np.ndarray,
    balancing: np.ndarray,
) -> pd.DataFrame:
    """Return AUROCs, accuracy at 0.5 and at the share of pneumonia in training, three classes."""
    p = pneumonia(y_prob)
    known = category >= 0
    scored = {
        "auroc": (metrics.auroc, y_true, p, weights),
        "balanced_auroc": (balanced_auroc, y_true, np.stack([p, balancing]), weights),
        "accuracy": (metrics.accuracy, y_true, (p >= 0.5).astype(int), weights),
        "accuracy_equal_priors": (metrics.accuracy, y_true, (p >= share).astype(int), weights),
    }
    if y_prob.shape[1] > 1:
        y_pred = y_prob.argmax(axis=1)[known]
        scored["three_classes"] = (metrics.accuracy, category[known], y_pred, weights[:, known])
    lines = [
        (name, *bootstrap.estimate(*values[:3], weights=values[3]))
        for name, values in scored.items()
    ]
    return pd.DataFrame(lines, columns=["metric", "value", "low", "high"])


def balanced_auroc(y_true: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC of ``values[0]``, with images weighted by ``values[1]`` besides."""
    return metrics.auroc(y_true, values[0], weights * values[1])


def write(line: Line, scores: pd.DataFrame) -> None:
    """Add a line's scores to both files, in place of earlier ones."""
    validation = scores[scores["split"] == "validation"].rename(columns={"recipe": "network"})
    auroc, accuracy = (
        robustness.summary(validation, metric).loc[line.name] for metric in ("auroc", "accuracy")
    )
    unchanged = scores[scores["change"] == robustness.UNCHANGED]
    settings = {k: v for k, v in asdict(line).items() if k not in ("held_out", "precision")}
    if line.members:  # which have their own settings
        settings = {k: v if k in ("name", "members") else None for k, v in settings.items()}
    summary = settings | {
        "worst_auroc": auroc["worst"],
        "worst_change": auroc["worst_change"],
        "mean_auroc": auroc["mean"],
        "mean_accuracy": accuracy["mean"],
        **{f"{row.split}_{row.metric}": row.value for row in unchanged.itertuples()},
    }
    columns = ["recipe", "split", "change", "metric", "value", "low", "high"]
    replace_lines("search.csv", pd.DataFrame([summary]).rename(columns={"name": "recipe"}))
    replace_lines("search-changes.csv", scores[columns])


def replace_lines(file: str, table: pd.DataFrame, *more: str) -> None:
    """Write the lines of a recipe into a file, in place of earlier ones, in the order of ``RECIPES``.

    ``more`` are columns besides the recipe that tell lines of a recipe apart.
    """
    path, columns = DECISIONS / file, ["recipe", *more]
    if path.is_file():
        earlier = pd.read_csv(path, dtype=INTEGERS)  # empty for the mean of other lines
        written = pd.MultiIndex.from_frame(table[columns])
        table = pd.concat(
            [earlier[~pd.MultiIndex.from_frame(earlier[columns]).isin(written)], table]
        )
    position = table["recipe"].map({line.name: n for n, line in enumerate(RECIPES)})
    table = table.assign(position=position).dropna(subset=["position"])
    table = table.sort_values(["position", *more], kind="stable").drop(columns="position")
    table.to_csv(path, index=False, float_format="%.4f")


def write_gains(lines: dict[str, Line], folder: Path) -> None:
    """Add the gains of lines that were scored, in place of earlier ones.

    Those of others stay: predictions that lie in the folder may be of a training repeated elsewhere.
    """
    path = DECISIONS / "search.csv"
    table = pd.read_csv(path, dtype=INTEGERS)
    gained = pd.DataFrame(
        {name: found for name, line in lines.items() if (found := gains(line, folder))}
    )
    table = table.set_index("recipe")
    table.loc[gained.columns, gained.index] = gained.T
    table = table.reset_index()
    table.to_csv(path, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()

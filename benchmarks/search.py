"""Search for a training recipe by robustness to image style, not by the test images.

    uv run run_all.py --data path/to/chest_xray --run search --only 01_data
    uv run benchmarks/search.py report/build/search                    # every recipe
    uv run benchmarks/search.py report/build/search --only published "crops, 96 at 112"

Each line of ``RECIPES`` is trained on the run's ``train`` split and predicts the validation images
(random groups and contiguous blocks), unchanged and after each change of ``shortcuts.style``.
The scores, with 95 % intervals over patient groups, are written to ``docs/decisions/search.csv``
(one recipe a line) and ``search-changes.csv`` (one change a line). ``*_gain`` are paired differences
from ``REFERENCE``, of the changes that no recipe imitates in training. ``balanced_auroc`` weights
images such that their border says nothing about their class, see ``evaluation.shortcut_groups``. Nothing is
chosen by the labels of test images; the columns ``test_*`` are for the record, and come from the
test split of the folder that was given. Trained weights are kept in
``<run>/search/``: a recipe that is there is scored again, not trained.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from dataclasses import asdict, dataclass
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
IMITATED = ("equalised histogram", "blurred", "sharpened", "noise")  # in training, by ``style``
DECISIONS = Path(__file__).resolve().parent.parent / "docs" / "decisions"


@dataclass(frozen=True)
class Line:
    """One recipe: what is trained, and how it predicts."""

    name: str
    network: str = "ours"  # or published
    sizes: tuple[int, ...] = (96,)  # of the crops, or of whole images
    whole: bool = False  # trained on whole images with StrongAugmentation
    epochs: int = 30
    batch_size: int = 48
    learning_rate: float = 0.0025
    weight_decay: float = 0.03
    area: float = 0.1  # smallest crop
    style: float = 0.0  # strength of changes of style in training
    conflict_weight: float = 1.0
    seed: int = 0
    equalised: bool = False  # contrast-equalised images, in training and prediction
    test_size: int = 112
    views: str = "mirror"  # averaged: one, mirror or crops (five of 0.8 of the side, mirrored)
    neighbours: int = 0  # that vote in the embedding, or 0 for the network's own probabilities
    members: tuple[str, ...] = ()  # or the mean of other lines' predictions

    def training(self) -> dict:
        """Return the settings of the training: equal for equal weights."""
        settings = asdict(self)
        return {name: settings[name] for name in settings if name not in PREDICTION}


PREDICTION = ("name", "test_size", "views", "neighbours", "members")  # settings of a line
PUBLISHED = {"sizes": (128,), "whole": True, "batch_size": 32, "learning_rate": 0.001, "epochs": 12}
OLD = {"whole": True, "sizes": (128,), "epochs": 20, "batch_size": 32, "learning_rate": 0.002}
SMALL_FIRST = {"sizes": (64, 80, 96)}
RECIPES = (
    Line("published", "published", **PUBLISHED, test_size=128, views="one"),
    Line("published, mirrored", "published", **PUBLISHED, test_size=128),
    Line("crops, 96 at 96", test_size=96),
    Line("crops, 96 at 112"),
    Line("crops, 96 at 128", test_size=128),
    Line("crops, 96 at 112, other seed", seed=1),
    Line("crops, 96 at 112, style", style=1.0),
    Line("crops, 96 at 112, style, other seed", style=1.0, seed=1),
    Line("crops, 96, ten crops", test_size=96, views="crops"),
    Line("ours of 2026-11-23", **OLD, weight_decay=0.02, conflict_weight=8, test_size=128),
    Line("crops, 96, mean of two sizes", members=("crops, 96 at 96", "crops, 96 at 128")),
    Line("crops, mean of two seeds", members=("crops, 96 at 112", "crops, 96 at 112, other seed")),
    Line("kNN, 96 at 112", neighbours=51),
    Line("kNN, 96, ten crops", neighbours=51, views="crops", test_size=96),
    Line("small crops first at 112", **SMALL_FIRST),
    Line("crops, 96 at 112, equalised", equalised=True),
    Line("crops, with equalised", members=("crops, 96 at 112", "crops, 96 at 112, equalised")),
    Line("crops, batches of 96", batch_size=96, learning_rate=0.005),
)


def main() -> None:
    """Train and score the recipes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run whose 01_data is complete")
    parser.add_argument("--only", nargs="+", default=[line.name for line in RECIPES])
    options = parser.parse_args()
    lines = {line.name: line for line in RECIPES}
    if unknown := set(options.only) - set(lines):
        parser.error(f"--only {sorted(unknown)}: expected some of {', '.join(lines)}")
    if not (options.run / "stages" / "01_data" / "dataset.json").is_file():
        parser.error(f"{options.run} has no 01_data: run run_all.py --only 01_data first")
    tf.config.experimental.enable_op_determinism()
    radiographs = dataset.read(options.run / "stages" / "01_data")
    folder = options.run / "search"
    folder.mkdir(exist_ok=True)
    for name in options.only:
        print(name, flush=True)
        write(lines[name], score(lines, lines[name], radiographs, folder))
    write_gains(lines, folder)


def train(line: Line, radiographs: dataset.Dataset, folder: Path) -> keras.Model:
    """Return the trained network of a line, from its file where there is one."""
    keras.utils.set_random_seed(line.seed)
    part = radiographs["train"]
    part = part.where(part.category >= 0)
    published = line.network == "published"
    classes = len(radiographs.classes)
    model = (
        architectures.binary_cnn(line.sizes[0])
        if published
        else architectures.residual_cnn(None, classes=classes)
    )
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
    images = part.at(line.sizes[0]) if published or line.whole else part.detail
    if line.equalised:
        images = style.equalised(images)
    if published:
        model.compile(keras.optimizers.Adam(line.learning_rate), "binary_crossentropy")
        y_true = part.pneumonia[:, None].astype("float32")
        change = augmentation.Augmentation()
        sizes = {"epochs": line.epochs, "batch_size": line.batch_size}
        training.fit(model, images, y_true, augmentation=change, **sizes, **common)
    else:
        conflicting = shortcut_groups.alignment(part.index, seed=0) < 0
        recipe = recipes.Recipe(
            epochs=line.epochs,
            batch_size=line.batch_size,
            learning_rate=line.learning_rate,
            weight_decay=line.weight_decay,
            crop_sizes=line.sizes,
            crop_area=line.area,
            crop_style=line.style,
        )
        recipes.fit(
            model,
            images,
            keras.utils.to_categorical(part.category, classes),
            recipe,
            sampling_weights=sampling.balanced(
                part.category, np.where(conflicting, line.conflict_weight, 1)
            ),
            augmentation=augmentation.StrongAugmentation() if line.whole else None,
            **common,
        )
    model.save_weights(weights)
    return model


def predict(lines: dict, line: Line, radiographs, folder: Path, images: np.ndarray) -> np.ndarray:
    """Return a line's probabilities for images at the largest size, (n, 3) or (n, 1)."""
    if line.members:
        each = (predict(lines, lines[m], radiographs, folder, images) for m in line.members)
        return np.mean(list(each), axis=0)
    model = train(line, radiographs, folder)
    if not line.neighbours:
        return np.mean([training.predict(model, view) for view in views(line, images)], axis=0)
    part = radiographs["train"]
    if line not in _POINTS:
        _POINTS[line] = embedded(line, model, np.asarray(part.detail))
    options = {"k": line.neighbours, "metric": "cosine", "weights": "distance"}  # as in chapter 5
    vote = knn.classifier(_POINTS[line], part.pneumonia, **options)
    votes = vote.predict_proba(embedded(line, model, images))[:, 1]
    return calibration.prior_shift(votes, trained=part.pneumonia.mean(), target=0.5)[:, None]


_POINTS: dict[Line, np.ndarray] = {}  # embeddings of the training images


def embedded(line: Line, model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the mean embedding of the views of images, ndarray of float32, shape (n, d)."""
    layer, total = architectures.EMBEDDING, 0
    every = views(line, images)
    for view in every:
        total = total + embeddings.embed(model, view, layers=[layer])[layer]
    return total / len(every)


def views(line: Line, images: np.ndarray) -> list[np.ndarray]:
    """Return images at the size at which a line predicts, in all of its views."""
    if line.equalised:
        images = style.equalised(images)
    parts = [images]
    if line.views == "crops":
        side = images.shape[1]
        part = round(0.8 * side)
        starts = [(0, 0), (0, side - part), (side - part, 0), (side - part, side - part)]
        starts.append(((side - part) // 2, (side - part) // 2))
        parts = [images[:, y : y + part, x : x + part] for y, x in starts]
    found = [decoding.resize(part, line.test_size) for part in parts]
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
            classes = y_prob.shape[1]  # of which our network samples each equally often
            share = 1 - 1 / classes if classes > 1 else radiographs["train"].pneumonia.mean()
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


def gains(line: Line, folder: Path) -> dict[str, float]:
    """Return by how much a line exceeds ``REFERENCE`` under the changes that are not imitated.

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
    summary = asdict(line) | {
        "worst_auroc": auroc["worst"],
        "worst_change": auroc["worst_change"],
        "mean_auroc": auroc["mean"],
        "mean_accuracy": accuracy["mean"],
        **{f"{row.split}_{row.metric}": row.value for row in unchanged.itertuples()},
    }
    order = [line.name for line in RECIPES]
    columns = ["recipe", "split", "change", "metric", "value", "low", "high"]
    for file, table in (
        ("search.csv", pd.DataFrame([summary]).rename(columns={"name": "recipe"})),
        ("search-changes.csv", scores[columns]),
    ):
        path = DECISIONS / file
        if path.is_file():
            earlier = pd.read_csv(path)
            table = pd.concat([earlier[earlier["recipe"] != line.name], table])
        position = table["recipe"].map({name: n for n, name in enumerate(order)})
        table = table.assign(position=position).dropna(subset=["position"])
        table = table.sort_values("position", kind="stable").drop(columns="position")
        table.to_csv(path, index=False, float_format="%.4f")


def write_gains(lines: dict[str, Line], folder: Path) -> None:
    """Add the gains of all lines whose predictions are there, in place of earlier ones."""
    path = DECISIONS / "search.csv"
    table = pd.read_csv(path)
    gained = pd.DataFrame([gains(lines[name], folder) for name in table["recipe"]])
    table = table.drop(columns=gained.columns, errors="ignore").join(gained)
    table.to_csv(path, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()

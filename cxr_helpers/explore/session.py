"""What the panel shows, without widgets: images of a run, changes of them, and every answer."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from cxr_helpers.data import dataset, decoding
from cxr_helpers.evaluation import bootstrap, metrics
from cxr_helpers.explain import attributions, covering
from cxr_helpers.explain.explained import Explained, explained_by
from cxr_helpers.models import architectures, embeddings, recipes
from cxr_helpers.phantoms import acquisition, rendering
from cxr_helpers.pipeline import classifiers
from cxr_helpers.pipeline.classifiers import Classifier
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.store import Store

PATCH = 1 / 6  # side of the occluding patch, share of the image's: coarse, for an answer at once
METRICS = {
    "accuracy": metrics.accuracy,
    "sensitivity": metrics.sensitivity,
    "specificity": metrics.specificity,
}


@dataclass(frozen=True)
class Heat:
    """A heat map.

    Attributes
    ----------
    values : ndarray of float32, shape (side, side)
        Of the size at which the network predicts.
    label : str
        What it shows, with its unit.
    signed : bool
    """

    values: np.ndarray
    label: str
    signed: bool


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix and what follows from it.

    Attributes
    ----------
    counts : ndarray of int, shape (2, 2)
        True class by predicted class, normal first.
    metrics : mapping of str to (value, low, high)
        Of ``METRICS``, with 95 % intervals from resampled patient groups.
    """

    counts: np.ndarray
    metrics: Mapping[str, tuple[float, float, float]]


class Network:
    """A classifier that answers for a few images without delay.

    Parameters
    ----------
    classifier : Classifier
    train : ndarray of float, shape (n, d)
        Embedding of the training images, as chapter 5 saved it.
    """

    def __init__(self, classifier: Classifier, train: np.ndarray) -> None:
        self.classifier = classifier
        self._train = _unit(train) if classifier.of_crops is not None else train

    def at_size(self, image: np.ndarray) -> np.ndarray:
        """Return an image as the network sees it: ndarray of uint8, shape (size, size)."""
        return decoding.resize(image[None], self.classifier.size)[0]

    def answer(self, image: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the probability of pneumonia and the embedding of an image of any size."""
        own = self.at_size(image)
        model, of_crops = self.classifier.model, self.classifier.of_crops
        layers = [architectures.EMBEDDING, model.layers[-1].name]
        views = np.stack([own] if of_crops is None else [own, own[:, ::-1]])
        vectors, y_prob = (
            values.mean(axis=0) for values in embeddings.embed(model, views, layers=layers).values()
        )
        if of_crops is not None:  # as ``recipes.predict``, with one pass for both
            over_crops = embeddings.over_crops(of_crops, own[None], layers=layers)
            vectors = over_crops[layers[0]][0]
            y_prob = (y_prob + over_crops[layers[1]][0]) / 2
        return float(recipes.pneumonia(y_prob[None])[0]), vectors

    def neighbours(self, vector: np.ndarray, n: int, *, without: int | None = None) -> np.ndarray:
        """Return the positions of the nearest training images, ndarray of int, shape (n,).

        By Euclidean distance, in our network's embedding by cosine distance, as in chapter 5;
        ``without`` one of them, the image itself.
        """
        query = _unit(vector[None])[0] if self.classifier.of_crops is not None else vector
        distance = np.linalg.norm(self._train - query, axis=1)
        if without is not None:
            distance[without] = np.inf
        return np.argsort(distance, kind="stable")[:n]

    def heat(self, image: np.ndarray, method: str) -> Heat:
        """Return a map of an image of any size by one of ``MAPS``."""
        explain, label, signed = MAPS[method]
        if self.classifier.of_crops is not None:
            label += "; of the whole image alone, without mirror image and crops"
        explained = explained_by(self.classifier.model, self.classifier.feature_map)
        return Heat(explain(explained, explained.prepare(image[None]))[0], label, signed)


def _occlusion(explained: Explained, prepared: np.ndarray) -> np.ndarray:
    patch = max(2, round(PATCH * explained.size))
    return covering.maps(explained, prepared, patch=patch, stride=patch, of="probability")


# Each with what it shows, and whether it has a sign.
MAPS: dict[str, tuple[Callable[[Explained, np.ndarray], np.ndarray], str, bool]] = {
    "occlusion": (_occlusion, "drop in P(pneumonia) when covered by the mean grey level", True),
    "Grad-CAM": (attributions.grad_cam, "Grad-CAM of the log-odds of pneumonia", False),
    "HiResCAM": (attributions.hires_cam, "HiResCAM of the log-odds of pneumonia", False),
    "absolute gradient": (
        attributions.absolute_gradient,
        "absolute gradient of the log-odds of pneumonia",
        False,
    ),
    "integrated gradients": (
        partial(attributions.integrated_gradients, steps=8, tolerance=None),
        "contribution of each pixel to the log-odds of pneumonia, relative to the mean grey level",
        True,
    ),
}


class Session:
    """A finished run with its networks.

    Parameters
    ----------
    run : Run
        The ``STAGES`` of ``opening`` are finished.
    store : Store
        Of cached results.

    Attributes
    ----------
    networks : dict of str to Network
    images : ndarray of uint8, shape (n, side, side)
        All images of the run in index order, at the largest size there is.
    index : pandas.DataFrame
        One row per image, with labels: whoever plays with test images has seen them.
    likeness : Likeness
        Compares images with the run's training images.
    """

    def __init__(self, run: Run, *, store: Store) -> None:
        self.run = run
        self.radiographs = dataset.read(run.stage("01_data"))
        with self.radiographs.evaluation():
            self.index: pd.DataFrame = self.radiographs.index.copy()
        self.images = self.radiographs.detail
        self.train_rows = np.flatnonzero(self.index["split"] == "train")
        found = classifiers.load(run)
        with np.load(run.stage("05_knn") / "embeddings.npz") as saved:
            self.networks = {
                name: Network(classifier, saved[classifier.embedding][self.train_rows])
                for name, classifier in found.items()
                if classifier.embedding
            }
        self._probabilities: dict[str, np.ndarray] = {}
        self.likeness = classifiers.likeness_to_training(run, store)

    @property
    def synthetic(self) -> bool:
        """Whether the images are phantoms."""
        return self.radiographs.synthetic

    @property
    def drawn(self) -> bool:
        """Whether the images are phantoms of this run, which can be drawn again."""
        return self.radiographs.facts["phantoms"] is not None

    @property
    def lesion_contrast(self) -> float:
        """Contrast of the run's phantoms."""
        return float(self.radiographs.facts["phantoms"]["lesion_contrast"])

    def rows(self, split: str, class_name: str | None = None) -> np.ndarray:
        """Return the positions of a split's images, of one class or all: ndarray of int."""
        chosen = self.index["split"] == split
        if class_name is not None:
            chosen &= self.index["class_name"] == class_name
        return np.flatnonzero(chosen)

    def misclassified(self, name: str, threshold: float, rows: np.ndarray) -> np.ndarray:
        """Return those rows that a network misclassifies at a threshold, by the run's predictions."""
        y_true = (self.index["class_name"].iloc[rows] != "normal").to_numpy()
        return rows[(self._probability(name)[rows] >= threshold) != y_true]

    def decode(self, content: bytes) -> np.ndarray:
        """Return an image file as the run's images were decoded: uint8, shape (side, side).

        Raises
        ------
        OSError
            If it is not a readable JPEG or PNG.
        """
        side, framing = self.images.shape[1], self.radiographs.facts["framing"]
        return decoding.decode(io.BytesIO(content), side, framing=framing)[0]

    def redraw(self, row: int, **changes: object) -> np.ndarray:
        """Return a phantom of the run with its lesion or marker changed, see ``rendering.redraw``.

        ``changes`` may also have the run's ``lesion_contrast``.
        """
        options = self.radiographs.facts["phantoms"] | {"size": self.images.shape[1]}
        options |= {name: changes.pop(name) for name in ("lesion_contrast",) if name in changes}
        return rendering.redraw(self.index.iloc[[row]], changes=changes, **options)[0]

    def marker_height(self, row: int) -> float:
        """Return how high the marker of a phantom lies, 0 to 1; 0.5 where that is not known."""
        if not self.drawn:
            return 0.5
        box = self.index.iloc[row][["marker_y0", "marker_y1"]].astype(float)
        return acquisition.height(*(box / self.radiographs.facts["image_size"]))

    def unlike(self, image: np.ndarray) -> tuple[float, str]:
        """Return an image's anomaly score, and in which respects it is unlike the training images."""
        own = decoding.resize(image[None], self.radiographs.facts["image_size"])
        return float(self.likeness.anomaly_score(own)[0]), self.likeness.differences(own)[0]

    def trained_on(self, row: int) -> list[str]:
        """Return the names of the networks that an image of the run was used to train."""
        split = self.index["split"].iloc[row]
        if split in ("train", "test"):
            return list(self.networks) if split == "train" else []
        recipe = self.run.manifest("03_categorical")["recipe"]
        return ["ours"] if recipe["parameters"]["ours_all_images"] else []

    def confusion(self, name: str, threshold: float) -> Confusion:
        """Return how a network classifies the test images at a threshold."""
        (y_true, weights), y_prob = self._test, self._probability(name)[self.rows("test")]
        y_pred = (y_prob >= threshold).astype(int)
        counts = np.zeros((2, 2), dtype=int)
        np.add.at(counts, (y_true, y_pred), 1)
        estimates = {
            metric: bootstrap.estimate(function, y_true, y_pred, weights=weights)
            for metric, function in METRICS.items()
        }
        return Confusion(counts, estimates)

    def at_chance(self) -> list[str]:
        """Return the networks whose AUROC on the test images is not shown to be above one half.

        That is, its 95 % interval is not. None where a class has fewer than ``bootstrap.FEWEST``
        patients.
        """
        (y_true, weights), rows = self._test, self.rows("test")
        groups = self.index["group"].iloc[rows]
        if len(set(y_true)) < 2 or bootstrap.fewest_patients(groups, y_true) < bootstrap.FEWEST:
            return []
        aurocs = {
            name: bootstrap.estimate(
                metrics.auroc, y_true, self._probability(name)[rows], weights=weights
            )
            for name in self.networks
        }
        return [name for name, (_, low, _) in aurocs.items() if not low > 0.5]

    def _probability(self, name: str) -> np.ndarray:
        """Return the probability of pneumonia of each image of the run: float, shape (n,)."""
        if name not in self._probabilities:
            stage, file = self.networks[name].classifier.probabilities
            self._probabilities[name] = recipes.pneumonia(np.load(self.run.stage(stage) / file))
        return self._probabilities[name]

    @cached_property
    def _test(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the test images, and how often each occurs in each resample."""
        rows = self.index.iloc[self.rows("test")]
        y_true = (rows["class_name"] != "normal").to_numpy(dtype=int)
        seed = self.run.manifest("03_categorical")["recipe"]["parameters"]["seed"]
        return y_true, bootstrap.resamples(rows["group"], y_true, seed=seed)  # as in chapter 3


def changed(
    image: np.ndarray, *, border: float = 0.0, rows=(0.0, 0.0), columns=(0.0, 0.0)
) -> np.ndarray:
    """Return an image with its border blacked out and a rectangle erased.

    Parameters
    ----------
    image : ndarray of uint8, shape (side, side)
    border : float
        Width of the black border, as a share of the side, 0 to 0.5.
    rows, columns : (float, float)
        First and last row and column of the rectangle, as shares of the side; it is filled with
        the mean grey level of the image.

    Returns
    -------
    ndarray of uint8, shape (side, side)
    """
    side, result = len(image), image.copy()
    (top, bottom), (left, right) = (
        (round(side * low), round(side * high)) for low, high in (rows, columns)
    )
    result[top:bottom, left:right] = round(image.mean())
    width = round(side * border)
    inner = np.zeros_like(result)
    kept = slice(width, side - width)
    inner[kept, kept] = result[kept, kept]
    return inner


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

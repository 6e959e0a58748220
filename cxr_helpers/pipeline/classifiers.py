"""The classifiers of a finished run and its one-class detector, with their weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxr_helpers.data import dataset
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import accelerators, terminal

if TYPE_CHECKING:
    import keras

    from cxr_helpers.anomaly import likeness

STAGES = ("01_data", "02_binary", "03_categorical", "04_autoencoder")  # that hold them


@dataclass(frozen=True)
class Classifier:
    """A trained network.

    Attributes
    ----------
    model : keras.Model
        Predicts one probability, of pneumonia, or one for each class, the first of which is normal.
    size : int
        Height and width at which it predicts, in pixels.
    thresholds : mapping of str to float
        Of the probability of pneumonia, by the name of a row of the report.
    probabilities : (stage, name)
        The file with its predictions for all images of the run, in index order.
    embedding : str
        Its name among the embeddings of ``05_knn``, empty where it has none there.
    feature_map : str
        Its last layer with feature maps.
    of_crops : keras.Model, optional
        The network for crops, over which its embedding and half of its predictions are averaged, see
        ``recipes.predict``.
    mirrored : bool
        Whether its predictions are averaged over an image and its mirror image only.
    """

    model: keras.Model
    size: int
    thresholds: Mapping[str, float]
    probabilities: tuple[str, str]
    embedding: str
    feature_map: str
    of_crops: keras.Model | None = None
    mirrored: bool = False

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities that the network predicts, shape (n, outputs), range [0, 1].

        Parameters
        ----------
        images : ndarray of uint8, shape (n, side, side)
            Of any size.
        """
        from cxr_helpers.models import recipes

        return recipes.probabilities(
            self.model, images, size=self.size, mirrored=self.mirrored, of_crops=self.of_crops
        )


def are_there(run: Run) -> bool:
    """Return whether a run has the trained networks that ``load`` returns."""
    weights = {"02_binary": ("binary",), "03_categorical": ("categorical", "ours")}
    return all(
        (run.stage(stage) / f"{name}.weights.h5").is_file()
        for stage, names in weights.items()
        for name in names
    )


def load(run: Run) -> dict[str, Classifier]:
    """Return the classifiers of a run whose ``STAGES`` are finished, by name."""
    os.environ.update(accelerators.variables())
    with terminal.quiet_imports():
        from cxr_helpers.models import architectures, networks, pretrained

    accelerators.prepare()
    folder, facts = run.stage("03_categorical"), run.declared("03_categorical")["facts"]
    data = dataset.read(run.stage("01_data"))
    size, n_classes = data.facts["image_size"], len(data.classes)
    binary = architectures.binary_cnn(size)
    binary.load_weights(run.stage("02_binary") / "binary.weights.h5")
    categorical = architectures.categorical_cnn(size, classes=n_classes)
    categorical.load_weights(folder / "categorical.weights.h5")
    of_ours = folder / "ours.json", folder / "ours.weights.h5"
    ours = architectures.trained_residual_cnn(*of_ours)
    predicted = "03_categorical", "probabilities.npy"
    found = {
        f"published, {embedding}": Classifier(
            model, size, {f"published, {embedding}": 0.5}, saved, embedding, "conv4"
        )
        for embedding, model, saved in (
            ("binary", binary, ("02_binary", "probabilities.npy")),
            ("categorical", categorical, predicted),
        )
    }
    found["ours"] = Classifier(
        ours,
        ours.input_shape[1],
        {"ours": 0.5, "ours, equal priors": facts["sampled_share"]},
        ("03_categorical", "ours_probabilities.npy"),
        "ours",
        architectures.last_block(ours),
        of_crops=architectures.trained_residual_cnn(*of_ours, for_crops=True),
    )
    name = run.manifest("03_categorical")["recipe"]["parameters"]["pretrained"]
    weights = run.artifact("03_categorical", "pretrained.weights.h5")
    if weights and name:
        model = pretrained.build(name, classes=n_classes, weights=None)
        model.load_weights(weights)
        saved = "03_categorical", "pretrained_probabilities.npy"
        found[name] = Classifier(
            model, found["ours"].size, {name: 0.5}, saved, "", pretrained.FEATURE_MAP, mirrored=True
        )
    for network in networks.registered():
        weights = run.artifact("03_categorical", f"{network.id}.weights.h5")
        if weights is None:
            continue  # added since the run was made
        model = network.build(size, n_classes)
        model.load_weights(weights)
        saved = "03_categorical", f"{network.id}_probabilities.npy"
        found[network.label] = Classifier(
            model, size, {network.label: 0.5}, saved, network.id, network.feature_map
        )
    return found


def likeness_to_training(run: Run, store: Store) -> likeness.Likeness:
    """Return what compares images with the training images of a run.

    Parameters
    ----------
    run : Run
        Its ``STAGES`` are finished.
    store : Store
        Of cached results, for the features of the run's training images.
    """
    from cxr_helpers.anomaly import likeness, novelty, texture
    from cxr_helpers.models import sampling

    seed = run.manifest("04_autoencoder")["recipe"]["parameters"]["seed"]
    radiographs = dataset.read(run.stage("01_data"))
    development, _ = radiographs.development(seed=seed)
    normal, pneumonia = (
        part.where(sampling.subsample(len(part), of=len(radiographs), seed=seed))
        for part in (development.where(development.pneumonia == k) for k in (0, 1))
    )
    of_normal, of_pneumonia = (
        store.call(texture.band_energies, part.images) for part in (normal, pneumonia)
    )
    detectors = [fit(of_normal) for fit in (novelty.nearest_normals, novelty.mahalanobis)]

    def score(features: np.ndarray) -> np.ndarray:
        return np.mean([detector.score(features) for detector in detectors], axis=0)

    return likeness.fit(
        np.concatenate([normal.images, pneumonia.images]),
        anomaly_score=lambda images: score(texture.band_energies(images)),
        anomaly_limit=float(np.percentile(score(of_pneumonia), likeness.ORDINARY)),
    )

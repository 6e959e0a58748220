"""Predict images with the networks of a finished run. Not for clinical use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.data import dataset, decoding
from cxr_helpers.data.folders import is_clutter
from cxr_helpers.data.image_files import SUFFIXES
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system.errors import DataError

STAGES = ("01_data", "02_binary", "03_categorical", "04_autoencoder")  # that predictions need
COLUMNS = ("file", "network", "probability", "threshold", "call", "warning")
UNLIKE = 99.0  # percentile of the training images with pneumonia
CHUNK = 256  # images in memory at once


def find(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files that paths name: files, and the images in folders and below them.

    Raises
    ------
    DataError
        If a path does not exist, or there is no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            parts = {p: p.relative_to(path).parts for p in inside}
            found += sorted(p for p, names in parts.items() if not any(map(is_clutter, names)))
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: expected images or folders of images")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no image ({', '.join(sorted(SUFFIXES))})")
    return found


def predict(
    run: Run, images: Sequence[Path], *, store: Store, log: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """Return the probability of pneumonia of each image by each network of a run.

    Parameters
    ----------
    run : Run
        Its ``STAGES`` are finished.
    images : sequence of Path
        Files of any size; they are decoded as those of the run were.
    store : Store
        Of cached results, for the descriptors of the run's normal training images.
    log : callable, optional
        Receives a line of text for every ``CHUNK`` images.

    Returns
    -------
    pandas.DataFrame
        Columns ``COLUMNS``, one row for each image and network; where a file cannot be read, one
        row with the reason as ``warning``. ``call`` is ``normal`` or ``pneumonia``: whether the
        probability is at least ``threshold``. ``warning`` also tells whether the image is farther
        from the normal training images than ``UNLIKE`` % of those with pneumonia.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
    framing = run.manifest("01_data")["recipe"]["parameters"]["framing"]
    facts = dataset.read(run.stage("01_data")).facts
    size = facts["image_size"]
    detail_size = facts.get("detail_size") or size
    networks = list(_networks(run, size))
    anomaly_score, limit = _one_class(run, store)
    lines = []
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        pixels, faults = [], {}
        for path in chunk:
            try:
                pixels.append(decoding.decode(path, detail_size, framing=framing)[0])
            except OSError as error:
                faults[path] = f"not read: {error}"
        lines += [(str(path), "", np.nan, np.nan, "", reason) for path, reason in faults.items()]
        readable = [path for path in chunk if path not in faults]
        if readable:
            detail = np.stack(pixels)
            scores = anomaly_score(decoding.resize(detail, size))
            for probability, thresholds in networks:
                of_chunk = list(zip(readable, probability(detail), scores, strict=True))
                for (name, threshold), (path, p, score) in product(thresholds.items(), of_chunk):
                    call = "pneumonia" if p >= threshold else "normal"
                    warning = "unlike the training images" if score > limit else ""
                    lines.append((str(path), name, float(p), threshold, call, warning))
        if log is not None:
            log(f"{min(start + CHUNK, len(images))} of {len(images)} images")
    table = pd.DataFrame(lines, columns=COLUMNS)
    order = {str(path): number for number, path in enumerate(images)}
    return table.sort_values("file", key=lambda file: file.map(order), kind="stable")


def _networks(run: Run, size: int) -> Iterator[tuple[Callable, dict[str, float]]]:
    """Yield for each network how it predicts pneumonia, and its thresholds by name.

    The function takes images, ndarray of uint8, shape (n, side, side), and returns probabilities,
    ndarray of float, shape (n,).
    """
    from cxr_helpers.models import architectures, networks, recipes

    def of(model: object, size: int, *, mirrored: bool = False) -> Callable:
        return lambda images: recipes.pneumonia_probability(
            model, images, size=size, mirrored=mirrored
        )

    folder, facts = run.stage("03_categorical"), run.declared("03_categorical")["facts"]
    n_classes = len(dataset.read(run.stage("01_data")).classes)
    binary = architectures.binary_cnn(size)
    binary.load_weights(run.stage("02_binary") / "binary.weights.h5")
    yield of(binary, size), {"published, binary": 0.5}
    categorical = architectures.categorical_cnn(size, classes=n_classes)
    categorical.load_weights(folder / "categorical.weights.h5")
    yield of(categorical, size), {"published, categorical": 0.5}
    ours = architectures.trained_residual_cnn(folder / "ours.json", folder / "ours.weights.h5")
    thresholds = {"ours": 0.5, "ours, equal priors": facts["sampled_share"]}
    yield of(ours, ours.input_shape[1], mirrored=True), thresholds
    for network in networks.registered():
        model = network.build(size, n_classes)
        model.load_weights(folder / f"{network.id}.weights.h5")
        yield of(model, size), {network.label: 0.5}


def _one_class(run: Run, store: Store) -> tuple[Callable, float]:
    """Return the anomaly score of chapter 4, detail and edges, and its limit."""
    from cxr_helpers.anomaly import novelty, texture

    seed = run.manifest("04_autoencoder")["recipe"]["parameters"]["seed"]
    radiographs = dataset.read(run.stage("01_data"))
    development, _ = radiographs.development(seed=seed)
    normal, pneumonia = (development.where(development.pneumonia == k) for k in (0, 1))
    describe = (texture.band_energies, texture.edge_directions)
    detectors = [novelty.nearest_normals(store.call(d, normal.images)) for d in describe]

    def score(images: np.ndarray, call: Callable = lambda d, x: d(x)) -> np.ndarray:
        pairs = zip(describe, detectors, strict=True)
        return np.mean([detector.score(call(d, images)) for d, detector in pairs], axis=0)

    return score, float(np.percentile(score(pneumonia.images, store.call), UNLIKE))

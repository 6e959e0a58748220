"""Predict images with the networks of a finished run. Not for clinical use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.data import dataset, decoding
from cxr_helpers.data.class_names import CLASSES
from cxr_helpers.data.folders import is_clutter
from cxr_helpers.data.image_files import SUFFIXES
from cxr_helpers.pipeline import classifiers
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system.errors import DataError
from cxr_helpers.system.files import as_utf8

KINDS = CLASSES[1:]  # of pneumonia
COLUMNS = ("file", "network", "probability", "threshold", "prediction", *KINDS, "warning", "run")
CHUNK = 256  # images in memory at once
NOT_READ = frozenset({".bmp", ".dcm", ".gif", ".tif", ".tiff", ".webp"})  # formats of images, too


def find(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files that paths name: files, and the images in folders and below them.

    Images of other formats (``NOT_READ``) are among them: ``predict`` gives the reason for each.

    Raises
    ------
    DataError
        If a path does not exist, or there is no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            known = SUFFIXES | NOT_READ
            inside = (p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
            parts = {p: p.relative_to(path).parts for p in inside}
            found += sorted(p for p, names in parts.items() if not any(map(is_clutter, names)))
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: expected images or folders of images")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no image ({', '.join(sorted(SUFFIXES))})")
    return list(dict.fromkeys(found))  # an image of a folder may be named as well


def predict(
    run: Run, images: Sequence[Path], *, store: Store, log: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """Return the probability of pneumonia of each image by each network of a run.

    Parameters
    ----------
    run : Run
        The ``STAGES`` of ``classifiers`` are finished.
    images : sequence of Path
        Files of any size; they are decoded as those of the run were.
    store : Store
        Of cached results, for the features of the run's training images.
    log : callable, optional
        Receives a line of text for every ``CHUNK`` images.

    Returns
    -------
    pandas.DataFrame
        Columns ``COLUMNS``, one row for each image, network and threshold; where a file cannot be
        read, one row with the reason as ``warning`` and no network. ``probability`` is that of
        pneumonia, ``bacterial`` and ``viral`` those of a network of three classes, ``prediction``
        ``normal`` or ``pneumonia``: whether the probability is at least ``threshold``. ``warning``
        also tells in which respects the image is unlike the training images, see
        ``anomaly.likeness``; ``run`` is the name of the run.
    """
    facts = dataset.read(run.stage("01_data")).facts
    size = facts["image_size"]
    detail_size = facts.get("detail_size") or size
    networks = classifiers.load(run).values()  # sets variables that TensorFlow reads at its import
    from cxr_helpers.models import recipes

    likeness = classifiers.likeness_to_training(run, store)
    lines = []
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        pixels, faults = [], {}
        for path in chunk:
            try:
                pixels.append(decoding.decode(path, detail_size, framing=facts["framing"])[0])
            except OSError as error:
                is_other = path.suffix.lower() in NOT_READ and error.errno is None
                reason = "only JPEG and PNG files can be read: convert it" if is_other else error
                faults[path] = f"not read: {reason}"
        lines += [{"file": path, "network": "", "warning": faults[path]} for path in faults]
        readable = [path for path in chunk if path not in faults]
        if readable:
            detail = np.stack(pixels)
            differences = likeness.differences(decoding.resize(detail, size))
            warnings = [d and f"unlike the training images: {d}" for d in differences]
            of_images = pd.DataFrame({"file": readable, "warning": warnings})
            for network in networks:
                y_prob = network.predict(detail)
                own = of_images.assign(probability=recipes.pneumonia(y_prob))
                if y_prob.shape[1] == len(CLASSES):
                    own[list(KINDS)] = y_prob[:, 1:]
                for name, threshold in network.thresholds.items():
                    called = np.where(own["probability"] >= threshold, "pneumonia", "normal")
                    lines += own.assign(
                        network=name, threshold=threshold, prediction=called
                    ).to_dict("records")
        if log is not None:
            log(f"{min(start + CHUNK, len(images))} of {len(images)} images")
    table = pd.DataFrame(lines, columns=COLUMNS).assign(run=run.name)
    order = {path: number for number, path in enumerate(images)}
    table = table.sort_values("file", key=lambda file: file.map(order), kind="stable")
    return table.assign(file=[as_utf8(str(path)) for path in table["file"]])

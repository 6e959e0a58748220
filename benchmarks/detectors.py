"""Compare one-class detectors where image style is, and is not, associated with the class.

    uv run run_all.py --data path/to/chest_xray --run search --only 01_data
    uv run benchmarks/detectors.py report/build/search

The detectors are fitted on the normal images of four fifths of the patient groups and score the
images of the other fifth, each in turn; test images are left out. Prints the AUROC on all images,
on shortcut-conflicting ones, and with weights that make the border uninformative
(``shortcut_groups.balancing_weights``); of the last, also the difference from the first detector,
with the 95 % interval over patient groups. ``docs/decisions/anomaly-detectors.md`` holds what it
printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import neighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_helpers.anomaly import novelty, texture
from cxr_helpers.data import dataset
from cxr_helpers.data.splits import stratified_folds
from cxr_helpers.evaluation import bootstrap, metrics, shortcut_groups

MARGINS = (0.12, 0.15, 0.18, 0.22)


class LocalOutlierFactor:
    """scikit-learn's detector, on the unshifted placement, with the interface of ours."""

    def __init__(self, features: np.ndarray) -> None:
        model = neighbors.LocalOutlierFactor(20, novelty=True)
        self.model = make_pipeline(StandardScaler(), model).fit(self._middle(features))

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return the anomaly score of images."""
        return -self.model.score_samples(self._middle(features))

    @staticmethod
    def _middle(features: np.ndarray) -> np.ndarray:
        return features[:, features.shape[1] // 2]


FITS = {"nearest": novelty.nearest_normals, "Gaussian": novelty.mahalanobis}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run whose 01_data is complete")
    part = dataset.read(parser.parse_args().run / "stages" / "01_data").trainable
    scores = {}
    for margin in MARGINS:
        texture.MARGIN = margin
        features = texture.band_energies(part.images)
        for name, fit in FITS.items():
            scores[f"{name}, margin {margin}"] = held_out_scores(fit, features, part)
        both = [scores[f"{name}, margin {margin}"] for name in FITS]
        scores[f"both, margin {margin}"] = np.mean(both, axis=0)
        factor = held_out_scores(LocalOutlierFactor, features, part)
        scores[f"local outlier factor, margin {margin}"] = factor
    print(compared(scores, part).to_string(index=False, float_format="{:.3f}".format))


def held_out_scores(fit: Callable, features: np.ndarray, part: dataset.Part) -> np.ndarray:
    """Return the score of each image by a detector fitted without its patient group."""
    scores = np.zeros(len(part))
    folds = stratified_folds(part.pneumonia, part.index["group"], folds=5, seed=0)
    for train, held_out in folds:
        normal = train[part.pneumonia[train] == 0]
        scores[held_out] = fit(features[normal]).score(features[held_out])
    return scores


def compared(scores: dict[str, np.ndarray], part: dataset.Part) -> pd.DataFrame:
    """Return one line for each detector."""
    y_true, index = part.pneumonia, part.index
    balancing = shortcut_groups.balancing_weights(index)
    conflicting = shortcut_groups.alignment(index, seed=0) < 0
    draws = bootstrap.resamples(index["group"], y_true, draws=1000, seed=0) * balancing
    lines, first = [], None
    for name, y_score in scores.items():
        by_draw = metrics.auroc(y_true, y_score, draws)
        first = by_draw if first is None else first
        of_all, of_conflicting, balanced = (
            metrics.auroc(y_true[rows], y_score[rows], weights[None, rows])[0]
            for rows, weights in (
                (slice(None), np.ones(len(part))),
                (conflicting, np.ones(len(part))),
                (slice(None), balancing),
            )
        )
        low, high = bootstrap.percentile(by_draw - first)
        lines.append((name, of_all, of_conflicting, balanced, low, high))
    return pd.DataFrame(
        lines, columns=["detector", "all", "conflicting", "balanced", "low", "high"]
    )


if __name__ == "__main__":
    main()

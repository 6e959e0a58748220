"""Measure the one-class detectors of this project beside scikit-learn's and scikit-image's.

    uv run benchmarks/libraries.py path/to/chest_xray
    uv run --with scikit-image benchmarks/libraries.py path/to/chest_xray    # with hog

Prints, over random divisions of the training images into images to fit on and held-out patient
groups, the mean AUROC for pneumonia of each detector and description, and by how much it differs
from this project's. docs/decisions/libraries.md holds what it printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_helpers.anomaly import novelty, texture
from cxr_helpers.data import decoding, layouts

HELD_OUT = 0.15  # of the training images' patient groups, within each class
OURS = "nearest normals, 9 placements"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder of real images")
    parser.add_argument("--size", type=int, default=128, help="working size in pixels")
    parser.add_argument("--divisions", type=int, default=10, help="random divisions")
    options = parser.parse_args()
    scan = layouts.scan(options.data)
    cache = Path("report/build/.cache/decoded")
    images, table, _ = decoding.decode_all(scan, options.size, cache_dir=cache)
    descriptions = {
        "detail": texture.band_energies(images),
        "edges": texture.edge_directions(images),
    }
    if (hog := oriented_gradients(images)) is not None:
        descriptions["hog"] = hog
    lines = [
        line for seed in range(options.divisions) for line in division(descriptions, table, seed)
    ]
    print(summary(pd.DataFrame(lines, columns=["description", "detector", "split", "auroc"])))


def oriented_gradients(images: np.ndarray) -> np.ndarray | None:
    """Return scikit-image's histograms of oriented gradients, or None where it is missing."""
    try:
        from skimage.feature import hog
    except ImportError:
        return None
    margin = round(texture.MARGIN * images.shape[1])
    centre = images[:, margin:-margin, margin:-margin]
    cell = centre.shape[1] // texture.REGIONS
    options = {"orientations": texture.DIRECTIONS, "pixels_per_cell": (cell, cell)}
    whole = (texture.REGIONS, texture.REGIONS)
    return np.stack(
        [hog(i, cells_per_block=whole, block_norm="L1-sqrt", **options) for i in centre]
    )


def division(descriptions: dict, table: pd.DataFrame, seed: int) -> list[tuple]:
    """Return the AUROC of every detector on the held-out and on the test images."""
    draw = np.random.default_rng(seed)
    test = (table["folder"] == "test").to_numpy()
    pneumonia = (table["class_name"] != "normal").to_numpy()
    groups = table["group"].to_numpy()
    held_out = np.zeros(len(table), dtype=bool)
    for label in (False, True):
        names = np.unique(groups[~test & (pneumonia == label)])
        chosen = draw.permutation(names)[: round(HELD_OUT * len(names))]
        held_out |= ~test & (pneumonia == label) & np.isin(groups, chosen)
    fitted, scored = ~test & ~held_out & ~pneumonia, held_out | test
    scores: dict[tuple[str, str], np.ndarray] = {}
    for name, features in descriptions.items():
        middle = features[:, features.shape[1] // 2] if features.ndim == 3 else features
        if features.ndim == 3:
            detector = novelty.nearest_normals(features[fitted])
            scores[name, OURS] = detector.score(features[scored])
        scores[name, "nearest normals"] = novelty.nearest_normals(middle[fitted]).score(
            middle[scored]
        )
        for k in (10, 20):
            model = make_pipeline(StandardScaler(), LocalOutlierFactor(k, novelty=True))
            scores[name, f"LOF, {k} neighbours"] = -model.fit(middle[fitted]).score_samples(
                middle[scored]
            )
    for detector in {detector for _, detector in scores}:
        for partner in ("edges", "hog"):
            if ("detail", detector) in scores and (partner, detector) in scores:
                both = scores["detail", detector] + scores[partner, detector]
                scores[f"detail and {partner}", detector] = both
    return [
        (*key, split, roc_auc_score(pneumonia[rows], values[rows[scored]]))
        for key, values in scores.items()
        for split, rows in (("validation", held_out), ("test", test))
    ]


def summary(lines: pd.DataFrame) -> str:
    """Return the means over divisions, and the differences from ours, as text."""
    lines = lines.assign(division=lines.groupby(["description", "detector", "split"]).cumcount())
    ours = lines[lines["detector"] == OURS].assign(
        description=lambda own: own["description"].str.replace("hog", "edges")
    )
    ours = ours.set_index(["description", "split", "division"])["auroc"]
    compared = lines["description"].str.replace("hog", "edges")
    keys = zip(compared, lines["split"], lines["division"], strict=True)
    lines["difference"] = lines["auroc"] - [ours[key] for key in keys]
    found = lines.groupby(["description", "detector", "split"], sort=False).agg(
        auroc=("auroc", "mean"), difference=("difference", "mean"), sd=("difference", "std")
    )
    return found.round(4).to_string()


if __name__ == "__main__":
    main()

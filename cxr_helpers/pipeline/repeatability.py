"""How similar the heat maps of several trainings are, once all seeds of a run have been trained."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_helpers.data import dataset
from cxr_helpers.evaluation import bootstrap
from cxr_helpers.pipeline import classifiers
from cxr_helpers.pipeline.runs import MAP_SIMILARITY, Run
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import accelerators, environment, files

COLUMNS = ["network", "method", "n", "similarity", "low", "high", "other", "gap"]
IMAGES = 24  # with pneumonia
PATCH = 0.125  # of occlusion, share of the image's side


def write(run: Run, *, seeds: Sequence[int], store: Store) -> pd.DataFrame:
    """Write ``MAP_SIMILARITY`` into a run's folder; return its content.

    Parameters
    ----------
    run : Run
    seeds : sequence of int
        Other seeds of this run.
    store : Store
        Of cached results.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``n`` (test images with pneumonia, drawn at random),
        ``similarity`` of the maps of two trainings (absolute Spearman correlation, mean over pairs
        and images) with its 95 % interval ``low`` and ``high`` (NaN below ``bootstrap.FEWEST``
        images), ``other``, that of the maps of two images, and their difference ``gap``, paired by
        image; without intervals, as each image is in two of the pairs of images. No rows where a
        training's networks are not there.
    """
    runs = [run, *(run.seed(seed) for seed in seeds)]
    found = _similarity(runs, store) if all(map(classifiers.are_there, runs)) else []
    table = pd.DataFrame(found, columns=COLUMNS)
    files.write_text(run.folder / MAP_SIMILARITY, table.to_csv(index=False, lineterminator="\n"))
    return table


def read(run: Run) -> pd.DataFrame:
    """Return what ``write`` wrote; without rows where it wrote nothing."""
    path = run.folder / MAP_SIMILARITY
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def _similarity(runs: Sequence[Run], store: Store) -> list[tuple]:
    os.environ.update(accelerators.variables())  # read when TensorFlow is imported
    from cxr_helpers.explain import measures

    environment.fix_threads()
    data = dataset.read(runs[0].stage("01_data"))
    with data.evaluation():
        test = data["test"]
        order = np.random.default_rng(0).permutation(len(test))
        rows = order[test.pneumonia[order] == 1][:IMAGES]
        weights = bootstrap.resamples(test.index["group"].iloc[rows], np.ones(len(rows)), seed=0)
    trainings = [classifiers.load(run) for run in runs]
    lines = []
    for name, first in trainings[0].items():
        if not all(name in of_run for of_run in trainings):
            continue  # such as one from ImageNet, whose weights could not be downloaded
        models, images = [of_run[name].model for of_run in trainings], test.at(first.size)[rows]
        options = {"feature_map": first.feature_map, "patch_share": PATCH}
        table = store.call(measures.repeatability, models, images, **options)
        for method, of_method in table.groupby("method", sort=False):
            similarity = of_method["similarity"]
            interval = bootstrap.mean(similarity, weights=weights, fewest=bootstrap.FEWEST)
            n = int(similarity.notna().sum())  # constant maps have no similarity
            gap = (similarity - of_method["other"]).mean()
            lines.append((name, method, n, *interval, of_method["other"].mean(), gap))
    return lines

"""All maps of a network, the maps that no model made, and what each scores image by image."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import keras
import numpy as np
import pandas as pd

from cxr_helpers.data import decoding
from cxr_helpers.explain import (
    attributions,
    controls,
    covering,
    localization,
    removal,
    sanity,
)
from cxr_helpers.explain.explained import Explained, explained_by

METHODS = ("occlusion", "absolute gradient", "int. gradients", "Grad-CAM", "HiResCAM")


def methods(
    explained: Explained, *, patch_share: float, steps: int = 32
) -> dict[str, sanity.Method]:
    """Return the explanations by name, one for each of ``METHODS``.

    Each is a function of ``Explained`` and prepared images.

    Parameters
    ----------
    explained : Explained
    patch_share : float
        Side of the occluding patch, share of the image's; it moves by half its side.
    steps : int
        Of the integral of integrated gradients.
    """
    patch = max(2, round(patch_share * explained.size))
    return {
        "occlusion": partial(covering.maps, patch=patch, stride=max(1, patch // 2)),
        "absolute gradient": attributions.absolute_gradient,
        "int. gradients": partial(attributions.integrated_gradients, steps=steps),
        "Grad-CAM": attributions.grad_cam,
        "HiResCAM": attributions.hires_cam,
    }


def attribution_maps(
    model: keras.Model, images: np.ndarray, *, feature_map: str, patch_share: float
) -> dict[str, np.ndarray]:
    """Return the maps of every method, and how long they took.

    Parameters
    ----------
    model : keras.Model
        As for ``Explained``.
    images : ndarray of uint8, shape (n, side, side)
    feature_map : str
    patch_share : float

    Returns
    -------
    dict of str to ndarray of float32, shape (n, size, size)
        By the names of ``methods``; ``"ms"`` has the milliseconds per image of each, shape (5,).
    """
    explained = explained_by(model, feature_map)
    prepared = explained.prepare(images)
    maps, took = {}, []
    for name, method in methods(explained, patch_share=patch_share).items():
        method(explained, prepared[:1])  # traces its functions
        start = time.perf_counter()
        maps[name] = method(explained, prepared)
        took.append(1000 * (time.perf_counter() - start) / len(prepared))
    return maps | {"ms": np.array(took)}


def occlusion_maps(
    model: keras.Model, images: np.ndarray, *, feature_map: str, **options: object
) -> np.ndarray:
    """Return occlusion maps of a network's images, see ``covering.maps``.

    Parameters
    ----------
    model : keras.Model
    images : ndarray of uint8, shape (n, side, side)
    feature_map : str
    **options
        Those of ``covering.maps``.
    """
    explained = explained_by(model, feature_map)
    return covering.maps(explained, explained.prepare(images), **options)


def control_maps(
    images: np.ndarray, occlusion: np.ndarray, *, patch_share: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the maps that no model made for these images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side)
    occlusion : ndarray of float, shape (n, size, size)
        Occlusion maps of a network: of each image, the mean map of the *other* images is taken.
    patch_share : float
        The smoothed noise has half a patch as standard deviation.
    seed : int

    Returns
    -------
    dict of str to ndarray of float32, shape (n, size, size)
    """
    size = occlusion.shape[1]
    resized = decoding.resize(images, size)
    return {
        "white noise": controls.noise(resized, seed=seed),
        "smoothed noise": controls.noise(resized, seed=seed, sigma=patch_share * size / 2),
        "centre": controls.centred(resized),
        "image edges": controls.edges(resized),
        "mean of others": controls.of_other_images(occlusion),
    }


def resized_masks(masks: np.ndarray, size: int) -> np.ndarray:
    """Return masks at another size: ndarray of bool, shape (n, size, size)."""
    return decoding.resize(masks.astype(np.uint8) * 255, size) >= 128


def scores(
    model: keras.Model,
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    regions: Mapping[str, np.ndarray],
    *,
    feature_map: str,
) -> pd.DataFrame:
    """Return what each map scores on each image.

    Parameters
    ----------
    model : keras.Model
    images : ndarray of uint8, shape (n, side, side)
    maps : mapping of name to ndarray of float, shape (n, size, size)
    regions : mapping of name to ndarray of bool, shape (n, side, side)
        Such as lesion, lung and marker.
    feature_map : str

    Returns
    -------
    pandas.DataFrame
        Columns ``method``, ``image`` (position), for each region ``<region> hit``, ``<region> heat``,
        ``<region> auprc``, ``<region> area`` and ``<region> gain`` (heat / area), and the symmetric
        relevance gain for each of ``removal.FILLS``, ``SRG, <fill>``.
    """
    explained = explained_by(model, feature_map)
    prepared = explained.prepare(images)
    parts = {name: resized_masks(masks, explained.size) for name, masks in regions.items()}
    tables = []
    for method, heat in maps.items():
        columns = {"method": method, "image": np.arange(len(heat))}
        for region, masks in parts.items():
            placed = localization.score_maps(heat, masks)
            placed["gain"] = placed["heat"] / placed["area"].where(placed["area"] > 0)
            columns |= {f"{region} {name}": placed[name] for name in placed}
        for fill in removal.FILLS:
            curves = removal.curves(explained, prepared, heat, fill=fill)
            columns[f"SRG, {fill}"] = removal.relevance_gain(*curves)
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _coarse_methods(explained: Explained, patch_share: float) -> dict[str, sanity.Method]:
    """Return the methods with fewer evaluations: for maps that are only compared with each other.

    The patch of occlusion is twice as large and moves by its side; the integral has eight steps.
    """
    patch = max(2, round(min(2 * patch_share, 0.5) * explained.size))
    coarse = methods(explained, patch_share=patch_share, steps=8)
    return coarse | {"occlusion": partial(covering.maps, patch=patch, stride=patch)}


def dependence(
    model: keras.Model,
    images: np.ndarray,
    *,
    feature_map: str,
    patch_share: float,
    seed: int,
    draws: int = 3,
) -> pd.DataFrame:
    """Return how similar maps stay when the network loses its training, from the last layer on.

    Parameters
    ----------
    model : keras.Model
        Trained; it keeps its weights.
    images : ndarray of uint8, shape (n, side, side)
    feature_map : str
    patch_share : float
        Of occlusion, whose patch is twice as large here and moves by its side.
    seed : int
        Of the new weights.
    draws : int
        How often new weights are drawn. In the first, each layer or block is a step of its own; in
        the others there is one, all of them.

    Returns
    -------
    pandas.DataFrame
        Columns ``method``, ``draw``, ``step`` (the layer that lost its training last), ``image`` and
        ``similarity`` (see ``sanity.similarity``). The step ``"other image"`` compares the maps of
        different images of the trained network, the step ``"all"`` is the last one.
    """
    explained, trained = explained_by(model, feature_map), model.get_weights()
    prepared = explained.prepare(images)
    chosen = _coarse_methods(explained, patch_share)
    before = {name: method(explained, prepared) for name, method in chosen.items()}
    lines = []

    def compare(draw: int, step: str, maps: Mapping[str, np.ndarray]) -> None:
        for name, found in maps.items():
            values = sanity.similarity(before[name], found)
            lines.extend((name, draw, step, i, value) for i, value in enumerate(values))

    compare(0, "other image", {name: np.roll(maps, 1, axis=0) for name, maps in before.items()})
    last = sanity.steps(model)[-1]
    try:
        for draw in range(draws):
            keras.utils.set_random_seed(seed + draw)
            fresh = keras.models.clone_model(model)  # with new initial weights
            model.set_weights(trained)
            for step in sanity.randomised(model, fresh):
                if draw == 0 or step == last:
                    name = "all" if step == last else step
                    compare(draw, name, {n: m(explained, prepared) for n, m in chosen.items()})
    finally:
        model.set_weights(trained)
    return pd.DataFrame(lines, columns=["method", "draw", "step", "image", "similarity"])


def stability(
    model: keras.Model, images: np.ndarray, *, feature_map: str, patch_share: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the max-sensitivity of each method: dict of str to ndarray of float, shape (n,).

    The patch of occlusion is twice as large here and moves by its side.
    """
    explained = explained_by(model, feature_map)
    prepared = explained.prepare(images)
    grey_levels = np.ptp(prepared, axis=(1, 2), keepdims=True) if explained.standardises else 1.0
    chosen = _coarse_methods(explained, patch_share)
    return {
        name: sanity.max_sensitivity(explained, prepared, method, scale=grey_levels, seed=seed)
        for name, method in chosen.items()
    }

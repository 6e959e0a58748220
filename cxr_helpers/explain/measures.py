"""All maps of a network, the controls, and what each scores image by image."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
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

# What fills the patch of each kind of occlusion. A network that standardises its input is explained
# after that step, where 0 is the mean: it has the first only.
COVERS = {"occlusion": "mean", "occlusion, black": "black", "occlusion, around": "surroundings"}
GRADIENTS = ("absolute gradient", "int. gradients", "Grad-CAM", "HiResCAM")
METHODS = (*COVERS, *GRADIENTS)
TRACED = ("occlusion", "absolute gradient", "Grad-CAM")  # the others call what these compile


def methods(
    explained: Explained,
    *,
    patch_share: float,
    coarse: bool = False,
    only: Sequence[str] = METHODS,
) -> dict[str, sanity.Method]:
    """Return the explanations by name, those of ``METHODS`` that the network has.

    Each is a function of ``Explained`` and prepared images.

    Parameters
    ----------
    explained : Explained
    patch_share : float
        Side of the occluding patch, share of the image's; it moves by half its side.
    coarse : bool
        Whether with fewer evaluations, for maps that are only compared with each other: of the kinds
        of occlusion the first, whose patch is twice as large and moves by its side; and eight steps
        of the integral of integrated gradients.
    only : sequence of str
        Names: other methods are left out.
    """
    patch = max(2, round(min((1 + coarse) * patch_share, 0.5) * explained.size))
    occlude = partial(covering.maps, patch=patch, stride=patch if coarse else max(1, patch // 2))
    covers = list(COVERS)[:1] if coarse or explained.standardises else COVERS
    integral = {"steps": 8, "tolerance": None} if coarse else {}
    found = {
        **{name: partial(occlude, fill=COVERS[name]) for name in covers},
        "absolute gradient": attributions.absolute_gradient,
        "int. gradients": partial(attributions.integrated_gradients, **integral),
        "Grad-CAM": attributions.grad_cam,
        "HiResCAM": attributions.hires_cam,
    }
    return {name: method for name, method in found.items() if name in only}


def attribution_maps(
    model: keras.Model,
    images: np.ndarray,
    *,
    feature_map: str,
    patch_share: float,
    occluded: int | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the maps of every method, and how long they took.

    Parameters
    ----------
    model : keras.Model
        As for ``Explained``.
    images : ndarray of uint8, shape (n, side, side)
    feature_map : str
    patch_share : float
        As for ``methods``.
    occluded : int, optional
        Only so many images, the first ones, get the maps of ``COVERS``, which take longest.

    Returns
    -------
    maps : dict of str to ndarray of float32, shape (n or occluded, size, size)
        By the names of ``methods``.
    ms : dict of str to float
        Milliseconds of processor time per image of each, on all cores together: the time on the
        clock depends on what else runs.
    """
    explained = explained_by(model, feature_map)
    prepared = explained.prepare(images)
    maps, ms, chosen = {}, {}, methods(explained, patch_share=patch_share)
    for name in TRACED:
        chosen[name](explained, prepared[:1])  # what is traced for it takes no time below
    for name, method in chosen.items():
        some = prepared[:occluded] if name in COVERS else prepared
        start = time.process_time()
        maps[name] = method(explained, some)
        ms[name] = 1000 * (time.process_time() - start) / len(some)
    return maps, ms


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
    """Return the controls: maps that cannot know the network's answer to these images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side)
    occlusion : ndarray of float, shape (m, size, size)
        Occlusion maps of a network, of the first m images: of each image, the mean map of the
        *other* images is taken.
    patch_share : float
        The smoothed noise has half a patch as standard deviation.
    seed : int

    Returns
    -------
    dict of str to ndarray of float32, shape (n, size, size)
    """
    size = occlusion.shape[1]
    resized = decoding.resize(images, size)
    of_all = np.repeat(occlusion.mean(axis=0)[None], len(images) - len(occlusion), axis=0)
    return {
        "white noise": controls.noise(resized, seed=seed),
        "smoothed noise": controls.noise(resized, seed=seed, sigma=patch_share * size / 2),
        "centre": controls.centred(resized),
        "image edges": controls.edges(resized),
        "mean of others": np.concatenate([controls.of_other_images(occlusion), of_all]),
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
    curved: int | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what each map scores on each image, and its removal curves.

    Parameters
    ----------
    model : keras.Model
    images : ndarray of uint8, shape (n, side, side)
    maps : mapping of name to ndarray of float, shape (n or fewer, size, size)
        Of the first images.
    regions : mapping of name to ndarray of bool, shape (n, side, side)
        Such as lesion, lung and marker.
    feature_map : str
    curved : int, optional
        Only of so many images, the first ones, are pixels removed.

    Returns
    -------
    scores : pandas.DataFrame
        Columns ``method``, ``image`` (position), for each region ``<region> hit``, ``<region> heat``,
        ``<region> rank``, ``<region> auprc``, ``<region> area`` and ``<region> gain`` (heat / area), and
        the symmetric relevance gain for each of ``removal.FILLS``, ``SRG, <fill>``, NaN where nothing
        was removed.
    curves : pandas.DataFrame
        Columns ``method``, ``fill``, ``image``, ``share`` (of the pixels removed), ``most`` and
        ``least`` (the log-odds when the most, or the least, relevant ones go first).
    """
    explained = explained_by(model, feature_map)
    prepared = explained.prepare(images[:curved])
    parts = {name: resized_masks(masks, explained.size) for name, masks in regions.items()}
    tables, curves = [], []
    ends = {fill: removal.endpoints(explained, prepared, fill=fill) for fill in removal.FILLS}
    for method, heat in maps.items():
        columns = {"method": method, "image": np.arange(len(heat))}
        for region, masks in parts.items():
            placed = localization.score_maps(heat, masks[: len(heat)])
            placed["gain"] = placed["heat"] / placed["area"].where(placed["area"] > 0)
            columns |= {f"{region} {name}": placed[name] for name in placed}
        for fill in removal.FILLS:
            n = min(len(prepared), len(heat))
            own = {"fill": fill, "ends": ends[fill][:, :n]}
            most, least = removal.curves(explained, prepared[:n], heat[:n], **own)
            columns[f"SRG, {fill}"] = np.full(len(heat), np.nan)
            columns[f"SRG, {fill}"][:n] = removal.relevance_gain(most, least)
            curve = pd.DataFrame({"image": np.repeat(np.arange(n), len(removal.SHARES))})
            curve = curve.assign(share=np.tile(removal.SHARES, n), most=most.ravel())
            curves.append(curve.assign(least=least.ravel(), method=method, fill=fill))
        tables.append(pd.DataFrame(columns))
    return tuple(pd.concat(parts, ignore_index=True) for parts in (tables, curves))


def dependence(
    model: keras.Model,
    images: np.ndarray,
    *,
    feature_map: str,
    patch_share: float,
    seed: int,
    draws: int = 3,
    only: Sequence[str] = METHODS,
) -> tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]:
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
    only : sequence of str
        As for ``methods``.

    Returns
    -------
    similarity : pandas.DataFrame
        Columns ``method``, ``draw``, ``step`` (the layer that lost its training last), ``image`` and
        ``similarity`` (see ``sanity.similarity``). The step ``"other image"`` compares the maps of
        different images of the trained network, the step ``"all"`` is the last one.
    strip : dict of str to dict of str to ndarray of float32, shape (size, size)
        Maps of the first image by method and step of the first draw, ``"trained"`` first.
    """
    explained, trained = explained_by(model, feature_map), model.get_weights()
    prepared = explained.prepare(images)
    chosen = methods(explained, patch_share=patch_share, coarse=True, only=only)
    before = {name: method(explained, prepared) for name, method in chosen.items()}
    strip = {name: {"trained": maps[0]} for name, maps in before.items()}
    ranked = {name: sanity.ranks(maps) for name, maps in before.items()}
    lines = []

    def compare(draw: int, step: str, maps: Mapping[str, np.ndarray]) -> None:
        for name, found in maps.items():
            values = sanity.correlation(ranked[name], sanity.ranks(found))
            lines.extend((name, draw, step, i, value) for i, value in enumerate(values))

    compare(0, "other image", {name: np.roll(maps, 1, axis=0) for name, maps in before.items()})
    last = sanity.steps(model)[-1]
    try:
        for draw in range(draws):
            keras.utils.set_random_seed(seed + draw)
            model.set_weights(trained)
            for step in sanity.randomised(model):
                if draw > 0 and step != last:
                    continue
                name = "all" if step == last else step
                found = {n: method(explained, prepared) for n, method in chosen.items()}
                compare(draw, name, found)
                if draw == 0:
                    for method, maps in found.items():
                        strip[method][name] = maps[0]
    finally:
        model.set_weights(trained)
    names = ["method", "draw", "step", "image", "similarity"]
    return pd.DataFrame(lines, columns=names), strip


def stability(
    model: keras.Model,
    images: np.ndarray,
    *,
    feature_map: str,
    patch_share: float,
    seed: int,
    only: Sequence[str] = METHODS,
) -> dict[str, np.ndarray]:
    """Return the max-sensitivity of each method: dict of str to ndarray of float, shape (n,).

    The methods and the parameters are those of ``dependence``.
    """
    explained = explained_by(model, feature_map)
    prepared = explained.prepare(images)
    after, before = (  # the range of each image's grey levels, as prepared and as it is
        np.ptp(x, axis=(1, 2), keepdims=True) for x in (prepared, images / np.float32(255))
    )
    full_range = np.divide(after, before, out=np.ones_like(after), where=before > 0)
    chosen = methods(explained, patch_share=patch_share, coarse=True, only=only)
    return sanity.max_sensitivity(explained, prepared, chosen, scale=full_range, seed=seed)


def repeatability(
    models: Sequence[keras.Model], images: np.ndarray, *, feature_map: str, patch_share: float
) -> pd.DataFrame:
    """Return how similar the maps of several trainings of one network are.

    Parameters
    ----------
    models : sequence of keras.Model
        Trained with different seeds; at least two.
    images : ndarray of uint8, shape (n, side, side)
    feature_map : str
    patch_share : float
        Of occlusion, as for ``dependence``.

    Returns
    -------
    pandas.DataFrame
        Columns ``method``, ``image``, ``similarity`` (see ``sanity.similarity``; mean over all pairs
        of trainings) and ``other`` (of the maps of this and of the next image, mean over trainings);
        NaN where one of the maps is constant.
    """
    lines, of_model = [], []
    for model in models:
        explained = explained_by(model, feature_map)
        prepared = explained.prepare(images)
        chosen = methods(explained, patch_share=patch_share, coarse=True)
        of_model.append({name: method(explained, prepared) for name, method in chosen.items()})
    for name in of_model[0]:
        ranked = [sanity.ranks(found[name]) for found in of_model]
        pairs = itertools.combinations(ranked, 2)
        same = np.mean([sanity.correlation(*pair) for pair in pairs], axis=0)
        other = np.mean([sanity.correlation(r, np.roll(r, -1, axis=0)) for r in ranked], axis=0)
        lines.append(pd.DataFrame({"method": name, "similarity": same, "other": other}))
    found = pd.concat(lines).reset_index(names="image")
    return found[["method", "image", "similarity", "other"]]

"""Whether a map depends on what the network has learnt, and stays when nothing else changes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import pandas as pd
from scipy import stats

from cxr_helpers.explain.explained import Explained

RADIUS = 0.02  # largest change of a grey level, share of the full range
MARGIN = 0.1  # above the similarity of maps of different images
AT_ONCE = 64  # changed images that are explained together, at least those of one draw

STEPS = {
    "all": "similarity, re-initialised",
    "other image": "similarity, other images",
}  # see by_image
SENSITIVITY = "sensitivity"
SCORES = (*STEPS.values(), SENSITIVITY)

Method = Callable[[Explained, np.ndarray], np.ndarray]


def randomised(network: keras.Model) -> Iterator[str]:
    """Take the training away from ever more layers of a network, from the last one on.

    Adebayo et al. (2018), *Sanity Checks for Saliency Maps*, NeurIPS.

    Parameters
    ----------
    network : keras.Model
        Trained; it is changed in place. Its layers get new weights from their own initialisers,
        which ``keras.utils.set_random_seed`` determines.

    Yields
    ------
    str
        Name of the layer, or of the block of layers, that lost its training last.
    """
    layers = [
        (step, layer)
        for step, layer in zip(_steps(network), network.layers, strict=True)
        if layer.weights
    ]
    for name, members in itertools.groupby(layers[::-1], key=lambda pair: pair[0]):
        for _, layer in members:
            fresh = type(layer).from_config(layer.get_config())
            fresh.build_from_config(layer.get_build_config())
            layer.set_weights(fresh.get_weights())
        yield name


def steps(network: keras.Model) -> list[str]:
    """Return the layers, or blocks of layers, in the order in which they lose their training."""
    trained = zip(_steps(network), network.layers, strict=True)
    return list(dict.fromkeys([step for step, layer in trained if layer.weights][::-1]))


def _steps(network: keras.Model) -> list[str]:
    """Return for each layer its name, or that of its block."""
    names = [layer.name for layer in network.layers]
    return [re.sub(r"^((block\d+)|(stem))_.*", r"\1", name) for name in names]


def similarity(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the absolute Spearman correlation of pairs of maps: ndarray of float, shape (n,).

    NaN where one of the two is constant, such as a map without heat: it is not defined there.
    """
    return correlation(ranks(maps), ranks(others))


def ranks(maps: np.ndarray) -> np.ndarray:
    """Return the ranks of each map's pixels, of mean 0 and length 1: float, shape (n, pixels).

    NaN where the map is constant.
    """
    found = stats.rankdata(maps.reshape(len(maps), -1), axis=1)
    found -= found.mean(axis=1, keepdims=True)
    length = np.sqrt((found**2).sum(axis=1, keepdims=True))
    return np.divide(found, length, out=np.full(found.shape, np.nan), where=length > 0)


def correlation(ranked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return ``similarity`` from the ``ranks`` of both, each of shape (n, pixels)."""
    return np.abs((ranked * others).sum(axis=1))


def by_image(
    similarity: pd.DataFrame, sensitivity: Mapping[str, Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """Return how much the maps of each image depend on the training, and how firm they are.

    Parameters
    ----------
    similarity : pandas.DataFrame
        Columns ``network``, ``method``, ``draw``, ``step`` (``all`` where every layer lost its
        training, and ``other image``), ``image`` and ``similarity``, NaN where it is not defined.
    sensitivity : mapping of network to mapping of method to ndarray of float, shape (n,)
        From ``max_sensitivity``.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``image`` and ``SCORES``: the similarities are means over
        the draws.
    """
    lines = [
        (network, method, image, value)
        for network, of_method in sensitivity.items()
        for method, of_images in of_method.items()
        for image, value in enumerate(of_images)
    ]
    keys = ["network", "method", "image"]
    found = pd.DataFrame(lines, columns=[*keys, SENSITIVITY]).set_index(keys)
    for step, name in STEPS.items():
        of_step = similarity[similarity["step"] == step]
        found[name] = of_step.groupby(keys)["similarity"].mean()
    return found[list(SCORES)].reset_index()


def verdicts(scores: pd.DataFrame, *, fewest: int) -> pd.DataFrame:
    """Return whether the maps of each network and method depend on its training.

    Parameters
    ----------
    scores : pandas.DataFrame
        From ``by_image``.
    fewest : int
        Images with both similarities from which on there is a verdict.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``method``, ``anew`` and ``other`` (mean similarities over the images
        that have both), ``depends`` (``yes`` where the first exceeds the second by at most
        ``MARGIN``, ``no``, or a dash where these images are too few) and ``sens.`` (mean sensitivity).
    """
    compared, keys = list(STEPS.values()), ["network", "method"]
    of_method = scores.groupby(keys, sort=False)
    of_known = scores[scores[compared].notna().all(axis=1)].groupby(keys, sort=False)
    found = of_known[compared].mean().reindex(of_method.size().index)
    found.columns = ["anew", "other"]
    gap = found["anew"] - found["other"]
    judged = of_known.size().reindex(found.index, fill_value=0) >= fewest
    found["depends"] = np.where(judged, np.where(gap <= MARGIN, "yes", "no"), "–")
    found["sens."] = of_method[SENSITIVITY].mean()
    return found.reset_index()


def max_sensitivity(
    explained: Explained,
    prepared: np.ndarray,
    methods: Mapping[str, Method],
    *,
    scale: np.ndarray | float = 1.0,
    draws: int = 10,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return how far the map of each method moves when its image changes a little, at most.

    The largest ‖map(x + d) - map(x)‖ / ‖map(x)‖ over uniform changes d of at most ``RADIUS`` of the
    range of grey levels that leave the prediction as it is (Yeh et al. 2019, *On the (In)fidelity and
    Sensitivity of Explanations*, NeurIPS). A constant map has 0: never a measure on its own.

    Parameters
    ----------
    explained : Explained
    prepared : ndarray of float32, shape (n, size, size)
    methods : mapping of name to callable
        ``Explained`` and prepared images to maps; the changes are the same for each.
    scale : float or ndarray of shape (n, 1, 1)
        Range of grey levels of prepared images.
    draws, seed : int

    Returns
    -------
    dict of name to ndarray of float, shape (n,)
        NaN where the map is 0, or every change alters the prediction.
    """
    rng = np.random.default_rng(seed)
    positive = explained.score(prepared) >= 0
    maps = {name: method(explained, prepared) for name, method in methods.items()}
    lengths = {name: _norm(of_images) for name, of_images in maps.items()}
    largest = {name: np.full(len(prepared), -np.inf) for name in methods}
    at_once = max(1, AT_ONCE // len(prepared))
    for first in range(0, draws, at_once):
        change = rng.uniform(-RADIUS, RADIUS, (min(at_once, draws - first), *prepared.shape))
        moved = (prepared + scale * change.astype(np.float32)).astype(np.float32)
        flat = moved.reshape(-1, *prepared.shape[1:])
        same = (explained.score(flat).reshape(moved.shape[:2]) >= 0) == positive
        for name, method in methods.items():
            distance = _norm(method(explained, flat).reshape(moved.shape) - maps[name])
            undefined = np.full(distance.shape, np.nan)
            ratio = np.divide(distance, lengths[name], out=undefined, where=lengths[name] > 0)
            of_draws = np.where(same, ratio, -np.inf).max(axis=0)
            largest[name] = np.maximum(largest[name], of_draws)
    return {name: np.where(np.isfinite(x), x, np.nan) for name, x in largest.items()}


def _norm(maps: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of each map, shape (…): from maps of shape (…, height, width)."""
    return np.sqrt((maps**2).sum(axis=(-2, -1)))

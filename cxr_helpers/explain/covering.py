"""Occlusion maps of the log-odds, for many images and with several ways of covering a patch.

Where a network begins with convolutions and poolings without padding, a patch changes only a few
cells of their last feature map. Only a part of the image around the patch is then passed through
these layers, and the changed cells replace those of the uncovered image. The result is that of
passing every covered copy through the whole network, at a fraction of the multiplications.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
from scipy import special

from cxr_helpers.explain.explained import Explained, log_odds
from cxr_helpers.explain.occlusion import corners, mean_fall, occlusion_map
from cxr_helpers.models import tracing

PARTS = 256  # parts of an image at once: they are small
RING = 2  # pixels around a patch from which it is filled
FILLS = ("black", "mean", "surroundings")
SCALES = {"log-odds": np.asarray, "probability": special.expit}


def maps(
    explained: Explained,
    prepared: np.ndarray,
    *,
    patch: int,
    stride: int,
    fill: str = "mean",
    of: str = "log-odds",
    spliced: bool = True,
) -> np.ndarray:
    """Return how much the log-odds of pneumonia fall where a patch covers the image.

    Parameters
    ----------
    explained : Explained
    prepared : ndarray of float32, shape (n, size, size)
        From ``Explained.prepare``.
    patch, stride : int
        Side of the square patch and its step, in pixels.
    fill : str
        Of ``FILLS``: 0, the mean of the image, or the mean of the pixels around the patch. In a
        network that standardises its input 0 is the mean.
    of : str
        ``"log-odds"``, or ``"probability"`` for the fall of the probability of pneumonia.
    spliced : bool
        Whether feature maps are spliced where the network allows it; the maps are the same.

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        Positive: what is there raises the log-odds.

    Raises
    ------
    ValueError
        If ``fill`` or ``of`` is unknown, or patch and stride do not fit the image.
    """
    if fill not in FILLS:
        raise ValueError(f"fill {fill!r} is not one of {', '.join(FILLS)}")
    if of not in SCALES:
        raise ValueError(f"of {of!r} is not one of {', '.join(SCALES)}")
    size = explained.size
    places = corners(size, size, patch=patch, stride=stride)
    splice = Splice.of(explained, tuple(places), patch=patch) if spliced else None

    def score(images: np.ndarray) -> np.ndarray:
        return SCALES[of](explained.score(images))

    reference = score(prepared)
    found = np.empty_like(prepared)
    for i, image in enumerate(prepared):
        levels = np.array([_level(image, place, patch=patch, fill=fill) for place in places])
        if splice is None:
            found[i] = occlusion_map(
                lambda copies: score(copies[..., 0]), image, patch=patch, stride=stride, fill=levels
            )
        else:
            falls = reference[i] - SCALES[of](splice.scores(image, levels))
            found[i] = mean_fall(falls, places, patch=patch, shape=image.shape)
    return found


def _level(image: np.ndarray, place: tuple[int, int], *, patch: int, fill: str) -> float:
    """Return the grey level of a patch."""
    if fill == "black":
        return 0.0
    if fill == "mean":
        return float(image.mean())
    top, left = place
    around = image[
        max(0, top - RING) : top + patch + RING, max(0, left - RING) : left + patch + RING
    ]
    inside = image[top : top + patch, left : left + patch]
    rest = around.size - inside.size
    return float((around.sum() - inside.sum()) / rest) if rest else float(image.mean())


@dataclass(frozen=True)
class Splice:
    """The first layers of a network on a part of the image, and the others on spliced features.

    Attributes
    ----------
    whole, part : callable
        The first layers, on images and on parts of them, (n, side, side, 1) to features.
    rest : callable
        Features of the image to the log-odds.
    places : tuple of (int, int)
        First row and column of each patch.
    patch : int
    step : int
        Pixels between neighbouring cells.
    side : int
        Of the part, in pixels.
    cells : int
        Along each side of the part's features.
    total : int
        Along each side of the image's features.
    reach : int
        Side of a cell's receptive field, in pixels.
    """

    whole: Callable
    part: Callable
    rest: Callable
    places: tuple[tuple[int, int], ...]
    patch: int
    step: int
    side: int
    cells: int
    total: int
    reach: int

    @classmethod
    @lru_cache(maxsize=16)
    def of(
        cls, explained: Explained, places: tuple[tuple[int, int], ...], *, patch: int
    ) -> Splice | None:
        """Return the splice of a network, or None if its first layers do not allow it."""
        first, reach, step = [], 1, 1
        layers = [x for x in explained.model.layers if not isinstance(x, keras.layers.InputLayer)]
        for layer in layers:
            window = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
            if window is None or getattr(layer, "padding", "") != "valid":
                break
            first.append(layer)
            reach += (window[0] - 1) * step
            step *= layer.strides[0]
        total = (explained.size - reach) // step + 1
        if not first or not isinstance(explained.model, keras.Sequential):
            return None
        starts = sorted({place[0] for place in places})
        cells = max(
            len(_changed(start, patch=patch, step=step, reach=reach, total=total))
            for start in starts
        )
        side = (cells - 1) * step + reach
        if side >= explained.size:
            return None  # the part would be the image
        features = keras.Input(first[-1].output.shape[1:])
        flow = features
        for layer in layers[len(first) : -1]:
            flow = layer(flow)
        last = layers[-1]
        logits = keras.ops.matmul(flow, last.kernel) + last.bias
        rest = keras.Model(features, log_odds(logits))
        return cls(
            tracing.inference(_chain(first, explained.size)),
            tracing.inference(_chain(first, side)),
            tracing.inference(rest),
            places,
            patch,
            step,
            side,
            cells,
            total,
            reach,
        )

    def scores(self, image: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Return the log-odds with each patch, filled with its grey level: ndarray, shape (m,)."""
        clean = self.whole(image[None, ..., None]).numpy()
        found = []
        for k in range(0, len(self.places), PARTS):
            batch = list(zip(self.places[k : k + PARTS], levels[k : k + PARTS], strict=True))
            starts = [[self._start(edge) for edge in place] for place, _ in batch]
            parts = np.empty((len(batch), self.side, self.side, 1), dtype=np.float32)
            for part, (row, column), ((top, left), level) in zip(parts, starts, batch, strict=True):
                y, x = row * self.step, column * self.step
                part[..., 0] = image[y : y + self.side, x : x + self.side]
                part[
                    max(0, top - y) : top - y + self.patch, max(0, left - x) : left - x + self.patch
                ] = level
            changed = self.part(parts).numpy()
            features = np.repeat(clean, len(batch), axis=0)
            for whole, new, (row, column) in zip(features, changed, starts, strict=True):
                whole[row : row + self.cells, column : column + self.cells] = new
            found.append(self.rest(features).numpy())
        return np.concatenate(found)

    def _start(self, edge: int) -> int:
        """Return the first cell, along one side, that is computed for a patch."""
        first = _changed(edge, patch=self.patch, step=self.step, reach=self.reach, total=self.total)
        return min(first.start, self.total - self.cells)


def _changed(edge: int, *, patch: int, step: int, reach: int, total: int) -> range:
    """Return the cells, along one side, whose receptive field contains a pixel of a patch."""
    first = max(0, -(-(edge - reach + 1) // step))
    last = min(total - 1, (edge + patch - 1) // step)
    return range(min(first, total - 1), max(last + 1, first))


def _chain(layers: list[keras.Layer], side: int) -> keras.Model:
    """Return layers, with their weights, as a network for images of another size."""
    images = keras.Input((side, side, 1))
    flow = images
    for layer in layers:
        flow = layer(flow)
    return keras.Model(images, flow)

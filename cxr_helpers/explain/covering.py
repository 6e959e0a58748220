"""Occlusion maps of the log-odds, for many images and with several ways of covering a patch.

Where a network begins with unpadded convolutions and poolings, followed by Flatten and Dense, a patch
changes only a few cells of each feature map. Each layer is recomputed there only: the changed cells
are pasted into the previous feature map of the uncovered image, and the layer is applied to that
neighbourhood. The dense layer is linear up to its activation, so what the changed cells contribute is
added to its output for the uncovered image. The result is that of passing every covered copy through
the whole network, at a fraction of the multiplications.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import keras
import numpy as np
import tensorflow as tf
from scipy import special

from cxr_helpers.explain import gradcam
from cxr_helpers.explain.explained import Explained, log_odds
from cxr_helpers.explain.occlusion import corners, covered_scores, mean_fall
from cxr_helpers.models import tracing

PARTS = 256  # parts of images at once: they are small
LOCAL = (keras.layers.Conv2D, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
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
    levels = np.array([_levels(image, places, patch=patch, fill=fill) for image in prepared])
    splice = Splice.of(explained) if spliced else None
    score = splice.scores if splice else partial(covered_scores, explained.score)
    options = {"patch": patch, "batch_size": explained.batch_size}
    covered = score(prepared, levels, places, **options)
    falls = SCALES[of](explained.score(prepared))[:, None] - SCALES[of](covered)
    return mean_fall(falls, places, patch=patch, shape=(size, size))


def _levels(
    image: np.ndarray, places: Sequence[tuple[int, int]], *, patch: int, fill: str
) -> np.ndarray:
    """Return the grey level of the patch at each place: ndarray of float, shape (m,)."""
    mean = image.mean()
    if fill != "surroundings":
        return np.full(len(places), 0.0 if fill == "black" else mean)
    found = []
    for top, left in places:
        around = image[
            max(0, top - RING) : top + patch + RING, max(0, left - RING) : left + patch + RING
        ]
        inside = image[top : top + patch, left : left + patch]
        rest = around.size - inside.size
        found.append((around.sum() - inside.sum()) / rest if rest else mean)
    return np.array(found)


@dataclass(frozen=True)
class _Block:
    """Consecutive unpadded layers, up to and including the first with a stride."""

    call: Callable  # on features of any size
    size: int  # cells along each side that one cell of the result sees
    stride: int
    total: int  # cells along each side of the result for the whole image

    def changed(self, starts: np.ndarray, cells: int) -> tuple[np.ndarray, int]:
        """Return the first affected cell of the result for each patch, and how many to compute.

        ``starts``, of shape (m, 2), and ``cells`` along each side describe the changed cells before.
        The number is the largest that any patch needs; near the lower and right edges the first
        cell is moved back so that as many fit.
        """
        first = np.maximum(-(-(starts - self.size + 1) // self.stride), 0)
        last = np.minimum((starts + cells - 1) // self.stride, self.total - 1)
        cells = max(int((last - first).max()) + 1, 1)
        return np.minimum(first, self.total - cells), cells


@dataclass(frozen=True)
class Splice:
    """A network of which only what a patch changes is computed anew.

    Attributes
    ----------
    blocks : tuple of _Block
        The first layers.
    dense : keras.layers.Dense
        The layer that takes their flattened result.
    rest : callable
        From the dense layer's pre-activations, shape (m, units), to the log-odds.
    """

    blocks: tuple[_Block, ...]
    dense: keras.layers.Dense
    rest: Callable

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, explained: Explained) -> Splice | None:
        """Return the splice of a network, or None unless it is a sequence of such layers."""
        layers = [x for x in explained.model.layers if not isinstance(x, keras.layers.InputLayer)]
        first = list(itertools.takewhile(_is_local, layers))
        following = [type(layer) for layer in layers[len(first) : len(first) + 2]]
        in_sequence = isinstance(explained.model, keras.Sequential)
        if not (first and in_sequence and following == [keras.layers.Flatten, keras.layers.Dense]):
            return None
        dense, *later = layers[len(first) + 1 :]
        before = keras.Input(dense.output.shape[1:])
        flow = before
        if later:
            flow = dense.activation(flow)
            for layer in later[:-1]:
                flow = layer(flow)
            flow = gradcam.affine(flow, later[-1])
        rest = tracing.inference(keras.Model(before, log_odds(flow)))
        return cls(tuple(_blocks(first)), dense, rest)

    def scores(
        self,
        images: np.ndarray,
        levels: np.ndarray,
        places: Sequence[tuple[int, int]],
        *,
        patch: int,
        batch_size: int,
    ) -> np.ndarray:
        """Return the log-odds of every image with a patch at every place, see ``covered_scores``.

        ``batch_size`` is how many images' features are kept at once, at most.
        """
        at_once = min(batch_size, max(1, PARTS // len(places)))
        return np.concatenate(
            [
                self._scores(images[i : i + at_once], levels[i : i + at_once], places, patch=patch)
                for i in range(0, len(images), at_once)
            ]
        )

    def _scores(
        self,
        images: np.ndarray,
        levels: np.ndarray,
        places: Sequence[tuple[int, int]],
        *,
        patch: int,
    ) -> np.ndarray:
        clean = [images[..., None]]
        for block in self.blocks:
            clean.append(block.call(clean[-1]).numpy())
        kernel = tf.convert_to_tensor(self.dense.kernel)
        unchanged = gradcam.affine(tf.reshape(clean[-1], [len(images), -1]), self.dense).numpy()
        found = []
        for k in range(0, levels.size, PARTS):
            copies = np.arange(k, min(k + PARTS, levels.size))
            of, at = np.divmod(copies, len(places))
            starts = np.array(places)[at]
            changed = np.empty((len(at), patch, patch, 1), dtype=np.float32)
            changed[:] = levels[of, at][:, None, None, None]
            for block, features in zip(self.blocks, clean[:-1], strict=True):
                first, cells = block.changed(starts, changed.shape[1])
                corner = first * block.stride
                parts = _parts(features, of, corner, (cells - 1) * block.stride + block.size)
                _insert(parts, changed, starts - corner)
                changed, starts = block.call(parts).numpy(), first
            changed -= _parts(clean[-1], of, starts, changed.shape[1])
            moved = _projected(changed, starts, kernel, clean[-1].shape[1:])
            found.append(self.rest(unchanged[of] + moved))
        return np.concatenate(found).reshape(levels.shape)


def _is_local(layer: keras.Layer) -> bool:
    """Return whether a layer is a square convolution or pooling without padding, gaps or dilation."""
    if type(layer) not in LOCAL or layer.padding != "valid":
        return False
    (height, width), (down, right) = _extent(layer), layer.strides
    dilation = getattr(layer, "dilation_rate", (1, 1))
    return height == width >= down == right and dilation == (1, 1)


def _extent(layer: keras.Layer) -> tuple[int, int]:
    """Return the height and the width of a kernel or a pooling, in cells."""
    return layer.kernel_size if isinstance(layer, keras.layers.Conv2D) else layer.pool_size


def _blocks(layers: Sequence[keras.Layer]) -> Iterator[_Block]:
    """Yield the layers in groups that end with a stride: cells are pasted once for each group."""
    size, stride, images = 1, 1, None
    for layer in layers:
        if images is None:
            flow = images = keras.Input((None, None, layer.input.shape[-1]))
        flow = layer(flow)
        size += (_extent(layer)[0] - 1) * stride
        stride *= layer.strides[0]
        if stride > 1 or layer is layers[-1]:
            call = tracing.inference(keras.Model(images, flow))
            yield _Block(call, size, stride, layer.output.shape[1])
            size, stride, images = 1, 1, None


def _parts(features: np.ndarray, of: np.ndarray, starts: np.ndarray, cells: int) -> np.ndarray:
    """Return (m, cells, cells, channels) parts of the features, each of the image at ``of``."""
    return np.stack(
        [
            features[image, row : row + cells, left : left + cells]
            for image, (row, left) in zip(of, starts, strict=True)
        ]
    )


def _insert(parts: np.ndarray, changed: np.ndarray, offsets: np.ndarray) -> None:
    """Write changed cells into parts, from (m, 2) rows and columns on; what is outside is dropped."""
    for part, new, (row, left) in zip(parts, changed, offsets, strict=True):
        into = part[row : row + len(new), left : left + len(new)]
        into[:] = new[: into.shape[0], : into.shape[1]]


def _projected(
    changes: np.ndarray, starts: np.ndarray, kernel: tf.Tensor, shape: tuple[int, int, int]
) -> np.ndarray:
    """Return what changes of features add to a dense layer's pre-activations, shape (m, units).

    Only the rows of its kernel that belong to the rows of features that changed are multiplied.

    Parameters
    ----------
    changes : ndarray of float32, shape (m, cells, cells, channels)
    starts : ndarray of int, shape (m, 2)
        Row and column of their first cells.
    kernel : tensor of float32, shape (height * width * channels, units)
    shape : (int, int, int)
        Height, width and channels of an image's features.
    """
    (n, cells, _, channels), (_, width, _) = changes.shape, shape
    found = np.empty((n, kernel.shape[1]), dtype=np.float32)
    for row in np.unique(starts[:, 0]):
        (chosen,) = np.nonzero(starts[:, 0] == row)
        strips = np.zeros((len(chosen), cells, width, channels), dtype=np.float32)
        for strip, place in zip(strips, chosen, strict=True):
            left = starts[place, 1]
            strip[:, left : left + cells] = changes[place]
        weights = kernel[row * width * channels : (row + cells) * width * channels]
        found[chosen] = tf.matmul(strips.reshape(len(chosen), -1), weights)
    return found

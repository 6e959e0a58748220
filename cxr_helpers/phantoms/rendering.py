"""Synthetic chest radiographs of children, with the ground truth of each lesion.

A phantom is a sum of attenuation maps (`phantoms.anatomy`) turned into an image: Beer-Lambert
transmission, scatter, unsharpness, quantum mottle, and the sigmoid of Hurter and Driffield for
the image's response. Dense is bright. The patient's right is on the viewer's left, in AP
projection. Bacterial pneumonia is modelled as lobar consolidation (one or two soft-edged dense
regions with air bronchograms), viral pneumonia as a diffuse, bilateral, perihilar interstitial
pattern (haze, septal lines, thick bronchovascular markings). This is the textbook dichotomy only:
nothing was fitted to patients, and no result on phantoms applies to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache, lru_cache, partial
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd

from cxr_helpers.phantoms import acquisition, anatomy, lesions, vessels
from cxr_helpers.system import environment

SHARES = MappingProxyType({"normal": 0.375, "bacterial": 0.385, "viral": 0.24})
SPLITS = MappingProxyType({"train": 0.73, "test": 0.27})
SIZES = (32, 512)
REMEMBERED = 2**26  # bytes of attenuation maps that are kept
_DRAWN = 128  # smaller images are drawn at this size or above, then averaged down

# What varies from image to image, independently of the class: uniform between the two values.
TECHNIQUE = {
    "rotation": (-0.05, 0.05),  # of the patient, radians
    "shift_x": (-0.04, 0.04),  # in half images
    "shift_y": (0.0, 0.08),
    "scale": (1.03, 1.16),
    "arm": (0.5, 1.35),  # below the horizontal, radians
    "breath": (-0.05, 0.04),  # lowers the diaphragm
    "speed": (0.52, 0.66),  # attenuation that gives mid grey: exposure and tube voltage
    "gamma": (3.4, 4.6),  # slope of the image's response
    "scatter": (0.01, 0.05),  # share of the open beam
    "motion": (0.0, 0.8),  # vertical blur, in pixels of 1/128 image
    "mottle": (0.012, 0.045),  # relative noise of the open beam in such a pixel
    "busy": (0.0, 0.4),  # normal interstitial markings, relative to full viral ones
    "patches": (0.005, 0.03),  # uneven soft tissue, standard deviation
    "gas": (-0.1, 0.25),  # in the stomach
}


@dataclass(frozen=True, kw_only=True)
class Phantoms:
    """Images with their ground truth, in the same order.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, size, size)
        0 to 255, dense is bright.
    lesion_masks : ndarray of bool, shape (n, size, size)
        The lesion, also where ``lesion_contrast`` is 0 and it is not visible; empty in normals.
    lung_masks : ndarray of bool, shape (n, size, size)
        Both lung fields, without heart and mediastinum.
    index : pandas.DataFrame, n rows
        ``file`` (unique name), ``split``, ``class_name``, ``patient`` (a number within the
        class), ``severity`` (0 in normals, otherwise above 0 and at most 1, before
        ``lesion_contrast``), and ``marker_x0``, ``marker_y0``, ``marker_x1``, ``marker_y1``
        (the box of the marker in pixels, half-open).
    """

    images: np.ndarray
    lesion_masks: np.ndarray
    lung_masks: np.ndarray
    index: pd.DataFrame


def render(
    *,
    n: int,
    size: int = 128,
    seed: int = 0,
    lesion_contrast: float = 1.0,
    marker_bias: float = 0.0,
    splits: Mapping[str, float] = SPLITS,
    threads: int | None = None,
) -> Phantoms:
    """Draw ``n`` images of normal lungs, bacterial and viral pneumonia.

    Two calls that differ in ``lesion_contrast`` or ``marker_bias`` only give the same patients,
    poses and noise. A patient has one to three images, all in one split.

    Parameters
    ----------
    n : int
        Number of images, at least 1. In each split, classes have the shares in `SHARES`, rounded.
    size : int
        Height and width in pixels, 32 to 512; an image is the same at any size, finer or coarser.
    seed : int
        At least 0. Equal seeds give equal images, on any number of threads.
    lesion_contrast : float
        Factor on the attenuation of each lesion: 0 makes lesions invisible.
    marker_bias : float
        Association of the marker "R" with the class, 0 to 1. At 0 its size and position do not
        depend on the class; at 1 it is small and low in normals, large and high in pneumonia.
    splits : mapping of str to float
        Share of the images in each split; positive, with sum 1.
    threads : int, optional
        Number of threads; by default as many as TensorFlow uses.

    Returns
    -------
    Phantoms

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    _check(n, size, seed, lesion_contrast, marker_bias, splits, threads)
    index = patient_list(n, splits=splits, seed=seed)
    images = np.empty((n, size, size), np.uint8)
    lesion_masks, lung_masks = np.zeros((2, n, size, size), bool)
    facts = []
    options = {"lesion_contrast": lesion_contrast, "marker_bias": marker_bias, "threads": threads}
    for i, (*pictures, fact) in enumerate(stream(index, size=size, seed=seed, **options)):
        images[i], lesion_masks[i], lung_masks[i] = pictures
        facts.append(fact)
    index = pd.concat([index, pd.DataFrame(facts)], axis=1)
    return Phantoms(images=images, lesion_masks=lesion_masks, lung_masks=lung_masks, index=index)


def stream(
    index: pd.DataFrame,
    *,
    size: int = 128,
    seed: int = 0,
    lesion_contrast: float = 1.0,
    marker_bias: float = 0.0,
    threads: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, dict]]:
    """Yield the images of ``render`` one by one: more than fit into memory can be drawn so.

    Parameters
    ----------
    index : pandas.DataFrame
        From ``patient_list``, with the same seed.
    size, seed, lesion_contrast, marker_bias, threads
        As for ``render``.

    Yields
    ------
    image : ndarray of uint8, shape (size, size)
    lesion_mask, lung_mask : ndarray of bool, shape (size, size)
    facts : dict
        The further columns of ``Phantoms.index``.
    """
    draw = partial(
        _image, size=size, seed=seed, lesion_contrast=lesion_contrast, marker_bias=marker_bias
    )
    with ThreadPoolExecutor(threads or environment.threads()) as pool:
        yield from pool.map(draw, range(len(index)), index["class_name"], index["patient"])


def render_arrays(**options: object) -> dict[str, np.ndarray | pd.DataFrame]:
    """Return the attributes of ``render``'s result as a mapping, for the store of results."""
    phantoms = render(**options)
    return {field.name: getattr(phantoms, field.name) for field in fields(phantoms)}


def _check(n, size, seed, lesion_contrast, marker_bias, splits, threads) -> None:
    """Raise ValueError for the first argument that is out of its range."""
    for name, value, low, high in (
        ("n", n, 1, np.inf),
        ("size", size, *SIZES),
        ("seed", seed, 0, np.inf),
        ("threads", 1 if threads is None else threads, 1, np.inf),
    ):
        if not isinstance(value, int | np.integer) or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}; expected an integer from {low} to {high}")
    for name, value, high in (
        ("lesion_contrast", lesion_contrast, np.inf),
        ("marker_bias", marker_bias, 1),
    ):
        if not (0 <= value <= high and np.isfinite(value)):
            raise ValueError(f"{name} is {value!r}; expected a finite number from 0 to {high}")
    shares = list(splits.values())
    if not shares or min(shares) <= 0 or not np.isclose(sum(shares), 1):
        raise ValueError(f"splits is {dict(splits)}; expected positive shares that sum to 1")


def patient_list(n: int, *, seed: int, splits: Mapping[str, float] = SPLITS) -> pd.DataFrame:
    """List patients and their images in random order; no image is drawn.

    Parameters are those of ``render``.

    Returns
    -------
    pandas.DataFrame, n rows
        ``file``, ``split``, ``class_name``, ``patient``, as in ``Phantoms.index``.
    """
    rng = np.random.default_rng([seed, 0])
    rows, patients = [], dict.fromkeys(SHARES, 0)
    for split, images in zip(splits, _shared(n, list(splits.values())), strict=True):
        for name, count in zip(SHARES, _shared(images, list(SHARES.values())), strict=True):
            while count > 0:
                patients[name] += 1
                for image in range(min(count, rng.choice(3, p=[0.6, 0.25, 0.15]) + 1)):
                    file = f"phantom-{patients[name]:06d}-{name}-{image + 1:02d}.png"
                    rows.append((file, split, name, patients[name]))
                    count -= 1
    index = pd.DataFrame(rows, columns=["file", "split", "class_name", "patient"])
    return index.iloc[rng.permutation(n)].reset_index(drop=True)


def _shared(total: int, shares: list[float]) -> list[int]:
    """Divide a count by shares so that the parts sum to it: the largest remainder method."""
    exact = np.array(shares) * total / sum(shares)
    parts = np.floor(exact + 1e-9).astype(int)
    parts[np.argsort(parts - exact, kind="stable")[: total - parts.sum()]] += 1
    return parts.tolist()


def redraw(
    index: pd.DataFrame,
    *,
    n: int,
    size: int = 128,
    seed: int = 0,
    splits: Mapping[str, float] = SPLITS,
    threads: int | None = None,
    changes: Sequence[Mapping[str, object]] | Mapping[str, object] = MappingProxyType({}),
    **options: float,
) -> np.ndarray:
    """Draw some of ``render``'s images again, with lesion or marker changed.

    Parameters
    ----------
    index : pandas.DataFrame
        Rows of ``Phantoms.index``, of which only ``file`` is read.
    n, size, seed, splits
        As for ``render``: those of the first drawing.
    threads : int, optional
        Number of threads; by default as many as TensorFlow uses.
    changes : mapping, or a sequence of one for each image
        What differs from the first drawing; with nothing, the images are the same:

        ``lesion`` (str)
            Class of ``SHARES`` whose lesion is drawn.
        ``severity`` (float)
            Of the lesion, 0 (none) to 1.
        ``marker`` (float or None)
            Size and height of the marker, 0 (small, at the bottom) to 1 (large, at the top); None
            for no marker.
    **options
        ``lesion_contrast`` and ``marker_bias``, as for ``render``.

    Returns
    -------
    ndarray of uint8, shape (len(index), size, size)

    Raises
    ------
    ValueError
        If a file is not one of the images of ``render(n=n, seed=seed)``.
    """
    drawn = (
        patient_list(n, seed=seed, splits=splits).reset_index(names="position").set_index("file")
    )
    if len(strange := index.loc[~index["file"].isin(drawn.index), "file"]):
        raise ValueError(f"{strange.iloc[0]} is not one of {n} phantoms of the seed {seed}")
    rows = drawn.loc[index["file"]]
    each = [changes] * len(rows) if isinstance(changes, Mapping) else changes
    known = {"lesion_contrast": 1.0, "marker_bias": 0.0} | options

    def draw(i: int, class_name: str, patient: int, change: Mapping[str, object]) -> np.ndarray:
        return _image(i, class_name, patient, size=size, seed=seed, **known, **change)[0]

    with ThreadPoolExecutor(threads or environment.threads()) as pool:
        columns = (rows[name] for name in ("position", "class_name", "patient"))
        return np.stack(list(pool.map(draw, *columns, each)))


def _image(
    i,
    name,
    patient,
    *,
    size,
    seed,
    lesion_contrast,
    marker_bias,
    lesion=None,
    severity=None,
    marker="as drawn",
) -> tuple:
    """Draw image ``i``: image, lesion mask, lung mask, and further columns of its index row.

    Build and vessels are drawn from a random stream of the patient, all else from streams of the
    image, one for each purpose: an option that changes one draw leaves the others as they are.
    """
    block = -(-_DRAWN // size)
    body = _bodies(size * block)(
        *(i, name, patient, size, seed, lesion_contrast, lesion or name, severity)
    )
    marking, grain = (np.random.default_rng([seed, 2, i, stream]) for stream in (1, 4))
    level = None if marker == "as drawn" else marker
    letter, box = acquisition.marker(
        size, block, name != "normal", marker_bias, marking, level=level
    )
    letter = letter if marker is not None else np.zeros_like(letter)
    image = acquisition.expose(body.attenuation, letter, body.technique, grain)
    facts = {"severity": body.severity, **box}
    pixels = np.round(255 * _reduced(image, block)).astype(np.uint8)
    return pixels, body.lesion_mask, body.lung_mask, facts


@dataclass(frozen=True)
class _Body:
    """What of an image does not depend on its marker; shared between images, never changed."""

    attenuation: np.ndarray
    lesion_mask: np.ndarray
    lung_mask: np.ndarray
    severity: float
    technique: SimpleNamespace


@cache
def _bodies(drawn: int) -> Callable[..., _Body]:
    """Return ``_draw_body`` that remembers the last ones: images drawn again with another marker."""
    return lru_cache(maxsize=max(1, REMEMBERED // (4 * drawn**2)))(_draw_body)


def _draw_body(
    i: int,
    name: str,
    patient: int,
    size: int,
    seed: int,
    lesion_contrast: float,
    lesion: str,
    severity: float | None,
) -> _Body:
    """Draw what of image ``i`` does not depend on its marker; parameters as for ``_image``."""
    person = np.random.default_rng([seed, 1, [*SHARES].index(name), patient])
    build = anatomy.habitus(person)
    setting, lesions_stream, texture = (
        np.random.default_rng([seed, 2, i, stream]) for stream in (0, 2, 3)
    )
    technique = SimpleNamespace(
        **{k: float(setting.uniform(*ends)) for k, ends in TECHNIQUE.items()}
    )
    build.base += technique.breath
    block = -(-_DRAWN // size)
    drawn = size * block

    x, y = _coordinates(drawn, technique)
    air = anatomy.lungs(x, y, build)
    drawn_lines = partial(_strokes, size=drawn, technique=technique)
    tree = sum(drawn_lines(*calibre) for calibre in vessels.vessels(person, build))
    septa = drawn_lines(*vessels.reticulum(texture, lines=260, reach=0.22))

    dense, interstitial, own = lesions.lesion(x, y, lesion, build, lesions_stream)
    severity = own if severity is None else severity
    extent = np.maximum(dense, interstitial)
    dense, interstitial = (severity * lesion_contrast * m for m in (dense, interstitial))
    hila = sum(
        np.exp(-(anatomy.radius(x, y, at=tuple(at), axes=(0.085, 0.13)) ** 2))
        for at in anatomy.HILA
    )
    depth = 0.82 * build.fat * (0.74 - 0.35 * (np.abs(x) - 0.30) ** 2)  # of the air
    chest = air * (
        tree * (1 + 0.5 * interstitial)
        + septa * 0.14 * (technique.busy + interstitial)
        + 0.07 * build.hila * hila
        + 0.22 * interstitial
        + depth * (dense * np.maximum(1 - 3 * tree, 0.3) - 1)
    )
    soft = anatomy.tissue(x, y, build, technique.arm)
    gas = anatomy.radius(x, y, at=(0.30, build.base + 0.20), axes=(0.15, 0.09), tilt=-0.3)
    soft = soft * (1 + technique.patches * acquisition.unevenness(drawn, texture))
    soft = soft - max(technique.gas, 0) * anatomy.step(1 - gas, 0.35)
    attenuation = soft + anatomy.bones(x, y, build, technique.arm) + chest

    mask = (extent > 0.4) & (air > 0.5)
    masks = (_reduced(m.astype(np.float32), block) > 0.5 for m in (mask, air > 0.5))
    return _Body(attenuation, *masks, severity, technique)


def _coordinates(size: int, technique: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the anatomical coordinates of each pixel of a posed image."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    across, down = line[None] - technique.shift_x, line[:, None] - technique.shift_y
    c = math.cos(technique.rotation) / technique.scale
    s = math.sin(technique.rotation) / technique.scale
    return c * across + s * down, c * down - s * across


def _strokes(points, weights, width, *, size: int, technique: SimpleNamespace) -> np.ndarray:
    """Draw anatomical lines on a posed image; maps points by the inverse of `_coordinates`."""
    c, s = np.cos(technique.rotation), np.sin(technique.rotation)
    turned = points @ np.array([[c, s], [-s, c]]) * technique.scale
    moved = turned + np.array((technique.shift_x, technique.shift_y))
    return vessels.draw_lines(
        moved, weights * technique.scale, size=size, width=width * technique.scale
    )


def _reduced(image: np.ndarray, block: int) -> np.ndarray:
    """Return the means of square blocks of pixels."""
    size = len(image) // block
    return image.reshape(size, block, size, block).mean(axis=(1, 3))

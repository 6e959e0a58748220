"""Lines of a phantom: branching vessels and thickened septa, and their drawing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from cxr_helpers.phantoms.anatomy import HILA

_CALIBRES = ((0.0115, (0, 1)), (0.0065, (2, 3)))  # width of strokes, generations of vessels
_SAMPLES = 16  # points along one vessel or line


def vessels(rng: np.random.Generator, build: SimpleNamespace) -> list[tuple]:
    """Draw the branching vessels of both lungs, hilum to periphery.

    Returns
    -------
    list of (points, weights, width)
        One entry for each calibre, for `draw_lines`, in anatomical coordinates.
    """
    trunks = 7
    starts, angles = [], []
    for hilum, outward in zip(HILA, (-1, 1), strict=True):
        fan = np.linspace(-1.35, 1.35, trunks) + rng.normal(0, 0.12, trunks)
        angles.append(fan if outward > 0 else np.pi - fan)
        starts.append(hilum + rng.normal(0, 0.025, (trunks, 2)))
    start, angle = np.concatenate(starts), np.concatenate(angles)
    calibres = []
    for width, levels in _CALIBRES:
        strokes = []
        for level in levels:
            length = 0.20 * 0.74**level * rng.uniform(0.7, 1.2, len(angle))
            points, end, last = _curves(start, angle, length, bend=rng.normal(0, 0.35, len(angle)))
            peak = build.vessels * 0.115 * 0.66**level * rng.uniform(0.6, 1.3, len(angle))
            strokes.append((points, np.repeat(peak * length / _SAMPLES, _SAMPLES)))
            spread = rng.uniform(0.25, 0.6, (2, len(end)))
            start = np.tile(end, (2, 1))
            angle = np.concatenate([last + spread[0], last - spread[1]])
        points, weights = (np.concatenate(part) for part in zip(*strokes, strict=True))
        calibres.append((points, weights, width))
    return calibres


def reticulum(rng: np.random.Generator, *, lines: int, reach: float) -> tuple:
    """Draw short criss-cross lines around both hila: thickened interlobular septa.

    Returns points, weights for a peak of 1, and a width, for `draw_lines`; ``reach`` is the
    standard deviation of the distance from the hila.
    """
    hilum = HILA[rng.integers(0, 2, lines)]
    away = rng.normal(0, 1, (lines, 2)) * reach * (1, 1.25)
    away[:, 0] = np.abs(away[:, 0]) * np.sign(hilum[:, 0])
    length = rng.uniform(0.04, 0.12, lines)
    angle = rng.uniform(0, 2 * np.pi, lines)
    points = _curves(hilum + away, angle, length, bend=rng.normal(0, 0.8, lines))[0]
    return points, np.repeat(length / _SAMPLES, _SAMPLES), 0.0075


def draw_lines(points: np.ndarray, weights: np.ndarray, *, size: int, width: float) -> np.ndarray:
    """Draw lines of closely spaced points as a map of soft strokes.

    Parameters
    ----------
    points : ndarray of float, shape (k, 2)
        Image coordinates, -1 to 1, ``x`` first; points off the image are dropped.
    weights : ndarray of float, shape (k,)
        Peak of the stroke times the distance between its points.
    size : int
        Pixels along a side.
    width : float
        Standard deviation of the stroke across its line, in image coordinates.

    Returns
    -------
    ndarray of float32, shape (size, size)
    """
    pixel = 2 / size
    column, row = ((points + 1) / pixel - 0.5).T
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    keep = (left >= 0) & (left < size - 1) & (top >= 0) & (top < size - 1)
    left, top, weights = left[keep], top[keep], weights[keep]
    right, down = column[keep] - left, row[keep] - top
    at = (top * size + left) + np.array([0, 1, size, size + 1])[:, None]
    shares = np.array(
        [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    )
    canvas = np.bincount(at.ravel(), (weights * shares).ravel(), minlength=size * size)
    canvas = canvas.reshape(size, size).astype(np.float32)
    scale = math.sqrt(2 * math.pi) * width / pixel**2
    return scale * ndimage.gaussian_filter(canvas, width / pixel, truncate=3, mode="constant")


def _curves(start, angle, length, *, bend) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return arcs as closely spaced points, with their ends and the directions there."""
    t = np.linspace(0, 1, _SAMPLES)
    heading = angle[:, None] + bend[:, None] * t
    dx, dy = (np.cumsum(f(heading) * length[:, None] / _SAMPLES, axis=1) for f in (np.cos, np.sin))
    points = start[:, None] + np.stack([dx, dy], axis=2)
    return points.reshape(-1, 2), points[:, -1], heading[:, -1]

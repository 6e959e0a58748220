"""Acquisition of a phantom: uneven tissue, the marker, exposure and noise."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage


def unevenness(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field of unit variance, the same at any size."""
    order = np.arange(8)
    place = (np.arange(size)[:, None] + 0.5) / size
    waves = (np.cos(np.pi * order * place) / np.sqrt(2)).astype(np.float32)
    return waves @ rng.standard_normal((8, 8), dtype=np.float32) @ waves.T / 2


TOP, TRAVEL = 0.03, 0.94  # of the marker: share of the side above and below the highest one


def marker(
    size, block, pneumonia, bias, rng, *, level: float | None = None
) -> tuple[np.ndarray, dict[str, int]]:
    """Draw the lead letter "R" along the viewer's left edge; return it with its box.

    ``level``, 0 to 1, replaces the size and height that are drawn.
    """
    free, biased = rng.uniform(size=2), 0.15 * rng.uniform(size=2) + 0.85 * pneumonia
    large, high = (1 - bias) * free + bias * biased if level is None else (level, level)
    tall = (0.075 + 0.06 * large) * size
    left = (0.015 + 0.025 * rng.uniform()) * size
    top = TOP * size + (1 - high) * (TRAVEL * size - tall)
    glyph = _glyph()
    wide = max(round(tall * block * glyph.width / glyph.height), 2)
    glyph = glyph.resize((wide, max(round(tall * block), 2)), Image.Resampling.BOX)
    letter = np.zeros((size * block, size * block), np.float32)
    row, column = round(top * block), round(left * block)
    letter[row : row + glyph.height, column : column + glyph.width] = np.asarray(glyph) / 255
    box = {
        "marker_x0": column // block,
        "marker_y0": row // block,
        "marker_x1": -(-(column + glyph.width) // block),
        "marker_y1": -(-(row + glyph.height) // block),
    }
    return letter, box


def height(top: float, bottom: float) -> float:
    """Return how high a marker lies, 0 to 1 as ``level`` of ``marker``; its box in shares of the side."""
    return float(np.clip(1 - (top - TOP) / (TRAVEL - (bottom - top)), 0, 1))


@cache
def _glyph() -> Image.Image:
    """Return the letter in a large size, cropped to its strokes."""
    font = ImageFont.load_default(size=100)
    glyph = Image.new("L", (200, 200))
    ImageDraw.Draw(glyph).text((40, 40), "R", fill=255, font=font, stroke_width=3)
    return glyph.crop(glyph.getbbox())


def expose(attenuation, letter, technique, rng: np.random.Generator) -> np.ndarray:
    """Turn attenuation into brightness, 0 to 1: transmission, blur, mottle, detector response."""
    pixel = len(attenuation) / 128
    beam = np.exp(-3.0 * np.maximum(attenuation, 0)) + technique.scatter
    unsharp = (0.45 + technique.motion, 0.45)
    beam = ndimage.gaussian_filter(beam, [pixel * s for s in unsharp], truncate=3)
    beam = beam * (1 - 0.97 * letter)
    quanta = rng.standard_normal(beam.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(quanta, 0.5 * pixel, truncate=3) * (1.5 * pixel)
    beam = np.maximum(beam + technique.mottle * 0.35 * np.sqrt(beam) * grain, 1e-3)
    dose = np.log(beam) / 3.0 + technique.speed
    return 1 / (1 + np.exp(technique.gamma * dose))

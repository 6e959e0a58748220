"""The lead letter "R" on radiographs, found without a label by template matching."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import fft, ndimage

from cxr_helpers.system import environment

HEIGHTS = (
    0.034,
    0.039,
    0.045,
    0.052,
    0.06,
    0.07,
    0.08,
    0.092,
    0.106,
    0.122,
)  # of the letter, share of the image's side
ASPECTS = (0.55, 0.75, 0.95)  # width by height: images may have been squeezed
MARGIN = 0.2  # of background around the letter in the template, share of its height
SIMILAR = 0.6  # normalised cross-correlation from which a place counts
BRIGHT = 25.0  # grey levels by which the letter is brighter than its background, at least
FLAT = 10.0  # standard deviation of grey levels below which a place is taken for flat
LEFT = 0.35  # columns, from the viewer's left, in which it is looked for: the patient's right
EDGE = 0.03  # of background added around the image, share of its side: letters touch its edge


def find(images: np.ndarray) -> np.ndarray:
    """Return the box of the letter on each image.

    The normalised cross-correlation (Lewis 1995, *Fast Normalized Cross-Correlation*, Vision
    Interface) of the image with a drawn "R" of several sizes and aspects is highest where a bright
    letter stands on a darker background. Of the places where it is at least ``SIMILAR``, the highest
    one is taken.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)

    Returns
    -------
    ndarray of bool, shape (n, size, size)
        True in the box around the letter; all False where none was found.
    """
    with ThreadPoolExecutor(environment.threads()) as pool:
        return np.stack(list(pool.map(partial(_find, size=images.shape[1]), images)))


def as_bright(images: np.ndarray, letters: np.ndarray) -> np.ndarray:
    """Return what is as bright as the letter on its image: another letter, text, metal or bone.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    letters : ndarray of bool, shape (n, size, size)
        Their boxes, from ``find``.

    Returns
    -------
    ndarray of bool, shape (n, size, size)
        Spots of 2 × 2 pixels or more at least as bright as the median of the brightest quarter of
        the letter's box; all False where there is no letter.
    """
    found = np.zeros(letters.shape, dtype=bool)
    for spots, image, letter in zip(found, images, letters, strict=True):
        if letter.any():
            strokes = np.quantile(image[letter], 0.875)
            spots[:] = ndimage.binary_opening(image >= strokes, np.ones((2, 2)))
    return found


def _find(image: np.ndarray, *, size: int) -> np.ndarray:
    edge = round(EDGE * size)
    padded = np.pad(image.astype(float), edge, mode="minimum", stat_length=max(2, 2 * edge))
    columns, templates = _templates(size, edge)
    values = padded[:, :columns]
    sums, squares, spectrum = _summed(values), _summed(values**2), fft.rfft2(values, workers=1)
    mask, best = np.zeros(padded.shape, dtype=bool), SIMILAR
    for letter, transformed, norm in templates:
        height, width = letter.shape
        mean = _windowed(sums, letter.shape)
        variance = np.maximum(_windowed(squares, letter.shape) - mean**2, 0)
        spread = np.sqrt(np.maximum(variance, FLAT**2) * letter.size)
        # sums of the image under the template, whose mean is 0, at each place
        product = fft.irfft2(spectrum * transformed, s=values.shape, workers=1)
        similar = product[: mean.shape[0], : mean.shape[1]] / (spread * norm)
        similar[:, np.arange(mean.shape[1]) + width / 2 > edge + LEFT * size] = 0
        top, left = np.unravel_index(similar.argmax(), similar.shape)
        if similar[top, left] > best:
            window = values[top : top + height, left : left + width]
            if window[letter > 0.5].mean() - window[letter < 0.1].mean() >= BRIGHT:
                best = similar[top, left]
                mask[:] = False
                inside = np.argwhere(letter > 0.1)
                (y0, x0), (y1, x1) = inside.min(axis=0), inside.max(axis=0) + 1
                mask[top + y0 : top + y1, left + x0 : left + x1] = True
    return mask[edge : edge + size, edge : edge + size]


def _summed(values: np.ndarray) -> np.ndarray:
    """Return the sums above and left of each corner of a pixel: the summed-area table."""
    return np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def _windowed(sums: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the mean over the window of this shape that begins at each pixel, where it fits."""
    height, width = shape
    rows = sums[height:] - sums[:-height]
    return (rows[:, width:] - rows[:, :-width]) / (height * width)


@lru_cache(maxsize=4)
def _templates(size: int, edge: int) -> tuple[int, list[tuple[np.ndarray, np.ndarray, float]]]:
    """Return in how many columns a letter can lie, and the letters on a background, 0 to 1.

    With each letter the complex conjugate of its transform, for images of a size with an added
    edge, both in pixels, and its norm.
    """
    letters, found = list(_letters(size)), []
    widest = max(letter.shape[1] for letter in letters)
    columns = min(math.ceil(edge + LEFT * size + widest / 2), size + 2 * edge)
    for letter in letters:
        centred = np.zeros((size + 2 * edge, columns))
        centred[: letter.shape[0], : letter.shape[1]] = letter - letter.mean()
        norm = float(np.linalg.norm(letter - letter.mean()))
        found.append((letter, np.conj(fft.rfft2(centred)), norm))
    return columns, found


def _letters(size: int) -> Iterator[np.ndarray]:
    font = ImageFont.load_default(size=200)
    glyph = Image.new("L", (400, 400))
    ImageDraw.Draw(glyph).text((80, 80), "R", fill=255, font=font, stroke_width=6)
    glyph = glyph.crop(glyph.getbbox())
    for height in HEIGHTS:
        for aspect in ASPECTS:
            tall, wide = max(5, round(height * size)), max(4, round(height * aspect * size))
            margin = max(2, round(MARGIN * tall))
            letter = glyph.resize((wide, tall), Image.Resampling.BOX)
            yield np.pad(np.asarray(letter, dtype=float) / 255, margin)

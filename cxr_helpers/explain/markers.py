"""Bright letters and plates on radiographs, found without a label."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

AREA = (0.002, 0.02)  # of a marker's box, share of the image
ASPECT = 2.5  # of a box's sides, at most
FILLED = 0.3  # of a box by bright pixels, at least
SIZE = 0.08  # side of the opening, share of the image's: wider than the strokes of a letter
EDGE = 0.28  # markers begin within this share of the side from the left or right edge
CONTRAST = 4.0  # robust standard deviations of the top-hat


def find(images: np.ndarray, *, outside: np.ndarray | None = None) -> np.ndarray:
    """Return the regions that look like a marker.

    The white top-hat (the image minus its morphological opening) keeps what is brighter and narrower
    than the opening. Neighbouring bright pixels are joined into components; those of a marker's size
    near the left or right edge are kept.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    outside : ndarray of bool, shape (n, size, size), optional
        Where markers can be, such as outside the lungs; by default near the left and right edge.

    Returns
    -------
    ndarray of bool, shape (n, size, size)
        Boxes around the components; all False where none was found.
    """
    n, size, _ = images.shape
    masks = np.zeros(images.shape, dtype=bool)
    reach = round(EDGE * size)
    for image, mask, allowed in zip(
        images, masks, outside if outside is not None else [None] * n, strict=True
    ):
        values = np.asarray(image, dtype=np.float32)
        hat = ndimage.white_tophat(values, size=max(3, round(SIZE * size)))
        spread = 1.4826 * np.median(np.abs(hat - np.median(hat))) + 1.0
        bright = hat > np.median(hat) + CONTRAST * spread + 20
        if allowed is not None:
            bright &= allowed
        joined = ndimage.binary_closing(bright, iterations=max(1, size // 64))
        labels, _ = ndimage.label(joined, structure=np.ones((3, 3)))
        for part in ndimage.find_objects(labels):
            rows, columns = part
            height, width = rows.stop - rows.start, columns.stop - columns.start
            beside = columns.stop <= reach or columns.start >= size - reach
            fits = AREA[0] <= height * width / size**2 <= AREA[1]
            compact = max(height, width) <= ASPECT * min(height, width)
            if beside and fits and compact and bright[part].mean() >= FILLED:
                mask[part] = True
    return masks

"""Changes of acquisition style: what another scanner, detector or archive does to a radiograph.

The official test images differ from the training images in style, not in disease, and a split of
the training images does not show it. Each change here is meant to keep the diagnosis and to change
the style; how far a network's scores fall under it estimates how it would do in another hospital. In the
spirit of Hendrycks and Dietterich (2019), *Benchmarking neural network robustness to common
corruptions and perturbations*, arXiv:1903.12261.

Images are ndarrays of uint8, shape (n, size, size), 0 (black) to 255; each function returns new ones
of the same shape.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from cxr_helpers.system.blocks import blockwise

CENTRE = 0.86  # side of the part that a border swap leaves, as a share of the image's
FEATHER = 0.04  # width of the seam, as a share of the image's side


def gamma(images: np.ndarray, exponent: float) -> np.ndarray:
    """Return images whose grey levels, 0 to 1, were raised to a power: darker above 1."""
    levels = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return levels[images]


@blockwise
def contrast(images: np.ndarray, /, *, factor: float) -> np.ndarray:
    """Return images whose contrast about each image's mean was multiplied."""
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return _bytes(mean + factor * (images - mean))


def tone_curve(images: np.ndarray, slope: float) -> np.ndarray:
    """Return images after a sigmoid tone curve, as of another detector or display."""
    x = np.arange(256) / 255
    curve = 1 / (1 + np.exp(-slope * (x - 0.5)))
    low, high = curve[0], curve[-1]
    return np.rint(255 * (curve - low) / (high - low)).astype(np.uint8)[images]


def equalised(images: np.ndarray) -> np.ndarray:
    """Return images with equalised histograms (Pillow's ``ImageOps.equalize``)."""
    return np.stack([np.asarray(ImageOps.equalize(Image.fromarray(image))) for image in images])


@blockwise
def blurred(images: np.ndarray, /, *, sigma: float) -> np.ndarray:
    """Return images blurred by a Gaussian; ``sigma`` in 1/128 of the side."""
    return _bytes(ndimage.gaussian_filter(images.astype(np.float32), (0, *_sigmas(images, sigma))))


@blockwise
def sharpened(images: np.ndarray, /, *, sigma: float, amount: float) -> np.ndarray:
    """Return images after an unsharp mask; ``sigma`` in 1/128 of the side."""
    plain = images.astype(np.float32)
    soft = ndimage.gaussian_filter(plain, (0, *_sigmas(images, sigma)))
    return _bytes(plain + amount * (plain - soft))


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    """Return images with Gaussian noise, in grey levels of 255; the same at every call."""
    draw = np.random.default_rng(0)

    @blockwise
    def with_noise(some: np.ndarray, /) -> np.ndarray:
        noise = draw.standard_normal(some.shape, dtype=np.float32)
        return _bytes(some + np.float32(deviation) * noise)

    return with_noise(images)


def compressed(images: np.ndarray, quality: int) -> np.ndarray:
    """Return images after JPEG compression at a low quality."""
    found = np.empty_like(images)
    for number, image in enumerate(images):
        packed = io.BytesIO()
        Image.fromarray(image).save(packed, "JPEG", quality=quality)
        found[number] = np.asarray(Image.open(packed))
    return found


def cropped(images: np.ndarray, share: float) -> np.ndarray:
    """Return the central part of images, ``share`` of each side, enlarged to the full size."""
    side = images.shape[1]
    margin = round(side * (1 - share) / 2)
    return _resized(images[:, margin : side - margin, margin : side - margin], side)


def padded(images: np.ndarray, share: float) -> np.ndarray:
    """Return images shrunk to ``share`` of each side, with a black margin around them."""
    side = images.shape[1]
    inner = round(side * share)
    margin = (side - inner) // 2
    found = np.zeros_like(images)
    found[:, margin : margin + inner, margin : margin + inner] = _resized(images, inner)
    return found


@blockwise
def swapped_border(images: np.ndarray, donors: np.ndarray, /) -> np.ndarray:
    """Return images whose border is that of other images, in the tone of their own.

    Parameters
    ----------
    images, donors : ndarray of uint8, shape (n, size, size)
        The border of ``donors[i]`` is brought to the mean and standard deviation of the border of
        ``images[i]`` and blended in; the central ``CENTRE`` of the sides stays.
    """
    side = images.shape[1]
    distance = np.abs(np.arange(side) + 0.5 - side / 2) / side
    away = np.maximum(distance[:, None], distance[None, :])
    weight = np.clip((away - CENTRE / 2) / FEATHER + 0.5, 0, 1).astype(np.float32)
    border = np.broadcast_to(away > CENTRE / 2, images.shape)
    return _blended(images, donors, weight, of=border)


@blockwise
def swapped_outside(images: np.ndarray, donors: np.ndarray, masks: np.ndarray, /) -> np.ndarray:
    """Return images of which only a region stays; around it are other images, in the tone of their own.

    Parameters
    ----------
    images, donors : ndarray of uint8, shape (n, size, size)
        As for ``swapped_border``.
    masks : ndarray of bool, shape (n, size, size)
        The regions that stay, such as the lungs.
    """
    edge = FEATHER * images.shape[1] / 2
    kept = ndimage.gaussian_filter(masks.astype(np.float32), (0, edge, edge))
    return _blended(images, donors, 1 - kept, of=~masks)


def _blended(
    images: np.ndarray, donors: np.ndarray, weight: np.ndarray, *, of: np.ndarray
) -> np.ndarray:
    """Return images and donors blended by the donors' weight, after matching their tone in a part."""
    n = np.maximum(of.sum(axis=(1, 2), keepdims=True), 1).astype(np.float32)

    def statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.where(of, pixels, np.float32(0)).sum(axis=(1, 2), keepdims=True) / n
        variance = np.where(of, (pixels - mean) ** 2, 0).sum(axis=(1, 2), keepdims=True) / n
        return mean, np.sqrt(variance) + 1

    (mean, spread), (donor_mean, donor_spread) = statistics(images), statistics(donors)
    matched = (donors - donor_mean) * (spread / donor_spread) + mean
    return _bytes(images * (1 - weight) + matched * weight)


def without_border(images: np.ndarray) -> np.ndarray:
    """Return images whose border was replaced by its own mean grey level."""
    return swapped_border(images, np.zeros_like(images))


CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "brighter": partial(gamma, exponent=0.6),
        "darker": partial(gamma, exponent=1.7),
        "low contrast": partial(contrast, factor=0.5),
        "steep tone curve": partial(tone_curve, slope=9.0),
        "equalised histogram": equalised,
        "blurred": partial(blurred, sigma=1.2),
        "sharpened": partial(sharpened, sigma=1.5, amount=1.0),
        "noise": partial(noisy, deviation=12.0),
        "JPEG, quality 15": partial(compressed, quality=15),
        "collimated closely": partial(cropped, share=0.8),
        "black margin": partial(padded, share=0.9),
        "border removed": without_border,
    }
)
SWAPPED = "border of the other class"


def donors(y_true: np.ndarray, *, seed: int) -> np.ndarray:
    """Return for each image the position of one of the other class, drawn at random.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        1 for pneumonia, 0 for normal; both must occur.
    seed : int
    """
    draw = np.random.default_rng(seed)
    found = np.empty(len(y_true), dtype=int)
    for label in (0, 1):
        others = np.flatnonzero(y_true != label)
        found[y_true == label] = draw.choice(others, (y_true == label).sum())
    return found


def versions(
    images: np.ndarray, y_true: np.ndarray, *, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each change and the changed images, one after the other.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size)
    y_true : ndarray of int, shape (n,)
        1 for pneumonia, 0 for normal: decides whose border an image may get. Where all are of one
        class, there is no such border and no such version.
    seed : int
        Of the draw of these borders.
    """
    for name, change in CHANGES.items():
        yield name, change(images)
    if len(np.unique(y_true)) > 1:
        yield SWAPPED, swapped_border(images, images[donors(y_true, seed=seed)])


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    kind = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(i).resize((side, side), kind)) for i in images])


def _sigmas(images: np.ndarray, sigma: float) -> tuple[float, float]:
    return (sigma * images.shape[1] / 128,) * 2


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)

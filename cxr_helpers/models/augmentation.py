"""Random augmentation of training images: the course report's, and a stronger one."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from cxr_helpers.models import tracing

STYLE_NOISE = 0.04  # largest standard deviation of the noise at style 1, in grey levels of [0, 1]


class _Stateless:
    """An augmentation whose ``_change`` takes images and a seed for stateless random numbers."""

    def draw(self, seed: int) -> Callable:
        """Return a function that augments batches, with new random values at every call.

        It takes (n, height, width, 1) floats in [0, 1] and, optionally, their targets, and returns the
        changed images and the targets unchanged.
        """
        calls = itertools.count()
        change = self._compiled()

        def augment(images: np.ndarray, targets: np.ndarray | None = None) -> tuple:
            seeds = tf.constant([seed % 2**31, next(calls) * 64])
            return change(tf.constant(images), seeds), targets

        return augment

    @functools.cache  # noqa: B019 - equal settings share it: there are few, and every epoch draws
    def _compiled(self) -> Callable:
        return tracing.traced(self._change)


@dataclass(frozen=True)
class Augmentation(_Stateless):
    """Random rotation, horizontal flip and shift, as in the course report, in one resampling.

    Pixels from outside the image are black.

    Attributes
    ----------
    rotation : float
        Largest rotation to either side, in degrees, 0 to 180.
    shift : float
        Largest shift along each axis, as a fraction of the image's side, 0 to 1.
    flip : bool
        Whether half of the images are mirrored left to right.
    """

    rotation: float = 10.0
    shift: float = 0.1
    flip: bool = True

    def _change(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        uniform = _uniform(tf.shape(images)[0], seed)
        ones = tf.ones(tf.shape(images)[0])
        return _warped(
            images,
            angle=uniform(1, -self.rotation, self.rotation) * (math.pi / 180),
            scale=(tf.sign(uniform(2, -1.0, 1.0)) if self.flip else ones, ones),
            shift=(uniform(3, -self.shift, self.shift), uniform(4, -self.shift, self.shift)),
        )


@dataclass(frozen=True)
class StrongAugmentation(_Stateless):
    """Geometric and intensity changes and mixup, for a network that is trained longer.

    Rotation, zoom, change of aspect ratio, shift and horizontal flip are one bilinear resampling.
    Gamma, contrast, brightness and noise imitate a different exposure. Mixup blends two images
    and their labels (Zhang et al. 2018, *mixup: Beyond Empirical Risk Minimization*, ICLR).

    Attributes
    ----------
    rotation : float
        Largest rotation to either side, in degrees.
    zoom, aspect : float
        Largest natural logarithm of the change of size, and of the ratio of width to height.
    shift : float
        Largest shift along each axis, as a fraction of the image's side.
    gamma, contrast : float
        Largest natural logarithm of the exponent, and of the contrast factor about mid-grey.
    noise : float
        Largest standard deviation of the noise, in grey levels of the range [0, 1].
    mixup : float
        Both parameters of the beta distribution from which the proportion of the second image
        is drawn; 0 switches mixup off.
    """

    rotation: float = 8.0
    zoom: float = 0.12
    aspect: float = 0.1
    shift: float = 0.06
    gamma: float = 0.35
    contrast: float = 0.25
    noise: float = 0.03
    mixup: float = 0.2

    def draw(self, seed: int) -> Callable:
        """Return a function that augments batches, with new random values at every call.

        It takes and returns (n, size, size, 1) floats in [0, 1] and (n, classes) targets; noise
        may exceed the range.
        """
        calls = itertools.count()
        change = super().draw(seed)

        def augment(images: np.ndarray, targets: np.ndarray) -> tuple:
            images, _ = change(images)
            if not self.mixup:
                return images, targets
            rng = np.random.default_rng([seed, next(calls)])
            weight = rng.beta(self.mixup, self.mixup)
            weight = np.float32(max(weight, 1 - weight))
            other = rng.permutation(len(targets))
            mixed = weight * images + (1 - weight) * tf.gather(images, other)
            return mixed, weight * targets + (1 - weight) * targets[other]

        return augment

    def _change(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        uniform = _uniform(tf.shape(images)[0], seed)
        zoom, aspect = (
            tf.exp(uniform(2, -self.zoom, self.zoom)),
            tf.exp(uniform(3, -self.aspect, self.aspect) / 2),
        )
        images = _warped(
            images,
            angle=uniform(1, -self.rotation, self.rotation) * (math.pi / 180),
            scale=(zoom * aspect * tf.sign(uniform(4, -1.0, 1.0)), zoom / aspect),
            shift=(uniform(5, -self.shift, self.shift), uniform(6, -self.shift, self.shift)),
        )
        gamma, contrast, brightness, deviation = (
            values[:, None, None, None]
            for values in (
                tf.exp(uniform(7, -self.gamma, self.gamma)),
                tf.exp(uniform(8, -self.contrast, self.contrast)),
                uniform(9, -self.contrast / 4, self.contrast / 4),
                tf.abs(uniform(10, -self.noise, self.noise)),
            )
        )
        images = tf.pow(tf.clip_by_value(images, 1e-4, 1.0), gamma)
        images = tf.clip_by_value((images - 0.5) * contrast + 0.5 + brightness, 0.0, 1.0)
        noise = tf.random.stateless_normal(tf.shape(images), seed + tf.constant([0, 11]))
        return images + noise * deviation


def _uniform(n: tf.Tensor, seed: tf.Tensor) -> Callable[[int, float, float], tf.Tensor]:
    """Return a function that draws n values between two bounds, others for each number."""
    return lambda number, low, high: tf.random.stateless_uniform(
        [n], seed + tf.constant([0, number]), low, high
    )


def _warped(images: tf.Tensor, *, angle: tf.Tensor, scale: tuple, shift: tuple) -> tf.Tensor:
    """Return images rotated, scaled about their centre and shifted; black from outside.

    Parameters
    ----------
    images : tensor of float, shape (n, size, size, 1)
    angle : tensor of float, shape (n,)
        In radians.
    scale : (tensor, tensor), each of shape (n,)
        Width and height of what is shown, relative to the image's; a negative width mirrors it.
    shift : (tensor, tensor), each of shape (n,)
        Along the width and the height, as a share of the side.
    """
    side = tf.cast(tf.shape(images)[1], tf.float32)
    cos, sin = tf.cos(angle), tf.sin(angle)
    width, height = scale
    matrix = [cos * width, -sin * height, sin * width, cos * height]
    centre = (side - 1) / 2
    shift_x = centre + shift[0] * side - centre * (matrix[0] + matrix[1])
    shift_y = centre + shift[1] * side - centre * (matrix[2] + matrix[3])
    zero = tf.zeros_like(shift_x)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([*matrix[:2], shift_x, *matrix[2:], shift_y, zero, zero], axis=1),
        output_shape=tf.shape(images)[1:3],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


@dataclass(frozen=True)
class RandomResizedCrop(_Stateless):
    """Random crops, resized to one size, mirrored and varied in tone.

    Szegedy et al. (2015), *Going Deeper with Convolutions*, CVPR. Most crops lose the image border
    with its markers and stamps, and scale stops being informative: what is left is lung texture.
    Crops enlarge what they show, so whole images are to be predicted at a somewhat larger size
    than that of the crops (Touvron et al. 2019, *Fixing the train-test resolution discrepancy*,
    NeurIPS). Crops are sampled bilinearly without antialiasing, whole images with it
    (``decoding.resize``).

    Attributes
    ----------
    size : int
        Height and width of the result in pixels.
    area : float
        Smallest crop, as a share of the image's area, above 0 to 1; the largest is 1.
    aspect : float
        Largest ratio of the sides of a crop, at least 1.
    tone : float
        Largest natural logarithm of the exponent, the contrast and the brightness.
    style : float
        Strength, 0 to 1, of changes that imitate another way of processing radiographs: a blend
        with the histogram-equalised crop, blur or an unsharp mask, and noise. 0 for none.
    """

    size: int
    area: float = 0.1
    aspect: float = 4 / 3
    tone: float = 0.35
    style: float = 0.0

    def _change(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        n = tf.shape(images)[0]
        uniform = _uniform(n, seed)
        area = uniform(1, self.area, 1.0)
        ratio = tf.exp(uniform(2, -math.log(self.aspect), math.log(self.aspect)))
        height, width = (
            tf.minimum(tf.sqrt(area / ratio), 1.0),
            tf.minimum(tf.sqrt(area * ratio), 1.0),
        )
        top, left = uniform(3, 0.0, 1.0) * (1 - height), uniform(4, 0.0, 1.0) * (1 - width)
        mirrored = uniform(5, -1.0, 1.0) > 0
        first = tf.where(mirrored, left + width, left)
        last = tf.where(mirrored, left, left + width)
        boxes = tf.stack([top, first, top + height, last], axis=1)
        crops = tf.image.crop_and_resize(images, boxes, tf.range(n), [self.size, self.size])
        exponent, contrast, brightness = (
            tf.exp(uniform(k, -self.tone, self.tone))[:, None, None, None] for k in (6, 7, 8)
        )
        equalisation, sharpness, noise = (
            (self.style * uniform(k, -1.0, 1.0))[:, None, None, None] for k in (9, 10, 11)
        )
        if self.style:
            crops += tf.maximum(equalisation, 0) * (_equalised(crops) - crops)
        crops = tf.pow(tf.clip_by_value(crops, 1e-4, 1.0), exponent)
        crops = ((crops - 0.5) * contrast + 0.5) * brightness
        if self.style:
            crops += sharpness * (crops - _blurred(crops))
            random = tf.random.stateless_normal(tf.shape(crops), seed + tf.constant([0, 12]))
            crops += STYLE_NOISE * tf.maximum(noise, 0) * random
        return tf.clip_by_value(crops, 0.0, 1.0)


def _equalised(images: tf.Tensor) -> tf.Tensor:
    """Return (n, side, side, 1) images whose grey levels are the share of pixels not brighter."""
    flat = tf.reshape(images, [tf.shape(images)[0], -1])
    rank = tf.searchsorted(tf.sort(flat, axis=1), flat, side="right")
    return tf.reshape(
        tf.cast(rank, tf.float32) / tf.cast(tf.shape(flat)[1], tf.float32), tf.shape(images)
    )


def _blurred(images: tf.Tensor) -> tf.Tensor:
    """Return (n, side, side, 1) images blurred by a Gaussian of one pixel, edges continued."""
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2, dtype=np.float32)
    kernel = tf.constant((np.outer(weights, weights) / weights.sum() ** 2)[:, :, None, None])
    wider = images
    for _ in range(2):
        wider = tf.pad(wider, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    return tf.nn.conv2d(wider, kernel, strides=1, padding="VALID")

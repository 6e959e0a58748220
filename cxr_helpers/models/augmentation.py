"""Images changed at random in training, each epoch anew: by the course report, and more strongly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """Random rotation, horizontal flip and shift, as in the course report.

    Attributes
    ----------
    rotation : float
        Largest rotation to either side, in degrees, 0 to 180.
    shift : float
        Largest shift along each axis, as a share of the image's side, 0 to 1.
    flip : bool
        Whether half of the images are mirrored left to right.
    """

    rotation: float = 10.0
    shift: float = 0.1
    flip: bool = True

    def draw(self, seed: int) -> Callable:
        """Return a function that changes batches at random, each call anew.

        It takes (n, size, size, 1) floats and their targets, and returns both, the targets as
        they were; what leaves the frame turns black.
        """
        black = {"fill_mode": "constant", "fill_value": 0.0, "dtype": "float32"}
        steps: list[keras.Layer] = []
        if self.flip:
            steps.append(keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
        if self.rotation:
            steps.append(keras.layers.RandomRotation(self.rotation / 360, seed=seed + 1, **black))
        if self.shift:
            steps.append(
                keras.layers.RandomTranslation(self.shift, self.shift, seed=seed + 2, **black)
            )
        change = keras.Sequential(steps or [keras.layers.Identity()])
        moved = tf.function(lambda pictures: change(pictures, training=True), reduce_retracing=True)
        return lambda pictures, targets=None: (moved(pictures), targets)


@dataclass(frozen=True)
class StrongAugmentation:
    """Geometry, exposure and mixing, for a network that is trained longer.

    Turning, zoom, change of aspect, shift and mirroring are one resampling; gamma, contrast,
    brightness and noise imitate another exposure; mixing two images and their labels is mixup
    (Zhang et al. 2018).

    Attributes
    ----------
    rotation : float
        Largest rotation to either side, in degrees.
    zoom, aspect : float
        Largest natural logarithm of the change of size, and of width against height.
    shift : float
        Largest shift along each axis, as a share of the image's side.
    gamma, contrast : float
        Largest natural logarithm of the exponent, and of the factor about middle grey.
    noise : float
        Largest standard deviation of the noise, in grey levels of the range [0, 1].
    mixup : float
        Both parameters of the beta distribution that the share of the second image is drawn
        from; 0 mixes none.
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
        """Return a function that changes batches at random, each call anew.

        It takes and returns (n, size, size, 1) floats in [0, 1] and (n, classes) targets; the
        noise may leave the range.
        """
        calls = iter(range(2**31))
        change = tf.function(self._change, reduce_retracing=True)

        def both(pictures: np.ndarray, targets: np.ndarray) -> tuple:
            call = next(calls)
            pictures = change(tf.constant(pictures), tf.constant([seed % 2**31, call * 64]))
            if not self.mixup:
                return pictures, targets
            draw = np.random.default_rng([seed, call])
            share = draw.beta(self.mixup, self.mixup)
            share = np.float32(max(share, 1 - share))
            other = draw.permutation(len(targets))
            mixed = share * pictures + (1 - share) * tf.gather(pictures, other)
            return mixed, share * targets + (1 - share) * targets[other]

        return both

    def _change(self, pictures: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        n = tf.shape(pictures)[0]

        def uniform(k: int, bound: float) -> tf.Tensor:
            return tf.random.stateless_uniform([n], seed + tf.constant([0, k]), -bound, bound)

        pictures = self._move(pictures, uniform)
        gamma, contrast, brightness, deviation = (
            draw[:, None, None, None]
            for draw in (
                tf.exp(uniform(7, self.gamma)),
                tf.exp(uniform(8, self.contrast)),
                uniform(9, self.contrast / 4),
                tf.abs(uniform(10, self.noise)),
            )
        )
        pictures = tf.pow(tf.clip_by_value(pictures, 1e-4, 1.0), gamma)
        pictures = tf.clip_by_value((pictures - 0.5) * contrast + 0.5 + brightness, 0.0, 1.0)
        noise = tf.random.stateless_normal(tf.shape(pictures), seed + tf.constant([0, 11]))
        return pictures + noise * deviation

    def _move(self, pictures: tf.Tensor, uniform: Callable) -> tf.Tensor:
        side = tf.cast(tf.shape(pictures)[1], tf.float32)
        angle = uniform(1, self.rotation) * (math.pi / 180)
        zoom, aspect = tf.exp(uniform(2, self.zoom)), tf.exp(uniform(3, self.aspect) / 2)
        across = zoom * aspect * tf.sign(uniform(4, 1.0))  # a negative factor mirrors
        down = zoom / aspect
        cos, sin = tf.cos(angle), tf.sin(angle)
        matrix = [cos * across, -sin * down, sin * across, cos * down]
        centre = (side - 1) / 2
        right = centre + uniform(5, self.shift) * side - centre * (matrix[0] + matrix[1])
        below = centre + uniform(6, self.shift) * side - centre * (matrix[2] + matrix[3])
        zero = tf.zeros_like(right)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pictures,
            transforms=tf.stack([*matrix[:2], right, *matrix[2:], below, zero, zero], axis=1),
            output_shape=tf.shape(pictures)[1:3],
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
            fill_value=0.0,
        )

"""The course report's three architectures and a residual network, for grey images in [0, 1]."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf
from keras import layers

from cxr_helpers.system import accelerators

TRANSFERRED = ("conv1", "conv2", "pool1", "conv3")
EMBEDDING = "embedding"
CODE = "code"


def binary_cnn(image_size: int) -> keras.Sequential:
    """Return the untrained normal-or-pneumonia network of the course report.

    Parameters
    ----------
    image_size : int
        Height and width of the input in pixels, at least 22.

    Returns
    -------
    keras.Sequential
        (n, image_size, image_size, 1) float in [0, 1] to (n, 1) probability of pneumonia.
        The layer named ``"embedding"`` is the Dense 64 before the dropout.
    """
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 1), name="image"),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.Conv2D(16, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(32, 3, activation="relu", name="conv3"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Conv2D(64, 3, activation="relu", name="conv4"),
            layers.MaxPooling2D(2, name="pool3"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name=EMBEDDING),
            layers.Dropout(0.5, name="dropout"),
            # float32 also under mixed precision: rounded probabilities would tie
            layers.Dense(1, activation="sigmoid", dtype="float32", name="pneumonia"),
        ],
        name="binary_cnn",
    )


def categorical_cnn(
    image_size: int, *, source: keras.Model | None = None, classes: int = 3
) -> keras.Sequential:
    """Return the three-class network of the course report.

    Its first four layers may be copied from the binary network.

    Parameters
    ----------
    image_size : int
        Height and width of the input in pixels, at least 14.
    source : keras.Model, optional
        A binary network of the same image size. Its weights are *copied*: training the
        returned model does not change ``source``. Without it these layers start untrained, for
        weights that are loaded afterwards.
    classes : int
        3: normal, bacterial, viral; 2: normal, pneumonia.

    Returns
    -------
    keras.Sequential
        (n, image_size, image_size, 1) float in [0, 1] to (n, classes) probabilities.
    """
    model = keras.Sequential(
        [
            keras.Input((image_size, image_size, 1), name="image"),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.Conv2D(16, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(32, 3, activation="relu", name="conv3"),
            layers.Conv2D(64, 3, activation="relu", name="conv4"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name=EMBEDDING),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(classes, activation="softmax", dtype="float32", name="category"),
        ],
        name="categorical_cnn",
    )
    if source is not None:
        for name in TRANSFERRED:
            model.get_layer(name).set_weights(source.get_layer(name).get_weights())
    return model


def autoencoder(image_size: int) -> keras.Sequential:
    """Return the untrained convolutional autoencoder of the course report.

    Parameters
    ----------
    image_size : int
        Height and width of the input in pixels, a multiple of 4.

    Returns
    -------
    keras.Sequential
        (n, image_size, image_size, 1) float in [0, 1] to the same shape and range. The
        layer named ``"code"`` holds the (image_size / 4, image_size / 4, 16) code.

    Raises
    ------
    ValueError
        If ``image_size`` is not a multiple of 4: the two upsamplings would not restore the size.
    """
    if image_size % 4:
        raise ValueError(f"image_size {image_size} of the autoencoder: expected a multiple of 4")
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 1), name="image"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="encode1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="encode2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Dropout(0.2, name=CODE),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="decode1"),
            layers.UpSampling2D(2, name="up1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="decode2"),
            layers.UpSampling2D(2, name="up2"),
            layers.Dropout(0.2, name="dropout"),
            layers.Conv2D(
                1, 3, padding="same", activation="sigmoid", dtype="float32", name="reconstruction"
            ),
        ],
        name="autoencoder",
    )


def residual_cnn(
    image_size: int | None, *, widths: Sequence[int] = (32, 64, 128, 256), classes: int = 3
) -> keras.Model:
    """Return an untrained residual network with batch normalisation.

    He et al. (2016), *Deep Residual Learning for Image Recognition*, CVPR. Each image is first
    standardised to mean 0 and standard deviation 1, which makes the network insensitive to
    overall exposure. There is one block of two 3 × 3 convolutions for each width. Every block
    after the first halves height and width: by a strided convolution in the residual branch and
    by average pooling in the shortcut branch.

    Parameters
    ----------
    image_size : int or None
        Height and width of the input in pixels, at least 2 ** len(widths); None leaves them open,
        for training and prediction at different sizes.
    widths : sequence of int
        Channels of each block.
    classes : int
        Number of outputs.

    Returns
    -------
    keras.Model
        (n, image_size, image_size, 1) float in [0, 1] to (n, classes) probabilities. The layer
        named ``"embedding"`` is the mean of the last feature map, and ``"block4"`` is that map.
    """
    images = keras.Input((image_size, image_size, 1), name="image")
    # one group: mean and standard deviation of each image separately
    x = layers.GroupNormalization(
        groups=1, center=False, scale=False, dtype="float32", name="standardise"
    )(images)
    x = _convolution(x, widths[0], 5, strides=2, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    for number, width in enumerate(widths, 1):
        x = _residual_block(x, width, strides=1 if number == 1 else 2, name=f"block{number}")
    x = layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    x = layers.Dense(classes, activation="softmax", dtype="float32", name="category")(x)
    return keras.Model(images, x, name="residual_cnn")


def trained_residual_cnn(options: Path, weights: Path, *, for_crops: bool = False) -> keras.Model:
    """Return the trained residual network of a run, built from its options and its weights.

    Parameters
    ----------
    options, weights : Path
        ``ours.json`` and ``ours.weights.h5`` of ``03_categorical``; the options hold the size at
        which it predicts and that of the crops on which it was trained.
    for_crops : bool
        Whether its input is such a crop instead of a whole image.
    """
    settings = json.loads(options.read_text(encoding="utf-8"))
    crop_size = settings.pop("crop_size", settings["image_size"])
    if for_crops:
        settings["image_size"] = crop_size
    model = residual_cnn(**settings)
    model.load_weights(weights)
    return model


def last_block(model: keras.Model) -> str:
    """Return the name of the last feature map of a residual network."""
    blocks = [layer.name for layer in model.layers if re.fullmatch(r"block\d+", layer.name)]
    return max(blocks, key=lambda name: int(name.removeprefix("block")))


def _convolution(x, width: int, kernel: int, *, strides: int = 1, name: str):
    x = layers.Conv2D(
        width,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


class BatchNormalization(layers.BatchNormalization):
    """Keras's layer for feature maps, on the CPU as one operation of TensorFlow instead of many.

    Results are equal but for rounding; ``benchmarks/train.py`` has the times. On a GPU it is Keras's
    own: there, TensorFlow has no deterministic gradient of that operation outside of training.
    """

    def call(self, inputs, training=None, mask=None):
        """Return (n, height, width, channels) feature maps of the layer's precision, normalised."""
        if accelerators.gpu() is not None:
            return super().call(inputs, training=training, mask=mask)
        of_batch = bool(training and self.trainable)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[] if of_batch else self.moving_mean,
            variance=[] if of_batch else self.moving_variance,
            epsilon=self.epsilon,
            is_training=of_batch,
        )
        if of_batch:
            n = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], variance.dtype)
            variance *= (n - 1) / n  # Keras keeps the biased one
            for kept, own in ((self.moving_mean, mean), (self.moving_variance, variance)):
                kept.assign(kept * self.momentum + own * (1 - self.momentum))
        return outputs


def _residual_block(x, width: int, *, strides: int, name: str):
    y = _convolution(x, width, 3, strides=strides, name=f"{name}_first")
    y = layers.ReLU(name=f"{name}_relu")(y)
    y = _convolution(y, width, 3, name=f"{name}_second")
    if strides > 1:
        x = layers.AveragePooling2D(2, padding="same", name=f"{name}_pool")(x)
    if x.shape[-1] != width:
        x = _convolution(x, width, 1, name=f"{name}_projection")
    return layers.ReLU(name=name)(layers.Add(name=f"{name}_sum")([x, y]))


def describe(model: keras.Model) -> pd.DataFrame:
    """Return a table of a model's layers: ``layer``, ``kind``, ``output`` shape, ``weights``."""
    return pd.DataFrame(
        {
            "layer": [layer.name for layer in model.layers],
            "kind": [type(layer).__name__ for layer in model.layers],
            "output": ["×".join(map(str, layer.output.shape[1:])) for layer in model.layers],
            "weights": [layer.count_params() for layer in model.layers],
        }
    )

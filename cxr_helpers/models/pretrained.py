"""Networks of ``keras.applications`` that start from ImageNet weights, for grey images in [0, 1].

Optional, beside the networks that are trained from scratch; ``docs/decisions/pretrained.md`` says
what was measured. Deng et al. (2009), *ImageNet: A Large-Scale Hierarchical Image Database*, CVPR.
"""

from __future__ import annotations

import io
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import keras
from keras import layers

from cxr_helpers.models import recipes
from cxr_helpers.models.architectures import EMBEDDING
from cxr_helpers.system import files
from cxr_helpers.system.errors import DataError, did_you_mean

FEATURE_MAP = "feature_map"  # the layer that Grad-CAM explains, alike in all networks
# Fewer epochs than from scratch, as in the maintainers' run with ImageNet weights. The learning
# rate, and an average over the same share of the training, are assumptions: not measured.
RECIPE = recipes.Recipe(epochs=7, learning_rate=0.0005, warmup=1, average=0.99)
PATIENCE = 60.0  # seconds without an answer after which a download has failed


@dataclass(frozen=True)
class Backbone:
    """A network of ``keras.applications`` and the grey levels it expects.

    Attributes
    ----------
    application : callable
        Of ``keras.applications``.
    mean, deviation : tuple of float
        Of the red, green and blue levels of ImageNet, on the scale [0, 1]. The network expects
        (level − mean) / deviation, as its ``preprocess_input`` gives.
    options : dict
        Of the application.
    """

    application: Callable[..., keras.Model]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    options: dict = field(default_factory=dict)


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONES = {
    # the mode "tf" of ``keras.applications``: grey levels in [−1, 1]
    "mobilenet_v2": Backbone(keras.applications.MobileNetV2, (0.5,) * 3, (0.5,) * 3),
    "densenet121": Backbone(keras.applications.DenseNet121, *_IMAGENET),
    # Its own preprocessing layers compute the same, but would round under mixed precision.
    "efficientnetv2_b0": Backbone(
        keras.applications.EfficientNetV2B0, *_IMAGENET, {"include_preprocessing": False}
    ),
}


class Unavailable(RuntimeError):
    """The ImageNet weights cannot be obtained; the message is one line and says what to do."""


def build(name: str, *, classes: int, weights: str | Path | None = "") -> keras.Model:
    """Return a network with an untrained last layer on top of ImageNet weights.

    Parameters
    ----------
    name : str
        A key of ``BACKBONES``.
    classes : int
        Number of outputs.
    weights : str or Path or None
        A file of weights without the classification layers, as ``keras.applications`` publishes
        it (``….h5``) or ``save_weights`` writes it (``….weights.h5``). ``""``: the ImageNet
        weights of ``keras.applications``, downloaded once into Keras's folder (``KERAS_HOME``, by
        default ``~/.keras``). None: random weights, for weights that are loaded afterwards.

    Returns
    -------
    keras.Model
        Flat; (n, height, width, 1) float in [0, 1] to (n, classes) probabilities, for any height
        and width from 32. The layer named ``"embedding"`` is the mean of the last feature map,
        and ``"feature_map"`` is that map. All layers are trainable.

    Raises
    ------
    Unavailable
        If the weights are not in Keras's folder and cannot be downloaded.
    DataError
        If ``weights`` is not a file of weights of this network.
    ValueError
        If the name is unknown.
    """
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise ValueError(f"network {name!r}: expected {known}{did_you_mean(name, BACKBONES)}")
    images = keras.Input((None, None, 1), name="image")
    x = _backbone(name, _preprocessed(images, BACKBONES[name]), weights).output
    x = layers.Identity(name=FEATURE_MAP)(x)
    x = layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    x = layers.Dense(classes, activation="softmax", dtype="float32", name="category")(x)
    model = keras.Model(images, x, name=name)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            # The default of up to 0.999 would keep half of ImageNet's statistics for 700 steps.
            layer.momentum = 0.9
    return model


def at_size(model: keras.Model, image_size: int) -> keras.Model:
    """Return a copy of a network for images of one size, with the same layers and weights.

    Grad-CAM registers its maps by the size of the input. Building the network anew at that size
    would pad some layers of MobileNetV2 differently.
    """
    images = keras.Input((image_size, image_size, 1), name="image")
    copy = keras.models.clone_model(model, input_tensors=images)
    copy.set_weights(model.get_weights())
    return copy


def _preprocessed(images: keras.KerasTensor, backbone: Backbone) -> keras.KerasTensor:
    """Return three equal channels, scaled as the network's ``preprocess_input`` does."""
    # float32 also under mixed precision: bfloat16 would merge neighbouring grey levels
    rgb = layers.Concatenate(dtype="float32", name="grey_to_rgb")([images, images, images])
    scale = [1 / deviation for deviation in backbone.deviation]
    offset = [-m / d for m, d in zip(backbone.mean, backbone.deviation, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name="imagenet_levels")(rgb)


def _backbone(name: str, x: keras.KerasTensor, weights: str | Path | None) -> keras.Model:
    """Return the network from the image to its last feature map."""
    backbone = BACKBONES[name]

    def application(weights: str | None) -> keras.Model:
        options = backbone.options | {"include_top": False, "input_tensor": x}
        return backbone.application(weights=weights, **options)

    if weights is None:
        return application(None)
    if weights == "":
        with _download():
            try:
                return application("imagenet")
            except Exception as error:  # Keras raises a plain Exception if a download fails
                if (reason := _reason(error)) is None:
                    raise
                raise Unavailable(f"pretrained={name}: {reason}") from error
    path = files.weights(weights)
    try:
        with warnings.catch_warnings():
            # Keras warns for each layer that would keep its random weights.
            warnings.filterwarnings("error", "Skipping nested container", UserWarning)
            return application(path)
    except (OSError, ValueError, KeyError, UserWarning) as error:  # of h5py and Keras
        raise DataError(
            f"pretrained_weights={weights}: expected the weights of {name} without its "
            f"classification layers, as keras.applications publishes them ({_first_line(error)})"
        ) from error


@contextmanager
def _download() -> Iterator[None]:
    """Let downloads fail after a while without an answer, and print no progress."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # MobileNetV2 says that weights for 224 pixels are used where the size is open.
            warnings.filterwarnings("ignore", "`input_shape` is undefined", UserWarning)
            yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str | None:
    """Return why there are no ImageNet weights and what to do; None for any other error."""
    otherwise = "or give pretrained_weights=FILE"
    if type(error) is Exception or isinstance(
        error, (URLError, ConnectionError, TimeoutError, HTTPException)
    ):
        return (
            f"its ImageNet weights could not be downloaded ({_first_line(error)}); "
            f"connect to the internet once, {otherwise}"
        )
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is None):
        return (  # of h5py, or of Keras's digest of the file
            f"the downloaded ImageNet weights cannot be read ({_first_line(error)}); "
            "delete them from the folder models in KERAS_HOME (~/.keras) to download them again, "
            f"{otherwise}"
        )
    return None


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, without the addresses in it."""
    text = str(error).strip().split("\n")[0]
    text = re.sub(r"^URL fetch failure on \S+: (None -- )?|\s*\w+://\S+", "", text)
    return text[:160].rstrip(" .:") or type(error).__name__

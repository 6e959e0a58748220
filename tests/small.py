"""Networks and images on which explanations can be checked by hand."""

import keras
import numpy as np
from keras import layers

from cxr_helpers.explain.explained import Explained
from cxr_helpers.models import architectures


def images(n=3, size=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def corner(size=12, side=4, weight=8.0):
    """Return a network whose log-odds are ``weight`` times the mean of the upper left corner."""
    inputs = keras.Input((size, size, 1))
    feature = layers.Conv2D(1, 1, use_bias=False, name="conv")(inputs)
    outputs = layers.Dense(1, activation="sigmoid")(layers.Flatten()(feature))
    model = keras.Model(inputs, outputs)
    weights = np.zeros((size, size), np.float32)
    weights[:side, :side] = weight / side**2
    model.get_layer("conv").set_weights([np.ones((1, 1, 1, 1), np.float32)])
    model.layers[-1].set_weights([weights.reshape(-1, 1), np.zeros(1, np.float32)])
    return Explained(model, feature_map="conv")


def sequence(*first, size=40, bias=True, seed=0):
    """Return layers followed by a dense layer and its only output."""
    keras.utils.set_random_seed(seed)
    last = [
        layers.Dense(8, activation="relu", use_bias=bias),
        layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.Sequential([keras.Input((size, size, 1)), *first, layers.Flatten(), *last])
    return Explained(model, feature_map=first[0].name)


def published(size=44, *, categorical=False, seed=0):
    keras.utils.set_random_seed(seed)
    build = architectures.categorical_cnn if categorical else architectures.binary_cnn
    return Explained(build(size), feature_map="conv4")


def residual(size=32, *, classes=3, seed=0):
    keras.utils.set_random_seed(seed)
    model = architectures.residual_cnn(size, widths=(4, 8), classes=classes)
    return Explained(model, feature_map="block2")


def fall_where_covered(score, image, *, patch, stride, fill=None):
    """Return how much a score falls where a patch covers an image, by one copy after the other.

    ``score`` takes (m, size, size, 1) images in [0, 1]; ``fill`` is by default their mean.
    """
    scaled, falls = image / np.float32(255), [[[] for _ in row] for row in image]
    last = len(image) - patch
    starts = sorted({*range(0, last + 1, stride), last})
    for top in starts:
        for left in starts:
            copy, pixels = scaled.copy(), np.s_[top : top + patch, left : left + patch]
            copy[pixels] = scaled.mean() if fill is None else fill
            before, after = score(np.stack([scaled, copy])[..., None])
            for row in range(top, top + patch):
                for column in range(left, left + patch):
                    falls[row][column].append(float(before - after))
    return np.array([[np.mean(of_pixel) for of_pixel in row] for row in falls])

"""TensorFlow functions that are traced once.

For small networks and few images, tracing takes longer than the computation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

PIXELS = 16 * 128**2  # of the images that are passed through a network at once
MOST = 48  # such images


def batch_size(side: int) -> int:
    """Return how many images of a side in pixels are passed through a network at once.

    Large batches of small images are faster (see ``benchmarks/predict.py``). The memory of a batch is
    not given back: with oneDNN, TensorFlow reserves it in parts of 8, 16, 32, … MB and keeps them.
    """
    return min(MOST, max(1, PIXELS // side**2))


def traced(function: Callable) -> Callable:
    """Return a function that is traced once for batches of any number of images.

    By itself, ``tf.function`` is traced again for the last, smaller batch. Functions of Keras need no
    AutoGraph, in which most of the time goes.

    Parameters
    ----------
    function : callable
        Of arrays or tensors. Of those with two axes or more, the first is that of the images.
    """
    compiled = tf.function(lambda *args: function(*args), autograph=False)
    known: dict[tuple, Callable] = {}  # by shapes and dtypes: to ask TensorFlow takes longer

    def run(*args: tf.Tensor) -> object:
        kinds = tuple(
            ((None, *x.shape[1:]) if len(x.shape) > 1 else tuple(x.shape), x.dtype) for x in args
        )
        if kinds not in known:
            specs = [tf.TensorSpec(shape, dtype) for shape, dtype in kinds]
            known[kinds] = compiled.get_concrete_function(*specs)
        return known[kinds](*args)

    return run


def inference(model: keras.Model) -> Callable:
    """Return a network, without dropout and the like, as a traced function."""
    return traced(lambda images: model(images, training=False))


_INFERENCE: WeakKeyDictionary[keras.Model, Callable] = WeakKeyDictionary()


def inference_of(model: keras.Model) -> Callable:
    """Return ``inference(model)``, of one network always the same; weights set later are used."""
    if model not in _INFERENCE:
        alive = weakref.ref(model)  # the dictionary must not keep its own keys
        _INFERENCE[model] = traced(lambda images: alive()(images, training=False))
    return _INFERENCE[model]

"""Compare the multiply-adds of training our network with the most that this processor can do.

    uv run benchmarks/peak.py
    uv run benchmarks/peak.py --images 960 --precision mixed_bfloat16

The most is what TensorFlow reaches on a product of two large matrices of the same precision and on the same cores.
A training step counts three times the multiply-adds of a prediction: forward, and backward for
the layer's input and for its weights. The first row is the recipe of 2026-11-23, the second that of
today; each trains for three epochs, of which the first (compilation) is left out.
"""

from __future__ import annotations

import argparse
import os
import time

from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas

import keras
import numpy as np
import tensorflow as tf

from cxr_helpers.models import architectures, recipes
from cxr_helpers.models.augmentation import StrongAugmentation

OLD = recipes.Recipe(epochs=3, batch_size=32, crop_sizes=(128,))
NEW = recipes.Recipe(epochs=3)
DETAIL = 192  # pixels of the images that crops are taken of


def main() -> None:
    """Measure the most, then both recipes; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=480, help="images of an epoch")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    options = parser.parse_args()
    keras.mixed_precision.set_global_policy(options.precision)
    tf.config.experimental.enable_op_determinism()
    most = matrix_product(keras.mixed_precision.global_policy().compute_dtype)
    print(f"product of matrices: {most / 1e9:.0f} thousand million multiply-adds per second")
    print(f"{'recipe':44}{'images/s':>10}{'share of it':>14}")
    for name, recipe, whole in (
        ("whole images of 128 pixels, batches of 32", OLD, StrongAugmentation()),
        ("crops of 96 pixels, batches of 48", NEW, None),
    ):
        rate = images_per_second(recipe, whole, n_images=options.images)
        done = 3 * multiply_adds(recipe.crop_sizes[0]) * rate
        print(f"{name:44}{rate:10.0f}{done / most:14.0%}", flush=True)


def matrix_product(dtype: str, size: int = 2048, repeats: int = 20) -> float:
    """Return the multiply-adds per second of a product of two square matrices."""
    matrix = tf.cast(np.random.default_rng(0).normal(size=(size, size)), dtype)
    product = tf.function(tf.matmul)
    product(matrix, matrix)
    start = time.perf_counter()
    for _ in range(repeats):
        result = product(matrix, matrix)
    result.numpy()
    return repeats * size**3 / (time.perf_counter() - start)


def multiply_adds(size: int) -> float:
    """Return the multiply-adds of a prediction of our network for one image."""
    total = 0.0
    for layer in architectures.residual_cnn(size).layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += layer.kernel.shape.num_elements() * np.prod(layer.output.shape[1:3])
        elif isinstance(layer, keras.layers.Dense):
            total += layer.kernel.shape.num_elements()
    return total


def images_per_second(recipe: recipes.Recipe, whole, *, n_images: int) -> float:
    """Return how many images are trained on in a second, without the first epoch."""
    keras.utils.set_random_seed(0)
    side = recipe.crop_sizes[0] if whole else DETAIL
    images = np.random.default_rng(0).integers(0, 256, (n_images, side, side), dtype=np.uint8)
    one_hot = keras.utils.to_categorical(np.arange(n_images) % 3, 3)
    ends: list[float] = []
    recipes.fit(
        architectures.residual_cnn(None),
        images,
        one_hot,
        recipe,
        seed=0,
        augmentation=whole,
        log=lambda _: ends.append(time.perf_counter()),
    )
    return n_images * (recipe.epochs - 1) / (ends[-1] - ends[0])


if __name__ == "__main__":
    main()

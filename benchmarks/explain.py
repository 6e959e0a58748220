"""Time occlusion maps with spliced features beside passing every covered copy through the network.

    uv run benchmarks/explain.py                  # 8 images of 128 pixels
    uv run benchmarks/explain.py --images 24 --size 80
    uv run --no-project --with xplique==2.0.2 benchmarks/explain.py --xplique

The networks are untrained: their arithmetic is that of trained ones. Printed are milliseconds per
image (the median of three rounds), their ratio, images a second, the largest difference between both
maps, the processor time of every method, and the peak memory. With ``--xplique``, in an environment
of its own, the same patches are timed with that library's occlusion on the published binary network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the kernels of a run

import keras
import numpy as np

ROUNDS = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="of the images, in pixels")
    parser.add_argument("--xplique", action="store_true")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    shape = (options.images, options.size, options.size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    patch = round(options.size / 8)
    if options.xplique:
        of_xplique(images, patch)
    else:
        of_ours(images, patch)


def of_ours(images: np.ndarray, patch: int) -> None:
    """Time this project's methods."""
    from cxr_helpers.explain import covering, measures
    from cxr_helpers.explain.explained import Explained
    from cxr_helpers.models import architectures
    from cxr_helpers.system import environment

    size = images.shape[1]
    networks = {
        "binary": (architectures.binary_cnn(size), "conv4"),
        "categorical": (architectures.categorical_cnn(size), "conv4"),
        "ours": (architectures.residual_cnn(round(size * 0.875)), "block4"),
    }
    heads = f"{'spliced':>12}{'naive':>10}{'ratio':>8}{'images/s':>10}{'difference':>14}"
    print(f"occlusion, ms per image{heads}")
    for name, (model, layer) in networks.items():
        explained = Explained(model, feature_map=layer)
        prepared = explained.prepare(images)
        own = max(2, round(patch * explained.size / size))
        took, maps = [], []
        for spliced in (True, False):
            options = {"patch": own, "stride": own // 2, "spliced": spliced}
            maps.append(covering.maps(explained, prepared[:1], **options))  # traces
            took.append(timed(partial(covering.maps, explained, prepared, **options), len(images)))
        difference = np.abs(np.subtract(*maps)).max()
        print(
            f"{name:23}{took[0]:12.1f}{took[1]:10.1f}{took[1] / took[0]:8.1f}"
            f"{1000 / took[0]:10.1f}{difference:14.1e}"
        )
    print("\nms of processor time per image, measured once, without tracing")
    for name, (model, layer) in networks.items():
        _, ms = measures.attribution_maps(model, images, feature_map=layer, patch_share=1 / 8)
        for method, of_image in ms.items():
            print(f"{name:14}{method:22}{of_image:10.1f}")
    print(f"\npeak memory: {environment.peak_memory() / 2**20:,.0f} MiB")


def of_xplique(images: np.ndarray, patch: int) -> None:
    """Time xplique's occlusion on a network with the layers of the published one."""
    from keras import layers
    from xplique.attributions import Occlusion

    size = images.shape[1]
    model = keras.Sequential(
        [
            keras.Input((size, size, 1)),
            *(layers.Conv2D(16, 3, activation="relu") for _ in range(2)),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(1),
        ]
    )
    explainer = Occlusion(model, batch_size=64, patch_size=patch, patch_stride=patch // 2)
    scaled = images[..., None].astype(np.float32) / 255
    targets = np.ones((len(images), 1), dtype=np.float32)
    explainer(scaled[:1], targets[:1])
    ms = timed(lambda: explainer(scaled, targets), len(images))
    print(f"xplique, binary: {ms:.1f} ms per image, {1000 / ms:.1f} images/s")


def timed(function: Callable[[], object], images: int) -> float:
    """Return the median milliseconds per image of some rounds."""
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        took.append(1000 * (time.perf_counter() - start) / images)
    return statistics.median(took)


if __name__ == "__main__":
    main()

"""Compare how many images at once a network predicts, and differentiates, fastest.

    uv run benchmarks/predict.py
    uv run benchmarks/predict.py --batches 32,96,192

Printed are images per second by the number of images at once, the median over rounds in which the numbers take
turns: the log-odds of generated images (``score``, as in predictions, removal curves and interventions), and
their gradient for the image (``gradient``), for the published binary network and ours, at the sizes of the
standard preset and of the default on phantoms.
"""

from __future__ import annotations

import argparse
import os
import time

from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas

import numpy as np

from cxr_helpers.explain.explained import Explained
from cxr_helpers.models import architectures

ROUNDS = 5


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", default="8,16,24,32,48", help="images at once")
    parser.add_argument("--images", type=int, default=192, help="images of a measurement")
    options = parser.parse_args()
    numbers = [int(n) for n in options.batches.split(",")]
    networks = {
        "published binary, 128 pixels": architectures.binary_cnn(128),
        "ours, 112 pixels": architectures.residual_cnn(112, classes=3),
        "published binary, 80 pixels": architectures.binary_cnn(80),
        "ours small, 72 pixels": architectures.residual_cnn(
            72, widths=(16, 32, 64, 128), classes=3
        ),
    }
    print(f"{'images per second':30}{'':10}" + "".join(f"{n:>8}" for n in numbers))
    for name, network in networks.items():
        layer = "conv4" if name.startswith("published") else architectures.last_block(network)
        explained = Explained(network, feature_map=layer)
        shape = (options.images, explained.size, explained.size)
        images = np.random.default_rng(0).random(shape).astype(np.float32)
        for what in ("score", "gradient"):
            rates = measured(explained, what, images, numbers)
            best = max(rates)
            cells = "".join(f"{f'{rate:.0f}' + ('*' if rate == best else ''):>8}" for rate in rates)
            print(f"{name:30}{what:10}{cells}", flush=True)


def measured(explained: Explained, what: str, images: np.ndarray, numbers: list[int]) -> list:
    """Return the images per second with each number of images at once."""
    compute, seconds = getattr(explained, what), {n: [] for n in numbers}
    for turn in range(ROUNDS + 1):
        for n in numbers:
            explained.batch_size = explained.gradient_batch_size = n
            start = time.perf_counter()
            compute(images)
            if turn:  # the first traces
                seconds[n].append(time.perf_counter() - start)
    return [len(images) / float(np.median(taken)) for taken in seconds.values()]


if __name__ == "__main__":
    main()

"""Time the training of one batch in float32 and bfloat16, by network and number of channels.

    uv run benchmarks/precision.py

Both are measured in turn, on the same random images, in milliseconds (median); the ratio is that of
bfloat16 to float32. Compilation is excluded.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial

from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas

import keras
import numpy as np

from cxr_helpers.models import architectures, training

POLICIES = ("float32", "mixed_bfloat16")
STEPS, TURNS = 10, 3
IMAGES = 16  # in a batch


def main() -> None:
    """Print one line for each network."""
    accelerators.prepare()
    print(f"{'network, batches of 16 images':44}{'float32':>10}{'bfloat16':>10}{'ratio':>7}")
    for size in (48, 64, 128):
        report(f"published binary, {size} pixels", partial(architectures.binary_cnn, size), size)
    for widths in ((8, 16, 32), (12, 24, 48), (16, 32, 64), (24, 48, 96), (32, 64, 128, 256)):
        for size in (48, 96):
            build = partial(architectures.residual_cnn, size, widths=widths)
            name = "-".join(map(str, widths))
            report(f"residual, {name} channels, {size} pixels", build, size)


def report(name: str, build: Callable[[], keras.Model], size: int) -> None:
    """Time one network and print its line."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, size, size), np.uint8)
    steps = {policy: step_of(build, images, policy) for policy in POLICIES}
    seconds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for _ in range(TURNS):
        for policy, step in steps.items():
            for _ in range(STEPS):
                start = time.perf_counter()
                step()
                seconds[policy].append(time.perf_counter() - start)
    plain, mixed = (1000 * statistics.median(seconds[policy]) for policy in POLICIES)
    print(f"{name:44}{plain:10.1f}{mixed:10.1f}{mixed / plain:7.2f}", flush=True)


def step_of(build: Callable[[], keras.Model], images: np.ndarray, policy: str) -> Callable:
    """Return a function that trains a network on the images, one batch, by ``training.fit``."""
    keras.mixed_precision.set_global_policy(policy)
    model = build()
    classes = model.output_shape[-1]
    loss = "binary_crossentropy" if classes == 1 else "categorical_crossentropy"
    model.compile("adam", loss)
    targets = np.eye(max(2, classes), dtype=np.float32)[np.arange(len(images)) % max(2, classes)]
    options = {"epochs": 1, "batch_size": len(images), "seed": 0}
    step = partial(training.fit, model, images, targets[:, -classes:], **options)
    step()  # compiles
    return step


if __name__ == "__main__":
    main()

"""Show which changed images --predict and --explore say are unlike the training images of a run.

    uv run benchmarks/unlike.py report/build/chest_xray-standard

The validation images of the run, unchanged, inverted, turned, mirrored and darkened, and white noise.
Prints the share of images with a warning, in all and by respect, see ``anomaly.likeness``.
``docs/decisions/anomaly-detectors.md`` holds what it printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cxr_helpers.data import dataset
from cxr_helpers.pipeline import classifiers
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import STORE
from cxr_helpers.pipeline.store import Store

RESPECTS = ("detail", "layout", "brightness")


def main() -> None:
    """Compare the versions of the validation images with the training images; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    run = Run(parser.parse_args().run.resolve())
    likeness = classifiers.likeness_to_training(run, Store(run.folder.parent / STORE))
    radiographs = dataset.read(run.stage("01_data"))
    parts = [radiographs[split].images for split in ("validation", "contiguous")]
    images = np.concatenate(parts)
    print(f"{len(images)} images\n{'version':16}{'any':>8}" + "".join(f"{r:>12}" for r in RESPECTS))
    for name, changed in versions(images).items():
        found = likeness.differences(np.ascontiguousarray(changed))
        shares = [np.mean([respect in one for one in found]) for respect in RESPECTS]
        unlike = np.mean([bool(one) for one in found])
        print(f"{name:16}{unlike:8.1%}" + "".join(f"{share:12.1%}" for share in shares))


def versions(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return images as they are and as a user may give them by mistake, by name."""
    return {
        "unchanged": images,
        "inverted": 255 - images,
        "turned by 90°": np.rot90(images, axes=(1, 2)),
        "upside down": images[:, ::-1],
        "mirrored": images[:, :, ::-1],
        "darker (× 0.3)": (images * 0.3).astype(np.uint8),
        "white noise": np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8),
    }


if __name__ == "__main__":
    main()

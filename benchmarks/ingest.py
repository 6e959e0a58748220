"""Time the path of images from JPEG to network, against Keras's own loader.

    uv run benchmarks/ingest.py                                # on generated images
    uv run benchmarks/ingest.py path/to/originals/train        # also on a folder with one subfolder per class

This project decodes every image once into the memory-mapped cache and yields batches from there;
``keras.utils.image_dataset_from_directory`` decodes in every epoch. Each loader runs ten epochs in a
separate process on the same files, which are in the page cache for both. Only the epochs are
timed, not the imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE, BATCH, EPOCHS = 128, 32, 10


def main() -> None:
    """Measure both loaders on each set and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="folder with one subfolder per class")
    parser.add_argument("--images", type=int, default=240, help="number of generated images")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"ours": ours, "keras": keras_loader}[options.child](options.folder)))
        return
    with tempfile.TemporaryDirectory() as generated:
        make_images(Path(generated), options.images)
        compare("generated images, 1400 × 1100 pixels", Path(generated))
    if options.folder:
        compare(str(options.folder.name), options.folder)


def make_images(root: Path, count: int) -> None:
    """Render phantoms, enlarge them to the size of real images and save them by class."""
    import numpy as np
    from PIL import Image

    from cxr_helpers.phantoms import rendering

    phantoms = rendering.render(n=count, size=256)
    grain = np.random.default_rng(0).normal(0, 4, (1100, 1400))
    for image, row in zip(phantoms.images, phantoms.index.itertuples(), strict=True):
        target = root / ("NORMAL" if row.class_name == "normal" else "PNEUMONIA")
        target.mkdir(exist_ok=True)
        large = np.asarray(Image.fromarray(image).resize((1400, 1100))) + grain
        enlarged = Image.fromarray(np.clip(large, 0, 255).astype(np.uint8))
        enlarged.save(target / f"{Path(row.file).stem}.jpeg", quality=90)


def compare(title: str, folder: Path) -> None:
    """Measure both loaders on a folder; print images per second, memory and ratios."""
    images = sorted(folder.rglob("*.jpeg"))
    for image in images:
        image.read_bytes()
    results = {name: measured(name, folder) for name in ("keras", "ours")}
    print(f"\n{title}: {len(images)} images to {SIZE} × {SIZE} pixels")
    print(f"{'':34}{'keras':>12}{'ours':>12}{'ratio':>9}")
    rows = {
        "first epoch, images per second": lambda t: len(images) / t["epochs"][0],
        "later epochs, images per second": lambda t: (
            len(images) * (EPOCHS - 1) / sum(t["epochs"][1:])
        ),
        "ten epochs, images per second": lambda t: len(images) * EPOCHS / sum(t["epochs"]),
        "peak memory above imports, MiB": lambda t: t["memory"] / 2**20,
    }
    for label, value in rows.items():
        theirs, ours = value(results["keras"]), value(results["ours"])
        ratio = theirs / ours if "memory" in label else ours / theirs
        print(f"{label:34}{theirs:12.1f}{ours:12.1f}{ratio:8.1f}×")


def measured(name: str, folder: Path) -> dict:
    """Return seconds and memory of a loader, measured in a separate process."""
    command = [sys.executable, __file__, str(folder), "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def timed(epoch) -> dict:
    """Call ``epoch`` ten times; return the seconds of each and the peak memory added, in bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"epochs": seconds, "memory": (after - before) * 1024}


def ours(folder: Path) -> dict:
    """Decode into a new cache in the first epoch, and read every epoch from it."""
    import pandas as pd

    from cxr_helpers.data import decoding
    from cxr_helpers.data.scans import Scan
    from cxr_helpers.models import training

    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpeg"))
    scan = Scan(folder, pd.DataFrame({"file": names}), pd.DataFrame())
    with tempfile.TemporaryDirectory() as cache:
        decoded = []  # a run decodes the images once

        def epoch() -> None:
            if not decoded:
                decoded.append(decoding.decode_all(scan, SIZE, cache_dir=cache)[0])
            for _ in training.batches(decoded[0], batch_size=BATCH):
                pass

        return timed(epoch)


def keras_loader(folder: Path) -> dict:
    """Iterate over Keras's own loader."""
    import keras

    images = keras.utils.image_dataset_from_directory(
        folder, color_mode="grayscale", image_size=(SIZE, SIZE), batch_size=BATCH, shuffle=False
    ).map(lambda batch, labels: (batch / 255.0, labels))

    def epoch() -> None:
        for _ in images:
            pass

    return timed(epoch)


if __name__ == "__main__":
    main()

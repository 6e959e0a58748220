"""Time how images get from JPEGs to a network, beside what users do today.

    uv run benchmarks/ingest.py                                # on images that it makes
    uv run benchmarks/ingest.py path/to/originals/train        # also on a folder by class

Ours decodes every image once into the memory-mapped cache and feeds batches from there. The
other, ``keras.utils.image_dataset_from_directory``, decodes in every epoch. Each is run in a
process of its own, over one epoch and over ten, on the same files, which are in the system's
cache for both. Seconds are those of the epochs alone, imports left out.
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
    """Measure each set both ways and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of images by class")
    parser.add_argument("--images", type=int, default=240, help="images of the made set")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"ours": ours, "keras": keras_loader}[options.child](options.folder)))
        return
    with tempfile.TemporaryDirectory() as made:
        make_images(Path(made), options.images)
        compare("made images, 1400 × 1100 pixels", Path(made))
    if options.folder:
        compare(str(options.folder.name), options.folder)


def make_images(root: Path, count: int) -> None:
    """Draw phantoms, enlarge them to the size of real images, save them as JPEGs by class."""
    import numpy as np
    from PIL import Image

    from cxr_helpers.phantoms import rendering

    drawn = rendering.render(n=count, size=256)
    grain = np.random.default_rng(0).normal(0, 4, (1100, 1400))
    for image, row in zip(drawn.images, drawn.index.itertuples(), strict=True):
        place = root / ("NORMAL" if row.class_name == "normal" else "PNEUMONIA")
        place.mkdir(exist_ok=True)
        large = np.asarray(Image.fromarray(image).resize((1400, 1100))) + grain
        picture = Image.fromarray(np.clip(large, 0, 255).astype(np.uint8))
        picture.save(place / f"{Path(row.file).stem}.jpeg", quality=90)


def compare(title: str, folder: Path) -> None:
    """Measure both ways on one folder and print images a second, memory and ratios."""
    images = sorted(folder.rglob("*.jpeg"))
    for image in images:
        image.read_bytes()
    found = {name: measured(name, folder) for name in ("keras", "ours")}
    print(f"\n{title}: {len(images)} images to {SIZE} × {SIZE} pixels")
    print(f"{'':34}{'keras':>12}{'ours':>12}{'ratio':>9}")
    lines = {
        "first epoch, images a second": lambda t: len(images) / t["epochs"][0],
        "later epochs, images a second": lambda t: (
            len(images) * (EPOCHS - 1) / sum(t["epochs"][1:])
        ),
        "ten epochs, images a second": lambda t: len(images) * EPOCHS / sum(t["epochs"]),
        "peak memory above imports, MiB": lambda t: t["memory"] / 2**20,
    }
    for label, value in lines.items():
        keras, own = value(found["keras"]), value(found["ours"])
        ratio = keras / own if "memory" in label else own / keras
        print(f"{label:34}{keras:12.1f}{own:12.1f}{ratio:8.1f}×")


def measured(name: str, folder: Path) -> dict:
    """Return what one way took, from a process of its own."""
    command = [sys.executable, __file__, str(folder), "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def timed(epoch) -> dict:
    """Call ``epoch`` ten times; return the seconds of each and the memory it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"epochs": seconds, "memory": (after - before) * 1024}


def ours(folder: Path) -> dict:
    """Decode into a new cache in the first epoch, read from it in all."""
    import pandas as pd

    from cxr_helpers.data import decoding
    from cxr_helpers.data import folder as folders
    from cxr_helpers.models import training

    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpeg"))
    scan = folders.Scan(folder, pd.DataFrame({"file": names}), pd.DataFrame())
    with tempfile.TemporaryDirectory() as cache:
        decoded = []  # a run decodes, or finds, the images once

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
    ).map(lambda pictures, labels: (pictures / 255.0, labels))

    def epoch() -> None:
        for _ in images:
            pass

    return timed(epoch)


if __name__ == "__main__":
    main()

"""Time training and embedding, in images per second, against the loop of a course notebook.

    uv run benchmarks/train.py                 # the published binary network and ours
    uv run benchmarks/train.py --images 960 --size 128

Each row of the table is measured in a separate process, one after the other, on the same
generated images; the first epoch (compilation) is excluded. The naive loop is that of a course
notebook: in every epoch each JPEG is opened, resized, rotated, shifted and flipped in Python, and
passed to ``train_on_batch``. "TensorFlow's choice" is the project's loop without asking for oneDNN,
"Keras's layer" with ``keras.layers.BatchNormalization`` instead of one fused operation.
Embeddings are timed as one ``predict`` call per image, decoded on the spot, against batches from the
memory-mapped cache. Ratios refer to the naive row of the same network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cxr_helpers.system import accelerators

BATCH, EPOCHS = 32, 3
KERAS = "Keras's layer"
ROWS = (
    ("binary", "naive", "float32"),
    ("binary", "TensorFlow's choice", "float32"),
    ("binary", "project", "float32"),
    ("binary", "project", "mixed_bfloat16"),
    ("ours", "naive", "float32"),
    ("ours", "TensorFlow's choice", "float32"),
    ("ours", KERAS, "float32"),
    ("ours", "project", "float32"),
    ("ours", KERAS, "mixed_bfloat16"),
    ("ours", "project", "mixed_bfloat16"),
)


def main() -> None:
    """Measure each row in a separate process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=640, help="number of generated images")
    parser.add_argument("--size", type=int, default=128, help="image size in pixels")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, *row = options.child
        print(json.dumps(measure(Path(folder), *row, size=options.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images)
        print(
            f"{options.images} generated images, {options.size} × {options.size} pixels, batch {BATCH}"
        )
        print(
            f"{'':36}{'training':>12}{'ratio':>8}{'embedding':>12}{'ratio':>8}   images per second"
        )
        naive = {}
        for row in ROWS:
            command = [sys.executable, __file__, "--size", str(options.size), "--child", folder]
            done = subprocess.run(
                [*command, *row],
                env=os.environ | (accelerators.variables() if row[1] in ("project", KERAS) else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            rates = json.loads(done.stdout.splitlines()[-1])
            naive.setdefault(row[0], rates)
            ratios = [rates[k] / naive[row[0]][k] for k in ("training", "embedding")]
            cells = f"{rates['training']:12.0f}{ratios[0]:7.1f}×{rates['embedding']:12.0f}"
            print(f"{', '.join(row):36}{cells}{ratios[1]:7.1f}×", flush=True)


def make_images(root: Path, count: int) -> None:
    """Render phantoms and save them as JPEGs of a size common among real images."""
    import numpy as np
    from PIL import Image

    from cxr_helpers.phantoms import rendering

    phantoms = rendering.render(n=count, size=128)
    np.save(root / "labels.npy", (phantoms.index["class_name"] != "normal").to_numpy(dtype=int))
    for number, image in enumerate(phantoms.images):
        Image.fromarray(image).resize((1400, 1100)).save(root / f"{number:05d}.jpeg", quality=90)


def measure(folder: Path, network: str, method: str, precision: str, *, size: int) -> dict:
    """Return images per second of training (without the first epoch) and of embedding."""
    import keras
    import numpy as np
    import pandas as pd

    from cxr_helpers.data import decoding
    from cxr_helpers.data.scans import Scan
    from cxr_helpers.models import architectures, augmentation, embeddings, training

    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(precision)
    labels = np.load(folder / "labels.npy")
    files = sorted(folder.glob("*.jpeg"))
    ours = network == "ours"
    if method == KERAS:
        architectures.BatchNormalization = keras.layers.BatchNormalization
    model = architectures.residual_cnn(size) if ours else architectures.binary_cnn(size)
    targets = keras.utils.to_categorical(labels, 3) if ours else labels[:, None].astype("float32")
    model.compile("adam", "categorical_crossentropy" if ours else "binary_crossentropy")
    if method == "naive":
        return naive(model, files, targets, size=size)

    epoch_ends: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        scan = Scan(folder, pd.DataFrame({"file": [f.name for f in files]}), pd.DataFrame())
        decoded = decoding.decode_all(scan, size, cache_dir=cache)[0]
        augment = augmentation.StrongAugmentation() if ours else augmentation.Augmentation()
        training.fit(
            model,
            decoded,
            targets,
            epochs=EPOCHS,
            batch_size=BATCH,
            seed=0,
            augmentation=augment,
            average=0.998 if ours else 0.0,
            log=lambda _: epoch_ends.append(time.perf_counter()),
        )
        embeddings.embed(model, decoded[:BATCH], layers=[architectures.EMBEDDING])
        start = time.perf_counter()
        embeddings.embed(model, decoded, layers=[architectures.EMBEDDING])
        embedding = len(files) / (time.perf_counter() - start)
    return {
        "training": len(files) * (EPOCHS - 1) / (epoch_ends[-1] - epoch_ends[0]),
        "embedding": embedding,
    }


def naive(model, files: list[Path], targets, *, size: int) -> dict:
    """Measure the loop of a course notebook: images are read in Python in every epoch."""
    import keras
    import numpy as np
    from PIL import Image, ImageOps

    from cxr_helpers.models import architectures

    rng = np.random.default_rng(0)

    def read(path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.convert("L").resize((size, size))

    def augmented(path: Path) -> np.ndarray:
        image = read(path).rotate(rng.uniform(-10, 10))
        shift = tuple(rng.integers(-size // 10, size // 10, 2))
        image = image.transform(
            image.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1])
        )
        image = ImageOps.mirror(image) if rng.random() < 0.5 else image
        return np.asarray(image, np.float32)[..., None] / 255

    epoch_ends = []
    for _ in range(EPOCHS):
        order = rng.permutation(len(files))
        for rows in np.array_split(order, -(-len(order) // BATCH)):
            model.train_on_batch(np.stack([augmented(files[i]) for i in rows]), targets[rows])
        epoch_ends.append(time.perf_counter())
    encoder = keras.Model(model.inputs, model.get_layer(architectures.EMBEDDING).output)
    subset = files[:100]  # one call per image is slow
    encoder.predict(np.zeros((1, size, size, 1)), verbose=0)
    start = time.perf_counter()
    for path in subset:
        image = np.asarray(read(path), np.float32)[None, ..., None] / 255
        encoder.predict(image, verbose=0)
    return {
        "training": len(files) * (EPOCHS - 1) / (epoch_ends[-1] - epoch_ends[0]),
        "embedding": len(subset) / (time.perf_counter() - start),
    }


if __name__ == "__main__":
    main()

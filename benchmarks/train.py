"""Time training and inference, in images a second, beside the loop of a course notebook.

    uv run benchmarks/train.py                 # the published binary network and ours
    uv run benchmarks/train.py --images 960 --size 128

Every line is a process of its own on the same made images, one after the other on the same
machine; the first epoch (compilation) is left out. The naive loop is what a course notebook
does: in each epoch every JPEG is opened, shrunk, turned, shifted and mirrored in Python, one by
one, and goes to ``train_on_batch``. The last lines time embeddings: one ``predict`` call an image,
decoded then and there, against batches from the memory-mapped cache. Ratios are against the
naive line of the same network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, EPOCHS = 32, 3
LINES = (
    ("binary", "naive", "float32"),
    ("binary", "project", "float32"),
    ("binary", "project", "mixed_bfloat16"),
    ("ours", "naive", "float32"),
    ("ours", "project", "float32"),
    ("ours", "project", "mixed_bfloat16"),
)


def main() -> None:
    """Measure each line in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=640, help="images of the made set")
    parser.add_argument("--size", type=int, default=128, help="working size in pixels")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, *line = options.child
        print(json.dumps(measure(Path(folder), *line, size=options.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images)
        print(
            f"{options.images} made images, {options.size} × {options.size} pixels, batch {BATCH}"
        )
        print(f"{'':36}{'training':>12}{'ratio':>8}{'embedding':>12}{'ratio':>8}   images a second")
        naive = {}
        for line in LINES:
            command = [sys.executable, __file__, "--size", str(options.size), "--child", folder]
            done = subprocess.run(
                [*command, *line], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            naive.setdefault(line[0], found)
            ratios = [found[k] / naive[line[0]][k] for k in ("training", "embedding")]
            cells = f"{found['training']:12.0f}{ratios[0]:7.1f}×{found['embedding']:12.0f}"
            print(f"{', '.join(line):36}{cells}{ratios[1]:7.1f}×", flush=True)


def make_images(root: Path, count: int) -> None:
    """Draw phantoms and save them as JPEGs of a common size of real images."""
    import numpy as np
    from PIL import Image

    from cxr_helpers.phantoms import rendering

    drawn = rendering.render(n=count, size=128)
    np.save(root / "labels.npy", (drawn.index["class_name"] != "normal").to_numpy(dtype=int))
    for number, image in enumerate(drawn.images):
        Image.fromarray(image).resize((1400, 1100)).save(root / f"{number:05d}.jpeg", quality=90)


def measure(folder: Path, network: str, way: str, precision: str, *, size: int) -> dict:
    """Return images a second of training (without the first epoch) and of embedding."""
    import keras
    import numpy as np
    import pandas as pd

    from cxr_helpers.data import decoding
    from cxr_helpers.data import folder as folders
    from cxr_helpers.models import architectures, augmentation, embeddings, training

    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(precision)
    labels = np.load(folder / "labels.npy")
    files = sorted(folder.glob("*.jpeg"))
    ours = network == "ours"
    model = architectures.residual_cnn(size) if ours else architectures.binary_cnn(size)
    targets = keras.utils.to_categorical(labels, 3) if ours else labels[:, None].astype("float32")
    model.compile("adam", "categorical_crossentropy" if ours else "binary_crossentropy")
    if way == "naive":
        return naive(model, files, targets, size=size)

    ends: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        scan = folders.Scan(folder, pd.DataFrame({"file": [f.name for f in files]}), pd.DataFrame())
        decoded = decoding.decode_all(scan, size, cache_dir=cache)[0]
        change = augmentation.StrongAugmentation() if ours else augmentation.Augmentation()
        training.fit(
            model,
            decoded,
            targets,
            epochs=EPOCHS,
            batch_size=BATCH,
            seed=0,
            augmentation=change,
            average=0.998 if ours else 0.0,
            log=lambda _: ends.append(time.perf_counter()),
        )
        embeddings.embed(model, decoded[:BATCH], layers=[architectures.EMBEDDING])
        start = time.perf_counter()
        embeddings.embed(model, decoded, layers=[architectures.EMBEDDING])
        embedding = len(files) / (time.perf_counter() - start)
    return {
        "training": len(files) * (EPOCHS - 1) / (ends[-1] - ends[0]),
        "embedding": embedding,
    }


def naive(model, files: list[Path], targets, *, size: int) -> dict:
    """Do it as course notebooks do: every image anew in every epoch, in Python."""
    import keras
    import numpy as np
    from PIL import Image, ImageOps

    from cxr_helpers.models import architectures

    draw = np.random.default_rng(0)

    def opened(path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.convert("L").resize((size, size))

    def changed(path: Path) -> np.ndarray:
        image = opened(path).rotate(draw.uniform(-10, 10))
        shift = tuple(draw.integers(-size // 10, size // 10, 2))
        image = image.transform(
            image.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1])
        )
        image = ImageOps.mirror(image) if draw.random() < 0.5 else image
        return np.asarray(image, np.float32)[..., None] / 255

    ends = []
    for _ in range(EPOCHS):
        order = draw.permutation(len(files))
        for rows in np.array_split(order, -(-len(order) // BATCH)):
            model.train_on_batch(np.stack([changed(files[i]) for i in rows]), targets[rows])
        ends.append(time.perf_counter())
    hidden = keras.Model(model.inputs, model.get_layer(architectures.EMBEDDING).output)
    few = files[:100]  # a call an image is slow
    hidden.predict(np.zeros((1, size, size, 1)), verbose=0)
    start = time.perf_counter()
    for path in few:
        image = np.asarray(opened(path), np.float32)[None, ..., None] / 255
        hidden.predict(image, verbose=0)
    return {
        "training": len(files) * (EPOCHS - 1) / (ends[-1] - ends[0]),
        "embedding": len(few) / (time.perf_counter() - start),
    }


if __name__ == "__main__":
    main()

"""Measure seconds and memory of each step of the report as the number of images grows.

    uv run benchmarks/scale.py --images 1500,6000,24000,112120
    uv run benchmarks/scale.py --images 6000,24000 --steps duplicates,save,scores

Each step is what a notebook calls, on phantoms of 128 pixels, in a process of its own. The
images are ``--drawn`` phantoms, each shown many times in another crop and tone, since drawing takes
longest by far; it is the step ``draw``, up to that number. Networks are untrained, except in the step
``train``, one epoch of two networks, which is left out above 24,000 images.

Printed are seconds, seconds of processor time, and the highest memory of the process in MB, without
("own") and with the mapped files, which the system takes back when it needs memory; then the slopes of
the logarithms of both times against that of the number of images: 1 is proportional. Other programs
disturb processor time less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas
VARIED = 1  # to be raised when other images are made of the drawn ones
TRAINED = 24_000  # images: with more, the step that trains is left out
STATUS = Path("/proc/self/status")  # Linux


def main() -> None:
    """Measure every step for every number of images; print a table and the slopes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", default="1500,6000", help="numbers of images")
    parser.add_argument(
        "--steps",
        default=",".join(STEPS),
        help=f"some of {', '.join(STEPS)} (most read what duplicates and save wrote to the folder)",
    )
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--drawn", type=int, default=1500, help="phantoms that are drawn at most")
    parser.add_argument("--folder", type=Path, help="for the images, kept; temporary by default")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = options.steps.split(",")
    if unknown := set(steps) - set(STEPS):
        parser.error(f"--steps: unknown {', '.join(sorted(unknown))}; expected {', '.join(STEPS)}")
    if options.child:
        step, n = options.child
        print(json.dumps(measured(STEPS[step], options.folder, int(n), options)))
        return
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="cxr-scale-")
        folder = options.folder or Path(stack.enter_context(temporary))
        folder /= f"{options.size} pixels, {options.drawn} drawn, recipe {VARIED}"
        numbers = [int(n) for n in options.images.split(",")]
        heads = f"{'seconds':>10}{'processor':>11}{'MB own':>9}{'MB mapped':>11}"
        print(f"{'step':12}{'images':>9}{heads}", flush=True)
        times: dict[str, dict[int, list[float]]] = {}
        for n in numbers:
            for step in ("images", *(step for step in STEPS if step in steps and step != "images")):
                if n > {"train": TRAINED, "draw": options.drawn}.get(step, n):
                    continue
                *spent, own, whole = run(step, n, folder, options)
                clock, processor = (f"{seconds:.1f}" for seconds in spent)
                print(
                    f"{step:12}{n:9,}{clock:>10}{processor:>11}{own:9,.0f}{whole:11,.0f}",
                    flush=True,
                )
                times.setdefault(step, {})[n] = spent
    for step, lines in times.items():
        if len(lines) > 1 and step != "images":
            clock, processor = slopes(lines)
            print(f"{step:12} slope {clock:.2f} of seconds, {processor:.2f} of processor time")


def run(step: str, n: int, folder: Path, options: argparse.Namespace) -> list[float]:
    """Run a step in a process of its own; return its times in seconds and its memory in MB."""
    command = [sys.executable, __file__, "--child", step, str(n), "--folder", str(folder)]
    command += ["--size", str(options.size), "--drawn", str(options.drawn)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{step} with {n} images ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def slopes(times: dict[int, list[float]]) -> np.ndarray:
    """Return slopes of straight lines through log times against log number of images."""
    return np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0]


def measured(step, folder: Path, n: int, options: argparse.Namespace) -> list[float]:
    """Return the times of a step, and its highest memory in MB without and with mapped files."""
    work = step(folder, n, options)  # imports, and reads what the step is given
    with own_memory() as own:
        start, used = time.perf_counter(), time.process_time()
        work()
        seconds, processor = time.perf_counter() - start, time.process_time() - used
    unit = 1 if sys.platform == "darwin" else 1024
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return [seconds, processor, max(own) / 1024 if own else whole, whole]


@contextmanager
def own_memory():
    """Record the process's memory without mapped files, in KB, every 20 ms; Linux only."""
    recorded: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            lines = dict(
                line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines()
            )
            recorded.append(int(lines["RssAnon"].split()[0]))

    thread = threading.Thread(target=watch, daemon=True)
    if STATUS.exists():
        thread.start()
    yield recorded
    stop.set()


def data(folder: Path, n: int):
    """Return ``n`` phantoms as chapter 1 saves them, mapped, from their folder."""
    from cxr_helpers.data import dataset

    return dataset.read(folder / f"{n}" / "saved")


def drawn_images(folder: Path, n: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Return ``n`` phantoms, mapped, and their index, before chapter 1."""
    images = np.load(folder / f"{n}" / "images.npy", mmap_mode="r")
    return images, pd.read_csv(folder / f"{n}" / "index.csv")


def images(folder: Path, n: int, options: argparse.Namespace):
    """Draw phantoms and vary them, into files: not a step of the report, except for drawing."""
    from cxr_helpers.data import ingestion
    from cxr_helpers.phantoms import rendering
    from cxr_helpers.system import array_files

    few = min(n, options.drawn)
    place = folder / f"{n}"
    source = folder / f"drawn-{few}"

    def make() -> None:
        if (place / "index.csv").exists():
            return
        place.mkdir(parents=True, exist_ok=True)
        if not (source / "index.csv").exists():
            source.mkdir(parents=True, exist_ok=True)
            ingestion._draw_into(source, options.size, n=few, seed=0)
        originals = np.load(source / "images.npy", mmap_mode="r")
        index = rendering.patient_list(n, seed=0)
        index["group"] = index["class_name"] + " " + index["patient"].astype(str)
        own = pd.read_csv(source / "index.csv")["class_name"]
        rows = {name: np.flatnonzero(own == name) for name in own.unique()}
        rng = np.random.default_rng(0)
        shape = (n, *originals.shape[1:])
        with array_files.appending(place / "images.npy", shape, np.uint8) as append:
            for name in index["class_name"]:
                append(varied(originals[rng.choice(rows[name])], rng))
        index.to_csv(place / "index.csv", index=False)

    return make


def varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return another crop of an image, of 80 % of its area or more, with another tone."""
    side = len(image)
    width, height = side * np.sqrt(rng.uniform(0.8, 1, 2))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    box = (left, top, left + width, top + height)
    if rng.random() < 0.5:  # mirrored
        box = (left + width, top, left, top + height)
    crop = Image.fromarray(image).transform(
        image.shape, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
    exponent, gain = np.exp(rng.uniform(-0.35, 0.35)), rng.uniform(0.7, 1)
    return (255 * gain * (np.asarray(crop) / 255) ** exponent).astype(np.uint8)


def draw(folder: Path, n: int, options: argparse.Namespace):
    """Draw phantoms into files, at most ``--drawn``, in an empty folder."""
    from cxr_helpers.data import ingestion

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            ingestion._draw_into(Path(place), options.size, n=min(n, options.drawn), seed=0)

    return work


def duplicates(folder: Path, n: int, options: argparse.Namespace):
    """Find duplicates, join patient groups by them, split off the validation images (chapter 1)."""
    import scipy.spatial  # noqa: F401 (loaded before the clock starts, as is the next)
    import sklearn.model_selection  # noqa: F401

    from cxr_helpers.data import duplicates, splits

    pictures, index = drawn_images(folder, n)

    def work() -> None:
        pairs = duplicates.find(pictures, index)
        index["cluster"] = splits.clusters(index["group"], pairs)
        rows = np.flatnonzero(index["split"] == "train")
        train = index.iloc[rows]
        index.loc[rows, "split"] = splits.validation_splits(
            *(train["group"], train["class_name"]),
            together=train["cluster"],
            validation=0.1,
            contiguous=0.1,
            selection="validation",
            seed=0,
        )
        index["width"] = index["height"] = options.size
        index.to_csv(folder / f"{n}" / "split.csv", index=False)

    return work


def save(folder: Path, n: int, _options: argparse.Namespace):
    """Let untrained border networks predict, and save all images (chapter 1)."""
    from cxr_helpers.data import dataset, decoding
    from cxr_helpers.shortcuts import border

    pictures, _ = drawn_images(folder, n)
    index = pd.read_csv(folder / f"{n}" / "split.csv")
    networks = [border.network(3) for _ in range(2)]

    saved = folder / f"{n}" / "saved"

    def write(name: str, function: Callable, *arguments, **keywords) -> None:
        function(saved / name, *arguments, **keywords)

    def work() -> None:
        saved.mkdir(exist_ok=True)
        small = decoding.shrink(pictures, border.SIZE, rows=np.arange(n))
        columns = [f"border_{name}" for name in ("normal", "bacterial", "viral")]
        index[columns] = border.predict(networks, small, centre_share=0.68)
        facts = {"name": "phantoms", "synthetic": True, "fingerprint": ""}
        dataset.save(
            SimpleNamespace(folder=saved, save=write), pictures, index, facts, rows=np.arange(n)
        )

    return work


def train(folder: Path, n: int, _options: argparse.Namespace):
    """Train the border network and the published binary network for one epoch (1 and 2)."""
    import keras

    from cxr_helpers.data import decoding
    from cxr_helpers.models import architectures, training
    from cxr_helpers.shortcuts import border

    part = data(folder, n)["train"]

    def work() -> None:
        small = decoding.shrink(part.images, border.SIZE)
        groups = part.index["group"].to_numpy()
        settings = {"classes": 3, "centre_share": 0.68, "epochs": 1, "folds": 2, "seed": 0}
        border.cross_fit(small, part.category, groups, **settings)
        model = architectures.binary_cnn(part.images.shape[1])
        model.compile(keras.optimizers.Adam(), "binary_crossentropy")
        targets = part.pneumonia[:, None]
        training.fit(model, part.images, targets, epochs=1, batch_size=32, seed=0)

    return work


def predict(folder: Path, n: int, _options: argparse.Namespace):
    """Let two networks predict every image, one of them reconstruct it (chapters 2 to 4)."""
    from cxr_helpers.anomaly import reconstruction
    from cxr_helpers.models import architectures, training

    pictures = data(folder, n).images
    binary, autoencoder = (
        build(pictures.shape[1]) for build in (architectures.binary_cnn, architectures.autoencoder)
    )

    def work() -> None:
        training.predict(binary, pictures)
        reconstruction.reconstruction_error(autoencoder, pictures)

    return work


def scores(folder: Path, n: int, _options: argparse.Namespace):
    """Score a row on every split, with intervals and shortcut groups (every chapter)."""
    from cxr_helpers.evaluation import scorecard

    radiographs = data(folder, n)
    y_prob = np.random.default_rng(0).random(n)

    def work() -> None:
        with radiographs.evaluation():
            card = scorecard.Scorecard(radiographs)
            card.binary("row", y_pred=(y_prob > 0.5).astype(int), y_prob=y_prob)

    return work


def normals(folder: Path, n: int, _options: argparse.Namespace):
    """Measure the distance of all other images from normal training images (chapter 4)."""
    from cxr_helpers.anomaly import novelty, texture
    from cxr_helpers.models import sampling

    radiographs = data(folder, n)
    train = radiographs["train"]
    normal = train.where(train.pneumonia == 0)
    others = radiographs.index["split"].to_numpy() != "train"

    def work() -> None:
        references = normal.where(sampling.subsample(len(normal), of=n, seed=0))
        detector = novelty.nearest_normals(texture.band_energies(references.images))
        detector.score(texture.band_energies(radiographs.images[others]))

    return work


def neighbours(folder: Path, n: int, _options: argparse.Namespace):
    """Embed all images by the autoencoder's code and vote among training images (chapter 5)."""
    from cxr_helpers.models import architectures, embeddings, knn, sampling

    radiographs = data(folder, n)
    in_train = radiographs.index["split"].to_numpy() == "train"
    network = architectures.autoencoder(radiographs.images.shape[1])
    layer, labels = architectures.CODE, radiographs["train"].pneumonia

    def work() -> None:
        pool = 8 if n > sampling.MANY else None
        points = embeddings.embed(network, radiographs.images, layers=[layer], pool=pool)[layer]
        voters = sampling.subsample(in_train.sum(), of=n, seed=0)
        vote = knn.classifier(points[in_train][voters], labels[voters], k=5)
        vote.predict_proba(points[~in_train])

    return work


def experiments(folder: Path, n: int, _options: argparse.Namespace):
    """Find, erase and exchange the letters of test images, and score these (chapter 7)."""
    from cxr_helpers.explain import explained, interventions, markers
    from cxr_helpers.models import architectures, sampling

    radiographs = data(folder, n)
    test = radiographs["test"]
    sampled = sampling.subsample(len(test), of=n, seed=0, most=sampling.EXPLAINED)
    network = architectures.binary_cnn(radiographs.images.shape[1])

    def work() -> None:
        images = test.where(sampled).images
        letters = markers.find(images)
        others = np.roll(np.arange(len(images)), 1)
        changed = (
            interventions.erased(images, letters),
            interventions.erased(images, letters[:, :, ::-1]),
            interventions.transplanted(images, letters, others),
        )
        every = np.ones(len(images), dtype=bool)
        interventions.effects(
            explained.explained_by(network, "conv4"),
            images,
            {str(number): (every, images, after) for number, after in enumerate(changed)},
        )

    return work


def maps(folder: Path, n: int, _options: argparse.Namespace):
    """Draw a t-SNE map of at most 1,500 images and measure its trustworthiness (chapter 6)."""
    from sklearn.manifold import TSNE, trustworthiness
    from threadpoolctl import threadpool_limits

    points = np.random.default_rng(0).normal(size=(n, 50)).astype(np.float32)

    def work() -> None:
        shown = points[np.random.default_rng(0).permutation(n)[:1500]]
        with threadpool_limits(1, user_api="openmp"):  # as the notebook, see benchmarks/tsne.py
            plane = TSNE(init="pca", random_state=0).fit_transform(shown)
        trustworthiness(shown, plane, n_neighbors=10)

    return work


STEPS = {
    step.__name__: step
    for step in (
        *(images, draw, duplicates, save, train, predict, scores),
        *(normals, neighbours, experiments, maps),
    )
}

if __name__ == "__main__":
    main()

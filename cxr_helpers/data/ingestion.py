"""The images of any source in one form: pixels, index, and the files that were left out."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.data import class_names, decoding, layouts, scans, sources, splits
from cxr_helpers.data.dataset import SPLITS, Dataset
from cxr_helpers.data.sources import PHANTOM, Source
from cxr_helpers.system import array_files, digests, files, portable
from cxr_helpers.system.errors import DataError

DECODED = "decoded"  # folder of the cache
DRAWN = {"images": np.uint8, "lesion_masks": bool, "lung_masks": bool}  # of phantoms
IN_MEMORY = 20_000  # phantoms: more are drawn into files
TEST_FRACTION = 0.25  # of a dataset without test images


@dataclass(frozen=True)
class ImageSet:
    """Images of a source, before validation splits are assigned.

    Attributes
    ----------
    name : str
        The name of the data in the report.
    synthetic : bool
        Whether they are phantoms.
    fingerprint : str
        SHA-256 of the contents.
    images : ndarray of uint8, shape (n, size, size)
    index : pandas.DataFrame
        One row per image: ``file``, ``split`` (train or test), ``class_name``, ``group``,
        ``width``, ``height``, ``mode``.
    ignored, unreadable : pandas.DataFrame
        Files that were not used: ``file``, ``reason``.
    truth : mapping of name to ndarray, shape (n, ...)
        Ground truth of phantoms: ``lesion_masks`` and ``lung_masks``.
    test_from_train : bool
        Whether there were no test images, so that a quarter of the training images, in whole
        patient groups, was assigned to test; the assignment does not depend on the seed.
    decoded : str
        Name of the entry below ``DECODED`` in the cache that holds the images; empty for phantoms
        that are in memory.
    detail : ndarray of uint8, shape (n, larger, larger), or None
        The same images at a larger size, to take crops of; None where there is none.
    """

    name: str
    synthetic: bool
    fingerprint: str
    images: np.ndarray
    index: pd.DataFrame
    ignored: pd.DataFrame
    unreadable: pd.DataFrame
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    test_from_train: bool = False
    decoded: str = ""
    detail: np.ndarray | None = None


def identify(source: Source) -> tuple[str, int | None]:
    """Return fingerprint and number of the images of a source; none is decoded.

    The fingerprint is of the files, with their names, classes, folders and groups. The number of
    phantoms is a parameter: None is returned for it.

    Raises
    ------
    DataError
        If the images are not in a usable layout; the message names an archive by its own path.
    """
    if source.located == PHANTOM:
        return PHANTOM, None
    try:
        scan = layouts.scan(source.located)
    except DataError as error:
        raise DataError(str(error).replace(source.located, source.path)) from error
    described = decoding.digest_each(scan)
    for name in scans.COLUMNS:
        described = described + " " + scan.files[name].astype(str)
    return decoding.fingerprint(described), len(scan.files)


def read(
    data: str,
    *,
    size: int,
    framing: str,
    cache_dir: str | Path,
    detail_size: int = 0,
    phantom_options: Mapping[str, object],
    cached: Callable | None = None,
) -> ImageSet:
    """Return the images of a source at the working size.

    Parameters
    ----------
    data : str
        As for ``sources.find``.
    size : int
        Height and width in pixels.
    framing : str
        How an image is made square, see ``decoding.decode``.
    cache_dir : path
        Where decoded images are kept between runs.
    detail_size : int
        Height and width of ``detail``; phantoms, and sizes up to ``size``, have none.
    phantom_options : mapping
        Passed to ``rendering.render`` where phantoms are drawn.
    cached : callable, optional
        Calls a function with the given arguments, or returns the result of an earlier call, such
        as ``Stage.cached``: phantoms are then drawn once.

    Raises
    ------
    DataError
        If the data cannot be used.
    """
    nothing = pd.DataFrame(columns=["file", "reason"])
    if data == PHANTOM:
        drawn, decoded = _drawn(size, phantom_options, Path(cache_dir) / DECODED, cached)
        index = _grouped(drawn["index"]).assign(width=size, height=size, mode="L")
        truth = {name: drawn[name] for name in ("lesion_masks", "lung_masks")}
        pixels = drawn["images"]
        return ImageSet(
            *("phantoms", True, _digest(pixels), pixels, index, nothing, nothing, truth),
            decoded=decoded,
        )
    scan = layouts.scan(sources.fetch(data, cache_dir=cache_dir).located)
    with digests.cached(Path(cache_dir)):
        decoded, table, unreadable = decoding.decode_all(
            scan, max(size, detail_size), framing=framing, cache_dir=Path(cache_dir) / DECODED
        )
    detail = decoded if detail_size > size else None
    pixels = decoded if detail is None else decoding.at_size(decoded, size)
    index, test_from_train = _assigned(table)
    return ImageSet(
        scan.root.name,
        False,
        decoding.fingerprint(table["sha256"]),
        pixels,
        index,
        scan.ignored,
        unreadable,
        test_from_train=test_from_train,
        # on Windows images are in memory, and their entry is not known
        decoded=Path(decoded.filename).parent.name if isinstance(decoded, np.memmap) else "",
        detail=detail,
    )


def _drawn(
    size: int, options: Mapping[str, object], cache_dir: Path, cached: Callable | None
) -> tuple[Mapping[str, np.ndarray | pd.DataFrame], str]:
    """Return the arrays and the index of phantoms, and the cache entry that holds them.

    Above ``IN_MEMORY`` they are drawn into files of the cache, and memory-mapped.
    """
    from cxr_helpers.phantoms import rendering  # imports SciPy, which takes a second

    if options["n"] <= IN_MEMORY:
        draw = rendering.render_arrays
        return (draw if cached is None else partial(cached, draw))(size=size, **options), ""
    modules = sorted(Path(rendering.__file__).parent.glob("*.py"))
    code = [digests.sha256_of_file(module) for module in modules]
    libraries = [metadata.version(name) for name in ("numpy", "scipy", "pillow")]
    key = digests.sha256_of_json([dict(options), size, libraries, code])[:32]
    entry = cache_dir / key
    with contextlib.suppress(OSError, ValueError, EOFError):  # missing or damaged
        return _read_drawn(entry), key
    shutil.rmtree(entry, ignore_errors=True)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with files.temporary_folder(cache_dir) as work:
        _draw_into(work, size, **options)
        portable.publish_folder(work, entry)
    return _read_drawn(entry), key


def _read_drawn(entry: Path) -> dict[str, np.ndarray | pd.DataFrame]:
    """Return phantoms from their cache entry."""
    arrays = {name: portable.load_array(entry / f"{name}.npy") for name in DRAWN}
    return {"index": pd.read_csv(entry / "index.csv")} | arrays


def _draw_into(folder: Path, size: int, *, n: int, seed: int, **options: float) -> None:
    """Draw phantoms into the files of ``DRAWN`` and ``index.csv``."""
    from cxr_helpers.phantoms import rendering

    index, facts = rendering.patient_list(n, seed=seed), []
    with contextlib.ExitStack() as stack:
        appends = [
            stack.enter_context(
                array_files.appending(folder / f"{name}.npy", (n, size, size), kind)
            )
            for name, kind in DRAWN.items()
        ]
        for *pictures, fact in rendering.stream(index, size=size, seed=seed, **options):
            facts.append(fact)
            for append, picture in zip(appends, pictures, strict=True):
                append(picture)
    pd.concat([index, pd.DataFrame(facts)], axis=1).to_csv(folder / "index.csv", index=False)


def preview(located: str, *, n_phantoms: int, seed: int) -> pd.DataFrame:
    """Return an index of located images before any is decoded or drawn.

    Returns
    -------
    pandas.DataFrame
        One row per image: ``split`` (train or test), ``class_name``, ``group``; without training
        images whose group also occurs in test, which are never trained on.
    """
    if located == PHANTOM:
        from cxr_helpers.phantoms import rendering

        return _grouped(rendering.patient_list(n_phantoms, seed=seed))
    index, _ = _assigned(layouts.scan(located).files)
    test = index["split"] == "test"
    return index[test | ~index["group"].isin(index.loc[test, "group"])]


def notes(located: str) -> list[str]:
    """Return what a user must know about located images, as sentences."""
    if located == PHANTOM:
        return []
    files = layouts.scan(located).files
    _, reason = class_names.distinguishable(files.assign(split=files["folder"]))
    return class_names.notes(files, reason)


def _grouped(index: pd.DataFrame) -> pd.DataFrame:
    """Return phantoms with their patient ``group``, as ``layouts.scan`` names it."""
    return index.assign(group=index["class_name"] + " " + index["patient"].astype(str))


def _assigned(files: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return images with their ``split``, and whether test was split off train.

    Kaggle's val has 16 images: too few to select anything on, so they join train.
    """
    index = files.assign(split=files["folder"].replace("val", "train"))
    test_from_train = not (index["split"] == "test").any()
    if test_from_train:
        held = splits.validation_mask(
            index["group"], index["class_name"], fraction=TEST_FRACTION, seed=0
        )
        index.loc[held, "split"] = "test"
    return index, test_from_train


def as_test(source: ImageSet, earlier: Dataset, *, cache_dir: str | Path) -> ImageSet:
    """Return new test images with the training and validation images of an earlier run.

    Parameters
    ----------
    source : ImageSet
        Its test images are used; where it had none, or is phantoms, all its images.
    earlier : Dataset
        Its images of train and both validation splits are kept, in their splits.
    cache_dir : path
        For a temporary file, where they are too many for the memory.

    Raises
    ------
    DataError
        If the images differ in size, in pixels.
    """
    if source.images.shape[1] != earlier.images.shape[1]:
        raise DataError(
            f"images of {source.images.shape[1]} pixels cannot be scored by models for "
            f"images of {earlier.images.shape[1]} pixels"
        )
    new = np.full(len(source.index), True)
    if not (source.test_from_train or source.synthetic):
        new = (source.index["split"] == "test").to_numpy()
    kept = [earlier[name] for name in SPLITS if name != "test" and len(earlier[name])]
    index = pd.concat([*(part.index for part in kept), source.index[new].assign(split="test")])

    def joined(old: list[np.ndarray], images: np.ndarray) -> np.ndarray:
        side, blocks = old[0].shape[1], itertools.chain(*map(_blocks, old), _blocks(images, new))
        resized = (b if b.shape[1] == side else decoding.resize(b, side) for b in blocks)
        shape = (len(index), side, side)
        return array_files.gathered(resized, shape, np.uint8, folder=Path(cache_dir))

    detail = None
    if earlier.facts.get("detail_size"):
        larger = source.images if source.detail is None else source.detail
        detail = joined([part.detail for part in kept], larger)
    return replace(
        source,
        name=f"{source.name}, scored by the models of {earlier.facts['name']}",
        synthetic=source.synthetic or earlier.synthetic,
        images=joined([part.images for part in kept], source.images),
        detail=detail,
        index=index.reset_index(drop=True),
        truth={},
        test_from_train=False,
    )


def _blocks(images: np.ndarray, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield images, or the chosen ones, a part at a time."""
    for part in array_files.parts(images):
        yield images[part] if chosen is None else images[part][chosen[part]]


def _digest(images: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in array_files.parts(images):
        digest.update(np.ascontiguousarray(images[part]))
    return digest.hexdigest()

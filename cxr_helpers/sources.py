"""The films of a source, whatever its kind, in one form: pixels, index, what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers import digests, folder, images, naming, origins, splits
from cxr_helpers.dataset import SPLITS, Dataset
from cxr_helpers.origins import PHANTOM, Origin

DECODED = "decoded"  # folder of the cache
TEST_FRACTION = 0.25  # of a folder that has no test of its own


@dataclass(frozen=True)
class Source:
    """Films as they came, before a validation split is cut.

    Attributes
    ----------
    name : str
        What the report calls the data.
    synthetic : bool
        Whether they are phantoms.
    fingerprint : str
        Of the contents.
    images : ndarray of uint8, shape (n, size, size)
    index : pandas.DataFrame
        A row a film: ``file``, ``split`` (train or test), ``class_name``, ``group``,
        ``width``, ``height``, ``mode``.
    ignored, unreadable : pandas.DataFrame
        Files that were not used: ``file``, ``reason``.
    truth : mapping of name to ndarray, shape (n, ...)
        What phantoms know of themselves: ``lesion_masks`` and ``lung_masks``.
    cut_test : bool
        Whether there was no test folder, so that a quarter of the films, in whole patient
        groups, was cut from train for it, the same for every seed.
    decoded : str
        Name of the entry, below ``DECODED`` in the cache, that holds the images; empty where they
        were drawn.
    """

    name: str
    synthetic: bool
    fingerprint: str
    images: np.ndarray
    index: pd.DataFrame
    ignored: pd.DataFrame
    unreadable: pd.DataFrame
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    cut_test: bool = False
    decoded: str = ""


def identify(origin: Origin) -> tuple[str, int | None]:
    """Return content fingerprint and number of located films, without decoding one.

    The number of phantoms is a parameter's: None.

    Raises
    ------
    folder.DataError
        If there is no usable layout of films; an archive is named, not where it was unpacked to.
    """
    if origin.located == PHANTOM:
        return PHANTOM, None
    try:
        scan = folder.scan(origin.located)
    except folder.DataError as error:
        raise folder.DataError(str(error).replace(origin.located, origin.path)) from error
    return images.fingerprint(images.digest_each(scan) + scan.files["file"]), len(scan.files)


def read(
    data: str,
    *,
    size: int,
    framing: str,
    cache_dir: str | Path,
    phantom_options: Mapping[str, object],
    cached: Callable | None = None,
) -> Source:
    """Return the films of a source at the working size.

    Parameters
    ----------
    data : str
        As for ``origins.find``.
    size : int
        Height and width in pixels.
    framing : str
        How a film is made square, see ``images.decode``.
    cache_dir : path
        Where decoded films are kept between runs.
    phantom_options : mapping
        Passed to ``phantoms.phantoms`` where phantoms are drawn.
    cached : callable, optional
        Takes a function and its arguments, returns what it returns, such as ``Stage.cached``: so
        that phantoms are not drawn twice.

    Raises
    ------
    folder.DataError
        If the data cannot be used.
    """
    nothing = pd.DataFrame(columns=["file", "reason"])
    if data == PHANTOM:
        from cxr_helpers import phantoms  # SciPy: a second that no other source needs

        draw = phantoms.drawn if cached is None else partial(cached, phantoms.drawn)
        drawn = draw(size=size, **phantom_options)
        index = _grouped(drawn["index"]).assign(width=size, height=size, mode="L")
        truth = {name: drawn[name] for name in ("lesion_masks", "lung_masks")}
        pixels = drawn["images"]
        return Source("phantoms", True, _digest(pixels), pixels, index, nothing, nothing, truth)
    scan = folder.scan(origins.fetch(data, cache_dir=cache_dir).located)
    with digests.remembered(Path(cache_dir)):
        pixels, table, unreadable = images.decode_all(
            scan, size, framing=framing, cache_dir=Path(cache_dir) / DECODED
        )
    index, cut_test = _assigned(table)
    return Source(
        scan.root.name,
        False,
        images.fingerprint(table["sha256"]),
        pixels,
        index,
        scan.ignored,
        unreadable,
        cut_test=cut_test,
        decoded=Path(pixels.filename).parent.name,
    )


def foreseen(located: str, *, n_phantoms: int, seed: int) -> pd.DataFrame:
    """Return what is known of located films before one is decoded or drawn.

    Returns
    -------
    pandas.DataFrame
        A row a film: ``split`` (train or test), ``class_name``, ``group``; without training films
        whose group test has too, which are never learnt from.
    """
    if located == PHANTOM:
        from cxr_helpers import phantoms

        return _grouped(phantoms.roster(n_phantoms, seed=seed))
    index, _ = _assigned(folder.scan(located).files)
    test = index["split"] == "test"
    return index[test | ~index["group"].isin(index.loc[test, "group"])]


def remarks(located: str) -> list[str]:
    """Return what is to be said of located films before they are decoded, a sentence each."""
    if located == PHANTOM:
        return []
    files = folder.scan(located).files
    _, reason = naming.classes(files.assign(split=files["folder"]))
    return naming.remarks(files, reason)


def _grouped(index: pd.DataFrame) -> pd.DataFrame:
    """Return phantoms with their patient ``group``, as ``folder.scan`` names it."""
    return index.assign(group=index["class_name"] + " " + index["patient"].astype(str))


def _assigned(files: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return films with their ``split``, and whether test was cut from train.

    Kaggle's val holds 16 films: too few to choose anything by, so they join train.
    """
    index = files.assign(split=files["folder"].replace("val", "train"))
    cut_test = not (index["split"] == "test").any()
    if cut_test:
        held = splits.validation_mask(
            index["group"], index["class_name"], fraction=TEST_FRACTION, seed=0
        )
        index.loc[held, "split"] = "test"
    return index, cut_test


def as_test(source: Source, earlier: Dataset) -> Source:
    """Return a source whose test films are new and whose other films are an earlier run's.

    Parameters
    ----------
    source : Source
        Its test films are taken; all its films, where it had no test folder or is phantoms.
    earlier : Dataset
        Its films in train and both validation splits are kept, in their splits.

    Raises
    ------
    folder.DataError
        If the films are not of the same size in pixels.
    """
    if source.images.shape[1] != earlier.images.shape[1]:
        raise folder.DataError(
            f"films of {source.images.shape[1]} pixels cannot be scored by models of "
            f"{earlier.images.shape[1]}"
        )
    new = np.full(len(source.index), True)
    if not (source.cut_test or source.synthetic):
        new = (source.index["split"] == "test").to_numpy()
    kept = [earlier[name] for name in SPLITS if name != "test" and len(earlier[name])]
    index = pd.concat([*(part.index for part in kept), source.index[new].assign(split="test")])
    return replace(
        source,
        name=f"{source.name}, scored by the models of {earlier.facts['name']}",
        synthetic=source.synthetic or earlier.synthetic,
        images=np.concatenate([*(part.images for part in kept), source.images[new]]),
        index=index.reset_index(drop=True),
        truth={},
        cut_test=False,
    )


def _digest(films: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(films)).hexdigest()

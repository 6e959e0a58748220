"""Where the films come from: embedded phantoms, or a folder of real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers import folder, images, phantoms

PHANTOM = "phantom"


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
    """

    name: str
    synthetic: bool
    fingerprint: str
    images: np.ndarray
    index: pd.DataFrame
    ignored: pd.DataFrame
    unreadable: pd.DataFrame
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)


def identify(data: str) -> tuple[str, str]:
    """Return name and content fingerprint of the data, without decoding an image.

    Raises
    ------
    folder.DataError
        If ``data`` is neither ``"phantom"`` nor a usable folder.
    """
    if data == PHANTOM:
        return PHANTOM, PHANTOM
    scan = folder.scan(data)
    return scan.root.name, images.fingerprint(images.digests(scan) + scan.files["file"])


def read(
    data: str, *, size: int, cache_dir: str | Path, phantom_options: Mapping[str, object]
) -> Source:
    """Return the films of a source at the working size.

    Parameters
    ----------
    data : str
        ``"phantom"``, or the path of a folder (see ``folder.scan``).
    size : int
        Height and width in pixels.
    cache_dir : path
        Where decoded films are kept between runs.
    phantom_options : mapping
        Passed to ``phantoms.phantoms`` where phantoms are drawn.

    Raises
    ------
    folder.DataError
        If the data cannot be used.
    """
    nothing = pd.DataFrame(columns=["file", "reason"])
    if data == PHANTOM:
        drawn = phantoms.phantoms(size=size, **phantom_options)
        index = drawn.index.assign(
            group=drawn.index["class_name"] + " " + drawn.index["patient"].astype(str),
            width=size,
            height=size,
            mode="L",
        )
        truth = {"lesion_masks": drawn.lesion_masks, "lung_masks": drawn.lung_masks}
        return Source("phantoms", True, PHANTOM, drawn.images, index, nothing, nothing, truth)
    scan = folder.scan(data)
    pixels, table, unreadable = images.decode_all(scan, size, cache_dir=cache_dir)
    # Kaggle's val holds 16 films: too few to choose anything by, so they join train
    index = table.assign(split=table["folder"].replace("val", "train"))
    return Source(
        scan.root.name,
        False,
        images.fingerprint(table["sha256"]),
        pixels,
        index,
        scan.ignored,
        unreadable,
    )

"""What ``--data`` names: found without fetching or writing anything, then fetched or unpacked."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from cxr_helpers.data import archives, downloads, layouts
from cxr_helpers.system import errors
from cxr_helpers.system.errors import DataError

PHANTOM, KAGGLE, MENDELEY = "phantom", "kaggle", "mendeley"


@dataclass(frozen=True)
class Source:
    """Where images come from.

    Attributes
    ----------
    name : str
        What a run of these images is named after.
    location : str
        Resolved path of a folder or an archive, or the word itself: tells two of a name apart.
    located : str, optional
        ``"phantom"``, or the folder of the images; None where they are not here yet.
    pending : str
        What must be done first where they are not here, such as ``"unpack images.zip"``.
    disk_space : (Path, int), optional
        Where that takes how many bytes.
    """

    name: str
    location: str
    located: str | None
    pending: str = ""
    disk_space: tuple[Path, int] | None = None

    @property
    def path(self) -> str:
        """Where the images, or the archive of them, are."""
        return self.location if os.path.isabs(self.location) else self.located or self.location


def find(data: str, *, cache_dir: str | Path) -> Source:
    """Return what ``--data`` names; nothing is fetched, unpacked or written.

    Parameters
    ----------
    data : str
        ``"phantom"``, ``"kaggle"``, ``"mendeley"``, or the path of a folder or an archive.
    cache_dir : path
        Where downloads and unpacked archives are kept.

    Raises
    ------
    DataError
        If ``data`` is none of these.
    """
    if data == PHANTOM:
        return Source(PHANTOM, PHANTOM, PHANTOM)
    if data == KAGGLE:
        return _kaggle()
    if data == MENDELEY:
        return _mendeley(Path(cache_dir))
    if not data.strip():
        raise DataError("--data is empty: expected a folder, a file, phantom, kaggle or mendeley")
    path = Path(data).resolve()
    if os.path.isfile(path) and layouts.recognise(path) is None:
        return _archive(path, cache_dir)
    if not (os.path.isfile(path) or os.path.isdir(path)):
        hint = errors.did_you_mean(data, (PHANTOM, KAGGLE, MENDELEY))
        raise DataError(
            f"--data {data!r} does not exist: expected a folder, a .zip, .tar, .tar.gz or .npz, "
            f"{PHANTOM}, {KAGGLE} or {MENDELEY}{hint}"
        )
    root, _ = layouts.find(path)
    return Source(root.stem if os.path.isfile(root) else root.name, str(root), str(root))


def _kaggle() -> Source:
    if folder := downloads.kaggle_cached():
        return Source(KAGGLE, KAGGLE, str(folder))
    size = downloads.KAGGLE_BYTES
    pending = f"download {size / 1e9:.1f} GB from Kaggle"
    room = None if downloads.is_mounted() else (downloads.kaggle_cache(), 2 * size)
    return Source(KAGGLE, KAGGLE, None, pending, room)


def _mendeley(cache_dir: Path) -> Source:
    if archive := downloads.mendeley_cached(cache_dir=cache_dir):
        return replace(_archive(archive, cache_dir), name=MENDELEY, location=MENDELEY)
    size = downloads.MENDELEY_BYTES
    pending = f"download {size / 1e9:.1f} GB from Mendeley Data and unpack them"
    return Source(MENDELEY, MENDELEY, None, pending, (cache_dir, 2 * size))


def _archive(path: Path, cache_dir: str | Path) -> Source:
    folder = archives.place(path, cache_dir=cache_dir)
    located = str(folder) if folder.is_dir() else None
    # images hardly shrink: unpacked they take about as much as packed
    room = Path(cache_dir), path.stat().st_size
    return Source(archives.stem(path), str(path), located, f"unpack {path.name}", room)


def fetch(data: str, *, cache_dir: str | Path) -> Source:
    """Return what ``--data`` names with its images, downloaded and unpacked if need be.

    Raises
    ------
    DataError
        If ``data`` names nothing, or it cannot be had.
    """
    origin = find(data, cache_dir=cache_dir)
    if origin.located is not None:
        return origin
    if data == KAGGLE:
        return replace(origin, located=str(downloads.kaggle()))
    path = Path(data).resolve()
    if data == MENDELEY:
        path = downloads.mendeley(cache_dir=cache_dir)
    return replace(origin, located=str(archives.unpack(path, cache_dir=cache_dir)))

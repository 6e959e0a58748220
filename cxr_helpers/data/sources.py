"""What ``--data`` names: found without a download or a write, then downloaded or unpacked."""

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
        The name that a run of these images begins with.
    location : str
        Resolved path of a folder or file, or the word itself: distinguishes two of one name.
    located : str, optional
        ``"phantom"``, or the path of the images; None where they are not available yet.
    pending : str
        What makes them available, such as ``"unpack images.zip"``.
    disk_space : (Path, int), optional
        Folder and number of bytes that this needs.
    """

    name: str
    location: str
    located: str | None
    pending: str = ""
    disk_space: tuple[Path, int] | None = None

    @property
    def is_real(self) -> bool:
        """Whether the images are not phantoms."""
        return self.location != PHANTOM

    @property
    def path(self) -> str:
        """Path of the images, or of their archive."""
        return self.location if os.path.isabs(self.location) else self.located or self.location


def find(data: str, *, cache_dir: str | Path) -> Source:
    """Return what ``--data`` names; nothing is downloaded, unpacked or written.

    Parameters
    ----------
    data : str
        ``"phantom"``, ``"kaggle"``, ``"mendeley"``, or the path of a folder, an archive or a file
        of one of the ``layouts``.
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
    path = Path(os.path.realpath(data))
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
    space = None if downloads.is_mounted() else (downloads.kaggle_cache(), 2 * size)
    return Source(KAGGLE, KAGGLE, None, pending, space)


def _mendeley(cache_dir: Path) -> Source:
    if archive := downloads.mendeley_cached(cache_dir=cache_dir):
        return replace(_archive(archive, cache_dir), name=MENDELEY, location=MENDELEY)
    size = downloads.MENDELEY_BYTES
    pending = f"download {size / 1e9:.1f} GB from Mendeley Data and unpack them"
    return Source(MENDELEY, MENDELEY, None, pending, (cache_dir, 2 * size))


def _archive(path: Path, cache_dir: str | Path) -> Source:
    folder = archives.place(path, cache_dir=cache_dir)
    located = str(folder) if folder.is_dir() else None
    # images are hardly compressible: unpacked they take about as much space as packed
    space = Path(cache_dir), path.stat().st_size
    return Source(archives.stem(path), str(path), located, f"unpack {path.name}", space)


def fetch(data: str, *, cache_dir: str | Path) -> Source:
    """Return what ``--data`` names, after its images were downloaded or unpacked if need be.

    Raises
    ------
    DataError
        If ``data`` names nothing, or its images cannot be downloaded or unpacked.
    """
    source = find(data, cache_dir=cache_dir)
    if source.located is not None:
        return source
    if data == KAGGLE:
        return replace(source, located=str(downloads.kaggle()))
    path = Path(os.path.realpath(data))
    if data == MENDELEY:
        path = downloads.mendeley(cache_dir=cache_dir)
        try:
            return replace(source, located=str(archives.unpack(path, cache_dir=cache_dir)))
        except archives.Damaged as error:  # its length was right
            path.unlink(missing_ok=True)
            reason = str(error).removesuffix("; download it again")
            raise DataError(
                f"{reason}: it was removed; the same command downloads it again"
            ) from error
    return replace(source, located=str(archives.unpack(path, cache_dir=cache_dir)))

"""What ``--data`` names: found without fetching or writing anything, then fetched or unpacked."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from cxr_helpers import archives, atomic, downloads, layout, parameters
from cxr_helpers.layout import DataError

PHANTOM, KAGGLE, MENDELEY = "phantom", "kaggle", "mendeley"
RECORD = "origin.json"  # in a run's folder


@dataclass(frozen=True)
class Origin:
    """Where films come from.

    Attributes
    ----------
    name : str
        What a run of these films is named after.
    whence : str
        Resolved path of a folder or an archive, or the word itself: tells two of a name apart.
    located : str, optional
        ``"phantom"``, or the folder of the films; None where they are not here yet.
    todo : str
        What must be done first where they are not here, such as ``"unpack films.zip"``.
    room : (Path, int), optional
        Where that takes how many bytes.
    """

    name: str
    whence: str
    located: str | None
    todo: str = ""
    room: tuple[Path, int] | None = None

    @property
    def path(self) -> str:
        """Where the films, or the archive of them, are."""
        return self.whence if os.path.isabs(self.whence) else self.located or self.whence


def find(data: str, *, cache_dir: str | Path) -> Origin:
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
        return Origin(PHANTOM, PHANTOM, PHANTOM)
    if data == KAGGLE:
        return _kaggle()
    if data == MENDELEY:
        return _mendeley(Path(cache_dir))
    if not data.strip():
        raise DataError(
            "--data is empty: expected a folder, an archive, phantom, kaggle or mendeley"
        )
    path = Path(data).resolve()
    if os.path.isfile(path):
        return _archive(path, cache_dir)
    if not os.path.isdir(path):
        hint = parameters.did_you_mean(data, (PHANTOM, KAGGLE, MENDELEY))
        raise DataError(
            f"--data {data!r} does not exist: expected a folder, a .zip, .tar or .tar.gz, "
            f"{PHANTOM}, {KAGGLE} or {MENDELEY}{hint}"
        )
    root = layout.find_root(path)
    return Origin(root.name, str(root), str(root))


def _kaggle() -> Origin:
    if folder := downloads.kaggle_cached():
        return Origin(KAGGLE, KAGGLE, str(folder))
    size = downloads.KAGGLE_BYTES
    todo = f"download {size / 1e9:.1f} GB from Kaggle"
    room = None if downloads.is_mounted() else (downloads.kaggle_cache(), 2 * size)
    return Origin(KAGGLE, KAGGLE, None, todo, room)


def _mendeley(cache_dir: Path) -> Origin:
    if archive := downloads.mendeley_cached(cache_dir=cache_dir):
        return replace(_archive(archive, cache_dir), name=MENDELEY, whence=MENDELEY)
    size = downloads.MENDELEY_BYTES
    todo = f"download {size / 1e9:.1f} GB from Mendeley Data and unpack them"
    return Origin(MENDELEY, MENDELEY, None, todo, (cache_dir, 2 * size))


def _archive(path: Path, cache_dir: str | Path) -> Origin:
    folder = archives.place(path, cache_dir=cache_dir)
    located = str(folder) if folder.is_dir() else None
    # films hardly shrink: unpacked they take about as much as packed
    room = Path(cache_dir), path.stat().st_size
    return Origin(archives.stem(path), str(path), located, f"unpack {path.name}", room)


def fetch(data: str, *, cache_dir: str | Path) -> Origin:
    """Return what ``--data`` names with its films, downloaded and unpacked if need be.

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


def record(run_dir: Path, origin: Origin, fingerprint: str) -> None:
    """Note in a run's folder which films it is of."""
    content = {"whence": origin.whence, "fingerprint": fingerprint}
    atomic.write_json(run_dir / RECORD, content)


def recorded(run_dir: Path) -> tuple[str, str] | None:
    """Return where a run's films came from and their fingerprint, or None where none is noted."""
    found = atomic.read_json(run_dir / RECORD)
    return (found["whence"], found["fingerprint"]) if found else None


def other(run_dir: Path, origin: Origin, fingerprint: str) -> str | None:
    """Return where a run's films came from if these are others from elsewhere, else None.

    A copy of the same films is the same, and so is a folder whose films have changed.
    """
    whence, kept = recorded(run_dir) or (origin.whence, fingerprint)
    return whence if whence != origin.whence and kept != fingerprint else None

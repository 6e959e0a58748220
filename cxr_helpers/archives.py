"""Unpack a zip of films where nothing in it can do harm, once, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from cxr_helpers import digests
from cxr_helpers.folder import SUFFIXES, DataError, is_clutter

MAXIMUM_ENTRIES = 50_000
MAXIMUM_BYTES = 8 * 2**30  # unpacked; the published archive holds 1.2 GB
MAXIMUM_RATIO = 100  # unpacked to packed; films hardly shrink


def unpack(archive: Path, *, cache_dir: str | Path) -> Path:
    """Return a folder with the films of a zip archive.

    The folder's name is made of the archive's content, and it appears under that name only
    when it is complete. Only files with an image's name are unpacked.

    Parameters
    ----------
    archive : Path
        A zip file.
    cache_dir : path
        The folder is made below it, and found there the next time.

    Raises
    ------
    DataError
        If it is no zip, is damaged or encrypted, holds a path that leads outside, a link, or
        more than the caps of this module allow; the message names archive and member.
    """
    if not zipfile.is_zipfile(archive):
        raise DataError(f"{archive.name} is not a zip archive; give a folder or a .zip file")
    target = Path(cache_dir) / "unpacked" / digests.of_file(archive)[:32]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as content:
            _check_size(archive, content)
            for member in content.infolist():
                parts = _safe_parts(archive, member)
                if not member.is_dir() and _is_film(parts):
                    place = work.joinpath(*parts)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with content.open(member) as packed, open(place, "wb") as file:
                        shutil.copyfileobj(packed, file, 2**20)
        with contextlib.suppress(OSError):  # another run was first: its folder is as good
            os.rename(work, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error}; get it again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _check_size(archive: Path, content: zipfile.ZipFile) -> None:
    """Refuse a bomb by what its directory says; members cannot unpack to more than that."""
    members = content.infolist()
    unpacked = sum(member.file_size for member in members)
    packed = max(1, archive.stat().st_size)
    if len(members) > MAXIMUM_ENTRIES or unpacked > MAXIMUM_BYTES:
        raise DataError(
            f"{archive.name} holds {len(members)} entries of {unpacked / 2**30:.1f} GiB; at most "
            f"{MAXIMUM_ENTRIES} and {MAXIMUM_BYTES / 2**30:.0f} GiB are unpacked"
        )
    if unpacked > MAXIMUM_RATIO * packed + 2**20:
        raise DataError(
            f"{archive.name} would unpack to {unpacked / packed:.0f} times its size: "
            "this is no archive of films"
        )


def _safe_parts(archive: Path, member: zipfile.ZipInfo) -> tuple[str, ...]:
    """Return the parts of a member's path, which must stay inside."""
    name = member.filename
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    if outside or not path.parts:
        raise DataError(f"{archive.name} holds {name!r}, which leads outside: not unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{archive.name} holds the link {name!r}: not unpacked")
    return path.parts


def _is_film(parts: tuple[str, ...]) -> bool:
    return PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES and not any(map(is_clutter, parts))

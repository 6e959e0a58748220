"""Unpack the images of a zip or tar archive: safely, once, and completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from cxr_helpers.data import file_types
from cxr_helpers.data.folders import is_clutter
from cxr_helpers.data.image_files import SUFFIXES
from cxr_helpers.system import digests, files, portable
from cxr_helpers.system.errors import DataError, errno_of

UNPACKED = "unpacked"  # folder of the cache
MAXIMUM_ENTRIES = 50_000
MAXIMUM_BYTES = 8 * 2**30  # unpacked; the published archive holds 1.2 GB
MAXIMUM_RATIO = 100  # unpacked to packed; images are hardly compressible
MAXIMUM_HEADER = 2**20  # bytes of a tar's extended header, which tarfile reads at once
_OLD_WORK = ".unpacking-"  # working folders of earlier versions
_READ_AT_ONCE = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)


class Damaged(DataError):
    """The archive is not as it was made."""


@dataclass(frozen=True)
class _Member:
    """A member of an archive; ``size`` in bytes, unpacked."""

    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


class _Header(tarfile.TarInfo):
    """A header of a tar archive; an extended one, which tarfile reads at once, has a limit."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _READ_AT_ONCE and not 0 <= header.size <= MAXIMUM_HEADER:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


class _Bounded:
    """A stream that raises DataError past the size that an archive of images may unpack to."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive, self._left = stream, archive, _limit(archive)

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _bomb(self._archive)
        return content


def stem(archive: Path) -> str:
    """Return an archive's name without ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz``."""
    path = archive.with_suffix("") if archive.suffix.lower() == ".gz" else archive
    suffixes = (".zip", ".tar", ".tgz", ".gz")
    return (path.stem if path.suffix.lower() in suffixes else path.name) or "archive"


def place(archive: Path, *, cache_dir: str | Path) -> Path:
    """Return the folder for the images of an archive; it exists once they are unpacked.

    Raises
    ------
    DataError
        If the file is not an archive that can be unpacked; the message names what it is.
    """
    file_types.archive_kind(archive)
    return Path(cache_dir) / UNPACKED / digests.sha256_of_file(archive)[:32] / stem(archive)


def unpack(archive: Path, *, cache_dir: str | Path) -> Path:
    """Return a folder with the images of a zip or tar archive.

    The name of the folder depends on content and name of the archive, and the folder appears under
    that name only when it is complete. Only files with the name of an image are unpacked: their
    bytes are copied to paths that were checked, which is stricter than tarfile's filter "data".

    Parameters
    ----------
    archive : Path
        A zip, a tar, or a tar compressed by gzip.
    cache_dir : path
        The folder is created below it, and reused from there.

    Raises
    ------
    DataError
        If it is another kind of file, is damaged or encrypted, holds a path that leads outside, a
        link, or more than the limits of this module allow; the message names archive and member.
    """
    target = place(archive, cache_dir=cache_dir)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(cache_dir)
    try:
        with files.temporary_folder(target.parent.parent) as work:
            images = work / "images"
            images.mkdir()
            with _opened(archive) as members:
                for parts, member in _checked(archive, members):
                    _copy(archive, member, images.joinpath(*parts))
            portable.publish_folder(images, target)
    except (NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{archive.name} cannot be unpacked here ({error}): unpack it, and give the folder"
        ) from error
    except (*_DAMAGE, lzma.LZMAError, UnicodeDecodeError, OSError) as error:
        number = errno_of(error)
        if number in (errno.EINVAL, errno.ENAMETOOLONG):
            raise DataError(
                f"{archive.name} cannot be unpacked here ({error.strerror}): unpack it, and give the folder"
            ) from error
        if number is not None:
            raise  # of the disk
        raise Damaged(f"{archive.name} cannot be unpacked: {error}; download it again") from error
    finally:
        with contextlib.suppress(OSError):  # nothing was unpacked into it
            target.parent.rmdir()
    return target


def sweep(cache_dir: str | Path) -> None:
    """Remove the working folders of processes that were killed while unpacking."""
    folder = Path(cache_dir) / UNPACKED
    for path in folder.glob(f"{_OLD_WORK}*"):
        shutil.rmtree(path, ignore_errors=True)
    files.remove_leftovers(folder, deep=False)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Iterable[_Member]]:
    """Yield the members of an archive, in the order in which they can be read."""
    if file_types.archive_kind(archive) == file_types.ZIP:
        with zipfile.ZipFile(archive) as content:
            members = [
                _Member(
                    name=info.filename,
                    size=info.file_size,
                    is_folder=info.is_dir(),
                    is_file=not stat.S_ISLNK(info.external_attr >> 16),
                    open=partial(content.open, info),
                )
                for info in content.infolist()
            ]
            for _ in _checked(archive, members):  # the directory suffices: nothing is read yet
                pass
            yield members
    else:
        is_packed = file_types.is_gzip(archive)
        with gzip.open(archive) if is_packed else open(archive, "rb") as file:
            stream = _Bounded(file, archive)
            content = tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header)
            yield (
                _Member(
                    name=info.name,
                    size=info.size,
                    is_folder=info.isdir(),
                    is_file=info.isfile(),
                    open=partial(content.extractfile, info),
                )
                for info in content
            )
            while stream.read(2**20):  # up to the checksum at the end
                pass


def _checked(archive: Path, members: Iterable[_Member]) -> Iterator[tuple[tuple, _Member]]:
    """Yield the images among the members with the parts of their paths; refuse unsafe members.

    A member is refused before its content is read, and a bomb by the sum of the sizes so far: in
    neither format can a member unpack to more than the size in its header.
    """
    unpacked = 0
    for count, member in enumerate(members, start=1):
        unpacked += max(0, member.size)
        if count > MAXIMUM_ENTRIES or unpacked > MAXIMUM_BYTES:
            raise DataError(
                f"{archive.name} holds more than {MAXIMUM_ENTRIES:,} entries or "
                f"{MAXIMUM_BYTES / 2**30:.0f} GiB: not unpacked"
            )
        if unpacked > _limit(archive):
            raise _bomb(archive)
        parts = _safe_parts(archive, member)
        if not member.is_folder and _is_image(parts):
            yield parts, member


def _limit(archive: Path) -> int:
    return MAXIMUM_RATIO * archive.stat().st_size + 2**20


def _bomb(archive: Path) -> DataError:
    return DataError(
        f"{archive.name} would unpack to more than {MAXIMUM_RATIO} times its size: "
        "this is not an archive of images"
    )


def _safe_parts(archive: Path, member: _Member) -> tuple[str, ...]:
    """Return the parts of a member's path; refuse one that leads outside, a link or a device."""
    name = member.name
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    if outside or not (path.parts or member.is_folder):
        raise DataError(f"{archive.name} holds {name!r}, which leads outside it: not unpacked")
    if (
        portable.WINDOWS
        and member.is_file
        and _is_image(path.parts)
        and any(map(portable.is_reserved, path.parts))
    ):
        raise DataError(
            f"{archive.name} holds {name!r}, a name that Windows cannot store: unpack it elsewhere, "
            "rename the file, and give the folder"
        )
    if not (member.is_file or member.is_folder):
        raise DataError(f"{archive.name} holds the link or device {name!r}: not unpacked")
    return path.parts


def _is_image(parts: tuple[str, ...]) -> bool:
    return PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES and not any(map(is_clutter, parts))


def _copy(archive: Path, member: _Member, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as packed, open(path, "wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            f"{archive.name} holds {member.name!r} as a file and as a folder: not unpacked"
        ) from error

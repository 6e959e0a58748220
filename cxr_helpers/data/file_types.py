"""The type of a file by its first bytes, so that a refusal can name it."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from pathlib import Path

from cxr_helpers.system.errors import DataError

ZIP, TAR = "zip", "tar"
_GZIP = b"\x1f\x8b"
_BLOCK = 512  # bytes of a tar's header
_ADVICE = "give a folder of images, or a .zip, .tar or .tar.gz of one"
_TRUNCATED = "whose end is missing, as after an interrupted download: download it again"
_UNPACK = "unpack it, and give the folder"
_STARTS = {
    b"PK\3\4": f"a zip archive {_TRUNCATED}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive: {_UNPACK}",
    b"Rar!": f"a rar archive: {_UNPACK}",
    b"BZh": f"compressed by bzip2: {_UNPACK}",
    b"\xfd7zXZ": f"compressed by xz: {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"compressed by zstd: {_UNPACK}",
    b"\xff\xd8\xff": f"a single JPEG image: {_ADVICE}",
    b"\x89PNG": f"a single PNG image: {_ADVICE}",
    b"%PDF": f"a PDF document: {_ADVICE}",
    b"\x93NUMPY": f"a NumPy array: {_ADVICE}",
    b"\x89HDF": f"an HDF5 file: {_ADVICE}",
    b"<": "a web page or XML, as servers send it in place of a download: download the archive again",
}


def archive_kind(path: Path) -> str:
    """Return ``"zip"`` or ``"tar"`` (plain or compressed by gzip), by a file's content.

    Raises
    ------
    DataError
        For any other file; the message names its type and the remedy.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_BLOCK)
        if zipfile.is_zipfile(path):
            return ZIP
        if head.startswith(_GZIP):
            with gzip.open(path) as file:
                if _is_tar(file.read(_BLOCK)):
                    return TAR
            raise DataError(f"{path.name} is one file compressed by gzip, not a tar: {_ADVICE}")
        if _is_tar(head):
            if _ends_as_tar(path):
                return TAR
            raise DataError(f"{path.name} is a tar archive {_TRUNCATED}")
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path.name} is a file compressed by gzip {_TRUNCATED}") from None
    except PermissionError:
        raise DataError(f"{path.name} cannot be read: change its permissions") from None
    raise DataError(f"{path.name} is {_described(head)}")


def is_gzip(path: Path) -> bool:
    """Return whether a file is compressed by gzip."""
    with open(path, "rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _is_tar(head: bytes) -> bool:
    """Return whether a block is the header of a tar archive, by its checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _ends_as_tar(path: Path) -> bool:
    """Return whether a plain tar ends in a block of zeros; a truncated one does not."""
    with open(path, "rb") as file:
        file.seek(-_BLOCK, 2)
        return not any(file.read())


def _described(head: bytes) -> str:
    if not head:
        return "empty: download it again"
    for start, description in _STARTS.items():
        if head.lstrip().startswith(start) if start == b"<" else head.startswith(start):
            return description
    if head[128:132] == b"DICM":
        return f"a single DICOM image: {_ADVICE}"
    text = head.decode("utf-8", errors="ignore")
    if len(text) > len(head) / 2 and all(char.isprintable() or char.isspace() for char in text):
        return f"text, such as a CSV table: {_ADVICE}"
    return f"not an archive: {_ADVICE}"

"""A double of Windows' locks: files that this process has open or mapped cannot be replaced."""

import errno
import os
from pathlib import Path

import pytest

from cxr_helpers.system import portable


def in_use():
    """Return the paths of the files that this process has open or mapped."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.add(os.readlink(descriptor))
        except OSError:  # the folder's own, which is closed
            pass
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return found | {parts[5] for line in maps if len(parts := line.split(maxsplit=5)) == 6}


def denied(path, number):
    """Return the error of Windows; only there, ``PermissionError`` takes its number itself."""
    error = PermissionError(errno.EACCES, "The process cannot access the file", str(path))
    error.winerror = number
    return error


def refuse_if_open(path, *, inside=False):
    path = os.path.realpath(path)
    for used in in_use():
        if used == path or (inside and used.startswith(path + os.sep)):
            raise denied(path, 32)


@pytest.fixture
def windows(monkeypatch):
    """Let this process find itself on Windows, with its locks."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("open files are listed on Linux only")
    real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "remove")}

    def move(name):
        def moved(source, target, **options):
            refuse_if_open(source, inside=True)
            if name == "rename" and os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "File exists", str(target))
            refuse_if_open(target)
            real[name](source, target, **options)

        return moved

    def remove(name):
        def removed(path, *, dir_fd=None):
            folder = f"/proc/self/fd/{dir_fd}" if dir_fd is not None else "."
            refuse_if_open(os.path.join(folder, path))
            real[name](path, dir_fd=dir_fd)

        return removed

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, move(name))
    for name in ("unlink", "remove"):
        monkeypatch.setattr(os, name, remove(name))
    monkeypatch.setattr(portable, "WINDOWS", True)
    monkeypatch.setattr(portable, "PATIENCE", 0.3)

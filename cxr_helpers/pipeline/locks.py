"""A lock on a folder that several processes, also of several machines, may want to write to.

The system releases the lock of a process however it ends. Some file systems that machines share do
not carry locks from one machine to another: the holder therefore also touches a file every few
seconds, and another machine respects the lock while that file is fresh.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from cxr_helpers.system import files, processes
from cxr_helpers.system.errors import MACHINE, Refused
from cxr_helpers.system.terminal import short_path

BUSY = 5  # exit code
BEAT, FRESH = 10.0, 60.0  # seconds between two touches, and after which a holder counts as gone


@contextmanager
def held(folder: Path, *, lock: str, owner: str, wait: float = 0.0, advice: str) -> Iterator[None]:
    """Hold the lock of a folder.

    Parameters
    ----------
    folder : Path
    lock, owner : str
        Names of the locked file and of the file that names the holder.
    wait : float
        Seconds to wait for a lock that another process holds.
    advice : str
        What to do where it is not free in time, for the message.

    Raises
    ------
    Refused
        With exit code 5, naming the holder; with exit code 6 where the file system has no locks.
    """
    until = time.monotonic() + wait
    own = filelock.FileLock(folder / lock)
    try:
        own.acquire(timeout=wait, poll_interval=0.1)
    except filelock.Timeout:
        named = holder(folder, owner=owner) or "another process"
        raise Refused(BUSY, f"{short_path(folder)} is in use by {named}: {advice}") from None
    except NotImplementedError as error:
        raise Refused(
            MACHINE, f"{short_path(folder)}: its file system has no locks: mount it with locking"
        ) from error
    try:
        while named := _elsewhere(folder / owner):
            if time.monotonic() >= until:
                raise Refused(
                    BUSY,
                    f"{short_path(folder)} is in use by {named}, or was until a minute ago: {advice}",
                )
            time.sleep(0.5)
        files.write_text(folder / owner, processes.own())
        with _beating(folder / owner):
            yield
    finally:
        with suppress(OSError):
            if (folder / owner).read_text(encoding="utf-8") == processes.own():
                (folder / owner).unlink()
        own.release()


def holder(folder: Path, *, owner: str) -> str | None:
    """Return the process that holds the lock of a folder, in words; None where none does.

    A process that was killed leaves its file behind, and its number may be that of a later process.
    """
    path = folder / owner
    try:
        text = path.read_text(encoding="utf-8").removeprefix("process ")  # of earlier versions
        touched = path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if processes.is_running(text, at=touched + BEAT):
        return processes.described(text)
    return _elsewhere(path)


def _elsewhere(path: Path) -> str | None:
    """Return the holder, in words, if it is a process of another machine that seems to run."""
    try:
        text, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except (OSError, ValueError):
        return None
    fresh = processes.is_running(text) is None and time.time() - touched < FRESH
    return processes.described(text) if fresh else None


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    """Touch a file now and then."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

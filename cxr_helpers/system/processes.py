"""Processes by number and machine: a folder may be shared by several machines."""

from __future__ import annotations

import math
import os
import platform
import re

import psutil

LONGEST = 40  # characters of a machine's name that are kept; in a cluster the last ones differ
_WRITTEN = re.compile(r"(?P<number>[0-9]{1,18})(?:@(?P<host>[A-Za-z0-9._]*))?")


def host() -> str:
    """Return the short name of this machine, of letters, digits and ``_``."""
    name = platform.node().split(".")[0]
    return re.sub(r"[^A-Za-z0-9]", "_", name)[-LONGEST:] or "unnamed"


def own() -> str:
    """Return this process as it is written into names and files, such as ``"4711@node3"``."""
    return f"{os.getpid()}@{host()}"


def parse(text: str) -> tuple[int, str] | None:
    """Return number and machine of a written process, or None where the text is none.

    Earlier versions wrote the number alone, which means this machine.
    """
    match = _WRITTEN.fullmatch(text)
    return (int(match["number"]), match["host"] or host()) if match else None


def is_running(text: str, *, at: float = math.inf) -> bool | None:
    """Return whether a written process runs; None where that cannot be seen from this machine.

    A process that was killed and whose parent has not waited for it does not run. A text that is no
    process does not run either, and neither does one whose number a process has that began after
    the time ``at``, in seconds since 1970.
    """
    found = parse(text)
    if found is None:
        return False
    number, machine = found
    if machine != host():
        return None
    try:
        process = psutil.Process(number)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= at
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's
        return True


def described(text: str) -> str:
    """Return a written process in words: ``process 4711``, or ``process 4711 on node3``."""
    number, machine = parse(text) or (0, "")
    return f"process {number}" + (f" on {machine}" if machine != host() else "")

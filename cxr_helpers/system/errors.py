"""What kind of fault an error is, by its type and number: the data's, the machine's, a bug."""

from __future__ import annotations

import difflib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


class DataError(ValueError):
    """The data cannot be used as they are; the message says what to do."""


class Refused(RuntimeError):
    """The run cannot go on; ``code`` is the exit code, the message says what to do."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


BUG, DATA, MACHINE = 1, 3, 6  # exit codes
RECORD = 4096  # bytes: room for a fault
_OURS = ("cxr_helpers", "report", "run_all")
# Wherever they occur among an error's causes, nothing else is to blame.
_DISK = {
    errno.ENOSPC: "free some disk",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "work in a folder that can be written to",
    errno.EIO: "check the disk",
}
_MACHINE = _DISK | {
    errno.EACCES: "change the permissions, or work in another folder",
    errno.EPERM: "change the permissions, or work in another folder",
    errno.EMFILE: "raise the limit on open files",
    errno.ENFILE: "raise the limit on open files",
}


@dataclass(frozen=True)
class Fault:
    """What to say of an error.

    Attributes
    ----------
    code : int
        Exit code: ``BUG``, ``DATA`` or ``MACHINE``.
    name : str
        Of the exception's type.
    message : str
        One line; names what to do where the machine is at fault.
    """

    code: int
    name: str
    message: str


def classify(error: BaseException) -> Fault:
    """Return what kind of fault an error is.

    A full disk and its like count wherever they are among the causes. An ``OSError`` is the
    machine's only by its number, an ``ImportError`` only if the module is not of this project.
    """
    causes = list(_causes(error))
    for cause in causes:
        if errno_of(cause) in _DISK:
            return _machine(cause, _DISK[cause.errno])
    if isinstance(error, DataError):
        return Fault(DATA, type(error).__name__, _first_line(error))
    for cause in causes:
        if errno_of(cause) in _MACHINE:
            return _machine(cause, _MACHINE[cause.errno])
        if isinstance(cause, ImportError) and (cause.name or "").split(".")[0] not in ("", *_OURS):
            return _machine(cause, "`uv sync` installs what is needed")
    return Fault(BUG, type(error).__name__, f"{type(error).__name__}: {_first_line(error)}")


def errno_of(error: BaseException) -> int | None:
    """Return the system's number of an error (``errno``), where it has one."""
    return error.errno if isinstance(error, OSError) else None


def has_errno(error: BaseException) -> bool:
    """Return whether the system's number is with an error or one of its causes."""
    return any(errno_of(cause) is not None for cause in _causes(error))


def recorder(path: Path) -> Callable:
    """Return a handler for ``InteractiveShell.set_custom_exc`` that records faults in a file.

    What leaves a kernel otherwise is an exception's name and words. The file is to be there,
    and large enough, so that a full disk can be recorded.
    """

    def record(shell, kind, error, traceback, tb_offset=None) -> None:
        with open(path, "r+", encoding="utf-8") as file:
            file.write(json.dumps(asdict(classify(error)), ensure_ascii=False))
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    return record


def prepare_record(path: Path) -> None:
    """Make the file that ``recorder`` writes to."""
    path.write_text(" " * RECORD, encoding="utf-8")


def recorded(path: Path) -> Fault | None:
    """Return the fault that was recorded, if one was."""
    try:
        return Fault(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _machine(cause: BaseException, advice: str) -> Fault:
    name, said = type(cause).__name__, _first_line(cause)
    words = os.strerror(cause.errno) if errno_of(cause) else ""
    if words not in said:  # HDF5 has them on its second line
        said = f"{said} … {words}"
    return Fault(MACHINE, name, f"{name}: {said}: {advice}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][: RECORD // 5]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

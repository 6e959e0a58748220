"""Errors by their cause, classified by type and errno: the data, the machine, or a bug."""

from __future__ import annotations

import difflib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


class Expected(Exception):
    """The message says all that a user needs: a notebook shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class DataError(Expected, ValueError):
    """The data cannot be used; the message names the reason and what to do."""


class Refused(Expected, RuntimeError):
    """The run cannot go on: ``code`` is the exit code, the message names what to do."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple:  # else copies and pickles would call it with the message only
        return type(self), (self.code, str(self))


BUG, DATA, MACHINE = 1, 3, 6  # exit codes
RECORD = 4096  # bytes reserved for a recorded fault
_OURS = ("cxr_helpers", "report", "run_all")
# These take precedence wherever they occur among an error's causes.
_DISK = {
    errno.ENOSPC: "free some disk",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "work in a folder that can be written to",
    errno.EIO: "check the disk",
}
_MACHINE = _DISK | {
    errno.EACCES: "change its permissions, or work in another folder",
    errno.EPERM: "change its permissions, or work in another folder",
    errno.EMFILE: "raise the limit on open files",
    errno.ENFILE: "raise the limit on open files",
}
_MEMORY = "close other programs, run one stage at a time (--jobs 1), or use fewer or smaller images"
# By Windows' own number, which says more than the errno: a file that is open cannot be replaced, and
# neither can one that an array is mapped to.
_CLOSE = "close the program that has it open (a notebook, a spreadsheet, a PDF viewer)"
_WINDOWS = dict.fromkeys((32, 33, 1224), _CLOSE) | {5: f"{_CLOSE}, or change its permissions"}


@dataclass(frozen=True)
class Fault:
    """The cause of an error, as the command line reports it.

    Attributes
    ----------
    code : int
        Exit code: ``BUG``, ``DATA`` or ``MACHINE``.
    name : str
        Of the exception's type.
    message : str
        One line; ends with what to do where the machine is the cause.
    """

    code: int
    name: str
    message: str


def classify(error: BaseException) -> Fault:
    """Return the cause of an error.

    A full disk and other faults of the disk count wherever they are in the chain of causes. An
    ``OSError`` counts as the machine's by its errno only, an ``ImportError`` only where the module
    is not of this project.
    """
    causes = list(_causes(error))
    for cause in causes:
        if errno_of(cause) in _DISK:
            return _machine(cause, _DISK[cause.errno])
    if isinstance(error, DataError):
        return Fault(DATA, type(error).__name__, _first_line(error))
    for cause in causes:
        if (number := getattr(cause, "winerror", None)) in _WINDOWS:
            return _machine(cause, _WINDOWS[number])
        if errno_of(cause) in _MACHINE:
            return _machine(cause, _MACHINE[cause.errno])
        if isinstance(cause, MemoryError) or type(cause).__name__ == "ResourceExhaustedError":
            return _machine(cause, _MEMORY)
        if isinstance(cause, ImportError) and (cause.name or "").split(".")[0] not in ("", *_OURS):
            return _machine(cause, "`uv sync` installs it")
    return Fault(BUG, type(error).__name__, f"{type(error).__name__}: {_first_line(error)}")


def errno_of(error: BaseException) -> int | None:
    """Return the errno of an error, or None where it has none."""
    return error.errno if isinstance(error, OSError) else None


def has_errno(error: BaseException) -> bool:
    """Return whether an error or one of its causes has an errno."""
    return any(errno_of(cause) is not None for cause in _causes(error))


def recorder(path: Path) -> Callable:
    """Return a handler for ``InteractiveShell.set_custom_exc`` that records faults in a file.

    Without it, only the name and the text of an exception leave a kernel. The file must exist with
    its full size (see ``prepare_record``), so that a full disk can be recorded.
    """

    def record(shell, kind, error, traceback, tb_offset=None) -> None:
        with open(path, "r+", encoding="utf-8") as file:
            file.write(json.dumps(asdict(classify(error)), ensure_ascii=False))
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    return record


def prepare_record(path: Path) -> None:
    """Create the file that ``recorder`` writes to, at its full size."""
    path.write_text(" " * RECORD, encoding="utf-8")


def recorded(path: Path) -> Fault | None:
    """Return the recorded fault, or None where there is none."""
    try:
        return Fault(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _machine(cause: BaseException, advice: str) -> Fault:
    name, text = type(cause).__name__, _first_line(cause)
    said = errno_of(cause) is None or getattr(cause, "winerror", None)  # in Windows' own words
    reason = "" if said else os.strerror(cause.errno)
    if reason not in text:  # HDF5 has it on its second line
        text = f"{text} … {reason}"
    return Fault(MACHINE, name, f"{name}: {text}: {advice}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][: RECORD // 5]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the most similar known word, or ``""``."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

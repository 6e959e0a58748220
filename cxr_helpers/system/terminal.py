"""Messages on standard error; a run continues where they cannot be written."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


class Terminal(Console):
    """A console on standard error that stays silent after the first failed write."""

    def __init__(self) -> None:
        interactive = sys.stderr is not None and sys.stderr.isatty()
        width = None if interactive else 110
        super().__init__(stderr=True, highlight=False, soft_wrap=True, width=width)

    def print(self, *objects: object, **options) -> None:
        """Print as ``rich.console.Console.print`` does."""
        try:
            super().print(*objects, **options)
        except OSError:  # the terminal is closed, as after SIGHUP, or the disk of a log is full
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Continue where rich would end the program, as in ``run_all.py 2>&1 | head``."""
        self.quiet = True


def open_streams() -> None:
    """Make standard streams usable that were closed, or that cannot encode every character.

    Streams that were closed, as by ``2>&-``, are connected to the null device: otherwise the next
    file that is opened would get their number and receive their output. A character that a stream
    cannot encode, as ``→`` where Windows redirects it to a file, becomes a question mark.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, "w" if number else "r", encoding="utf-8"))
        elif number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Hide what native libraries write to standard error as they are imported, unless that fails.

    TensorFlow writes that there is no GPU, and more, before its level of logging has any effect.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def write_out(lines: list[str]) -> None:
    """Write lines to standard output; a reader that has ended, such as ``head``, is no error."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


console = Terminal()


def write_line(line: str) -> None:
    """Write one line to standard error, without reading its text as markup."""
    console.print(line, markup=False)


def short_path(path: Path) -> str:
    """Return a path relative to the working directory; on Windows only where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return os.path.relpath(path) if sys.platform != "win32" else str(path)

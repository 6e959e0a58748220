"""Standard error, where the program's words go: a run does not depend on its being read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console


class Terminal(Console):
    """A console on standard error that falls silent, once and for all, where it cannot write."""

    def __init__(self) -> None:
        wide = sys.stderr is not None and sys.stderr.isatty()
        super().__init__(stderr=True, highlight=False, soft_wrap=True, width=None if wide else 110)

    def print(self, *objects: object, **options) -> None:
        """Show as ``rich.console.Console.print`` does."""
        try:
            super().print(*objects, **options)
        except OSError:  # the terminal has gone, as after SIGHUP, or the disk of a log is full
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Go on where rich would end the program: as in ``run_all.py 2>&1 | head``."""
        self.quiet = True


def open_closed_streams() -> None:
    """Give standard streams that were closed, as by ``2>&-``, the null device.

    Else the next file that is opened would get their number, and all that is written to them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, "w" if number else "r", encoding="utf-8"))


def write_out(lines: list[str]) -> None:
    """Write lines to standard output; a reader that has gone, such as ``head``, is no error."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end


console = Terminal()


def write_line(line: str) -> None:
    """Write one line to stderr; its text is never read as markup."""
    console.print(line, markup=False)


def short_path(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return os.path.relpath(path) if sys.platform != "win32" else str(path)

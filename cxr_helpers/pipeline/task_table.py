"""Progress of many tasks: one table on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cxr_helpers.pipeline.tasks import NOT_RUN, Outcome
from cxr_helpers.system import terminal

WAITING, RUNNING, DONE, FAILED, LEFT_OUT = "waiting", "running", "done", "failed", "not run"
STATES = (FAILED, RUNNING, WAITING, LEFT_OUT, DONE)  # the order in which few rows are chosen
LONGEST = 26  # characters of a task's name
COLUMNS = 80  # where the width of the terminal is not known
PAUSE = 0.5  # seconds between two pictures of the table


@dataclass
class _Row:
    state: str = WAITING
    place: str = ""
    text: str = ""
    begun: float = 0.0
    seconds: float = 0.0

    def elapsed(self) -> str:
        seconds = time.monotonic() - self.begun if self.state == RUNNING else self.seconds
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}:{rest:02}" if self.begun else ""


class TaskTable:
    """A context in which the progress of tasks is shown; a ``Show`` of ``cluster.run``.

    Parameters
    ----------
    names : iterable of str
        Of the tasks.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._rows = {name: _Row() for name in names}
        self._begun = self._drawn = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> TaskTable:
        if terminal.console.is_terminal:
            self._live = Live(
                self._picture(), console=terminal.console, auto_refresh=False, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live is not None:
            with suppress(OSError):  # the terminal is closed
                self._live.stop()
            self._live = None
        terminal.console.print(self._table(list(self._rows)), markup=False)

    def __call__(
        self,
        name: str | None = None,
        *,
        place: str | None = None,
        stage: str = "",
        line: str = "",
        outcome: Outcome | None = None,
    ) -> None:
        """Show what is new about a task, see ``cluster.run``; without a name, the time."""
        if name is not None:
            self._note(name, self._rows[name], place, stage, line, outcome)
        if self._live is not None and time.monotonic() - self._drawn > PAUSE:
            self._drawn = time.monotonic()
            with suppress(OSError):
                self._live.update(self._picture(), refresh=True)

    def _note(self, name: str, row: _Row, place, stage, line, outcome) -> None:
        if place is not None:
            again = row.state == RUNNING
            row.state, row.place, row.begun = RUNNING, place, row.begun or time.monotonic()
            self._write(f"{name}: {'again' if again else 'begins'} on {place}")
        elif stage:
            row.text = f"{stage.split('_')[0]} {line.removeprefix(stage).lstrip(':· ')}"
            if line.startswith(f"{stage}: "):
                row.text = stage
                self._write(f"{name} · {line.split(' · ')[0]}")  # without the forecast of one task
        elif outcome is not None:
            row.seconds = time.monotonic() - row.begun if row.begun else 0.0
            row.state = {0: DONE, NOT_RUN: LEFT_OUT}.get(outcome.code, FAILED)
            row.text = outcome.message
            detail = f": {outcome.message}" if outcome.message else f", {row.elapsed()}"
            self._write(f"{name}: {row.state}{detail}")

    def _write(self, line: str) -> None:
        if self._live is None:
            terminal.write_line(line)

    def _picture(self) -> Group:
        """Return the table with as many tasks as fit on the terminal."""
        fit = max(3, terminal.console.height - 8)
        chosen = sorted(self._rows, key=lambda name: STATES.index(self._rows[name].state))[:fit]
        return Group(self._table([name for name in self._rows if name in chosen]))

    def _table(self, names: list[str]) -> Table:
        count = Counter(row.state for row in self._rows.values())
        elapsed = _Row(begun=self._begun, state=RUNNING).elapsed()
        title = ", ".join(f"{count[state]} {state}" for state in reversed(STATES) if count[state])
        width = terminal.console.width if terminal.console.is_terminal else COLUMNS
        table = Table(title=f"tasks: {title}, {elapsed}", title_justify="left", width=width)
        table.add_column("task", max_width=LONGEST, overflow="ellipsis", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("machine", max_width=10, overflow="ellipsis", no_wrap=True)
        table.add_column("stage", ratio=1, overflow="ellipsis", no_wrap=True)
        table.add_column("min:s", justify="right", no_wrap=True)
        above = ""
        for name in names:
            row = self._rows[name]
            run, comma, seed = name.partition(", ")
            short = f"  {seed}" if comma and run == above else _end(name)
            above = run
            table.add_row(*map(Text, (short, row.state, row.place, row.text, row.elapsed())))
        return table


def _end(name: str) -> str:
    """Return a name that fits into its column; of similar names, the ends differ."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"

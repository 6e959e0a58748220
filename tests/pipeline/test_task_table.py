"""The table of tasks: 80 columns, lines in a pipe, few rows on a low terminal."""

import io

import pytest
from rich.console import Console

from cxr_helpers.pipeline.task_table import TaskTable
from cxr_helpers.pipeline.tasks import NOT_RUN, Outcome
from cxr_helpers.system import terminal

LONG = "a-folder-of-images-with-a-long-name-standard-ours_epochs-40"


@pytest.fixture
def shown(monkeypatch):
    """Return a function that replaces the console and returns what is written to it."""

    def replace(**options):
        stream = io.StringIO()
        monkeypatch.setattr(
            terminal, "console", Console(file=stream, highlight=False, soft_wrap=True, **options)
        )
        return stream

    return replace


def tell(table):
    table(LONG, place="node-with-a-long-name")
    table(LONG, stage="02_binary", line="02_binary: never finished · stage 2 of 7 · about 9 min")
    table(LONG, stage="02_binary", line="02_binary · epoch 3/10, loss 0.1 [not markup]")


def test_pipe_gets_a_line_for_each_stage_and_a_table_of_80_columns(shown):
    stream = shown(width=110)
    with TaskTable([LONG, f"{LONG}, seed 3", f"{LONG}, seed 4"]) as table:
        tell(table)
        table(LONG, outcome=Outcome())
        table(f"{LONG}, seed 3", outcome=Outcome(4, "02_binary.ipynb, cell 3: odd"))
        table(f"{LONG}, seed 4", outcome=Outcome(NOT_RUN, "left out"))
    lines = stream.getvalue().splitlines()
    assert lines[:5] == [
        f"{LONG}: begins on node-with-a-long-name",
        f"{LONG} · 02_binary: never finished",
        f"{LONG}: done, 0:00",
        f"{LONG}, seed 3: failed: 02_binary.ipynb, cell 3: odd",
        f"{LONG}, seed 4: not run: left out",
    ]
    assert lines[5] == "tasks: 1 done, 1 not run, 1 failed, 0:00"
    rows = lines[6:]
    assert max(map(len, rows)) <= 80 and "\x1b" not in stream.getvalue()
    assert any("…th-a-long-name" not in r and "ours_epochs-40 │ done" in r for r in rows)
    assert any(r.startswith("│   seed 3") and "│ failed" in r for r in rows)


def test_task_that_begins_again_is_named(shown):
    stream = shown(width=110)
    with TaskTable(["x"]) as table:
        table("x", place="a")
        table("x", place="b")
    assert stream.getvalue().splitlines()[:2] == ["x: begins on a", "x: again on b"]


def test_terminal_shows_the_running_tasks_where_not_all_fit(shown):
    shown(width=80, height=14, force_terminal=True)
    names = [f"run-{n}" for n in range(40)]
    with TaskTable(names) as table:
        tell_last = names[-1]
        table(tell_last, place="node")
        console = Console(width=80, file=io.StringIO())
        console.print(table._picture())
        picture = console.file.getvalue()
    assert picture.count("\n") <= 14 and "run-39" in picture and "run-30" not in picture
    assert "tasks: 39 waiting, 1 running" in picture

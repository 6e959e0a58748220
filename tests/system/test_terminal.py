"""A run continues where its messages cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import run_all

ROOT = Path(run_all.__file__).parent


@pytest.mark.parametrize("closing", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_standard_error_does_not_fail_a_run(closing):
    """Without uv, which reopens closed streams."""
    command = f'"{sys.executable}" run_all.py --dry-run {closing}'
    assert subprocess.run(["sh", "-c", command], cwd=ROOT).returncode == 0


def test_reader_that_ends_does_not_fail_a_run():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "run_all.py", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, stderr=writing)
    listed = subprocess.run([*command[:2], "--list"], cwd=ROOT, stdout=writing, stderr=-1)
    os.close(writing)
    assert done.returncode == listed.returncode == 0 and listed.stderr == b""


def test_number_of_a_closed_stream_is_given_to_no_file(tmp_path):
    """Otherwise the next file gets the number of standard error, and the warnings with it."""
    code = (
        "import os, sys; from cxr_helpers.system import terminal; terminal.open_streams(); "
        "file = open(sys.argv[1], 'w'); os.write(2, b'warning'); file.close()"
    )
    command = f'"{sys.executable}" -c "{code}" "{tmp_path}/x" 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=ROOT).returncode == 0
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize("option", ["--dry-run", "--list"])
def test_characters_that_a_stream_cannot_encode_do_not_fail_a_run(option):
    """As on Windows, where output that is redirected to a file has an old code page."""
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "run_all.py", option]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert b"phantom, preset demo ? " in done.stderr or option == "--list"


@pytest.mark.parametrize("then", ["pass", "import nothing_like_this"])
def test_what_a_library_writes_as_it_is_imported_is_shown_only_where_that_fails(then):
    code = (
        "import os; from cxr_helpers.system import terminal\n"
        f"with terminal.quiet_imports(): os.write(2, b'no card'); {then}\n"
        "os.write(2, b'afterwards')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    failed = then != "pass"
    assert ("no card" in done.stderr) == ("nothing_like_this" in done.stderr) == failed
    assert ("afterwards" in done.stderr) != failed

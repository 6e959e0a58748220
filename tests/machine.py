"""Commands that obey permissions, a small disk, and the memory of mapped files, for tests."""

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def powerless():
    """Return the prefix with which a command obeys permissions even if root runs the tests."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv does not obey permissions")
    dropped = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]


@contextmanager
def small_disk(folder, size):
    """Mount a disk of ``size`` bytes at ``folder``."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resident_of_files():
    """Return the bytes of mapped files that count as memory of this process."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("Linux only")
    return int(re.search(r"RssFile:\s+(\d+)", status.read_text(encoding="utf-8"))[1]) * 1024

"""Locks between processes, and between machines whose file system carries no locks.

The lock of a killed process is tested in test_runs and test_survival.
"""

import os
import threading
import time
from functools import partial

import filelock
import pytest

from cxr_helpers.pipeline import locks
from cxr_helpers.system import processes
from cxr_helpers.system.errors import Refused

held = partial(locks.held, lock=".lock", owner=".owner", advice="wait")
holder = partial(locks.holder, owner=".owner")


def elsewhere(folder, *, seconds):
    """Write the file of a holder on another machine that touched it some seconds ago."""
    path = folder / ".owner"
    path.write_text("7@elsewhere")
    os.utime(path, (time.time() - seconds,) * 2)


def test_holder_is_named_while_it_holds_the_lock(tmp_path):
    assert holder(tmp_path) is None
    with held(tmp_path):
        assert (tmp_path / ".owner").read_text() == processes.own()
        assert holder(tmp_path) == f"process {os.getpid()}"
    assert holder(tmp_path) is None and not (tmp_path / ".owner").exists()


def test_lock_of_another_machine_is_respected_where_the_file_system_carries_none(tmp_path):
    elsewhere(tmp_path, seconds=20)
    assert holder(tmp_path) == "process 7 on elsewhere"
    with pytest.raises(Refused, match="by process 7 on elsewhere, or was until") as error:
        with held(tmp_path):
            pass
    assert error.value.code == 5 and (tmp_path / ".owner").read_text() == "7@elsewhere"


def test_lock_of_a_machine_that_is_gone_is_taken_over(tmp_path):
    elsewhere(tmp_path, seconds=locks.FRESH + 5)
    assert holder(tmp_path) is None
    with held(tmp_path):
        assert holder(tmp_path) == f"process {os.getpid()}"


def test_holder_touches_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.02)
    with held(tmp_path):
        os.utime(tmp_path / ".owner", (0, 0))
        time.sleep(0.5)
        assert (tmp_path / ".owner").stat().st_mtime > time.time() - 60


def test_lock_is_awaited(tmp_path):
    """Another process holds it for half a second; a thread takes its place."""
    own = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    own.acquire()
    with pytest.raises(Refused, match="in use by another process: wait"), held(tmp_path, wait=0.2):
        pass
    timer = threading.Timer(0.5, own.release)
    timer.start()
    with held(tmp_path, wait=30):
        timer.join()


def test_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(Refused, match="its file system has no locks") as error, held(tmp_path):
        pass
    assert error.value.code == 6


def test_later_process_with_the_number_of_a_killed_holder_is_not_the_holder(tmp_path):
    path = tmp_path / ".owner"
    path.write_text(str(os.getppid()))
    assert holder(tmp_path) == f"process {os.getppid()}"
    os.utime(path, (0, 0))
    assert holder(tmp_path) is None

"""Processes are known by number and machine."""

import os
import platform
import subprocess
import sys
import time

import psutil
import pytest

from cxr_helpers.system import processes


def test_own_process_is_written_with_its_machine_and_runs():
    number, machine = processes.parse(processes.own())
    assert (number, machine) == (os.getpid(), processes.host())
    assert processes.is_running(processes.own())
    assert processes.described(processes.own()) == f"process {os.getpid()}"


@pytest.mark.parametrize(
    ("node", "short"),
    [
        ("node-3.cluster.example", "node_3"),
        ("x" * 30 + "-worker-6d4b9c8f7d-abcde", ("x" * 30 + "_worker_6d4b9c8f7d_abcde")[-40:]),
        ("", "unnamed"),
    ],
)
def test_name_of_a_machine_fits_in_a_file_name(monkeypatch, node, short):
    monkeypatch.setattr(platform, "node", lambda: node)
    assert processes.host() == short and processes.parse(processes.own()) == (os.getpid(), short)


def test_process_of_another_machine_cannot_be_seen():
    assert processes.is_running(f"{os.getpid()}@elsewhere") is None
    assert processes.described("7@elsewhere") == "process 7 on elsewhere"


@pytest.mark.parametrize("text", ["", "process 7", "7@a-b", "-7", "999999999", "x@y", "7 "])
def test_text_that_names_no_running_process(text):
    assert processes.is_running(text) is False


def test_number_alone_is_a_process_of_this_machine():
    assert processes.is_running(str(os.getppid()))


def test_zombie_does_not_run():
    child = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert processes.is_running(str(child.pid)) is False
    child.wait()

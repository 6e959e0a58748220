"""The kernel of executed notebooks: this interpreter, with the package of this process.

It is a new process, or forked from a fork server; where that server cannot fork, a new process.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
import warm
from executed import execute
from tiny import is_gone, wait_for

import cxr_helpers
from cxr_helpers.pipeline import fork_server, kernels
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.notebooks import NotebookFailed

forks = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="kernels are forked on Linux only")
PARENT = "import os; stage.log(str(os.getppid()))"  # this process, or the fork server
FINISH = "stage.finish()"
TRANSPORT = "import ipykernel; stage.log(ipykernel.get_connection_info(unpack=True)['transport'])"


@pytest.fixture
def server():
    with ForkServer() as server:
        yield server


@pytest.fixture(params=["new process", pytest.param("forked", marks=forks)])
def server_or_none(request):
    return None if request.param == "new process" else request.getfixturevalue("server")


def children():
    """Return the processes below this one, without that of other tests that forks commands."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if not warm.is_server(process.pid)]


def test_kernel_is_this_interpreter_whichever_kernel_is_named(tmp_path, server_or_none):
    path = tmp_path / "executable"
    folder = tmp_path / f"a folder{os.pathsep}ü"
    folder.mkdir()
    execute(
        folder,
        f"import sys; open({str(path)!r}, 'w').write(sys.executable); stage.finish()",
        kernel="no-such-kernel",
        fork_server=server_or_none,
    )
    assert path.read_text() == sys.executable


def test_children_of_a_cell_end_with_the_notebook(tmp_path, server_or_none):
    cell = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid); stage.finish()"
    done, *_ = execute(tmp_path, cell, fork_server=server_or_none)
    notebook = nbformat.read(done, as_version=4)
    child = int(notebook.cells[-1].outputs[0].text)
    wait_for(lambda: not psutil.pid_exists(child), within=20)


def test_kernel_imports_the_package_of_this_process(tmp_path, server_or_none):
    """Not that of another checkout that happens to be installed."""
    cell = "import cxr_helpers; stage.log(cxr_helpers.__file__)"
    _, lines, _ = execute(tmp_path, cell, FINISH, fork_server=server_or_none)
    assert lines == [str(Path(cxr_helpers.__file__))]


def test_environment_of_this_process_is_unchanged(tmp_path, server_or_none):
    before = dict(os.environ)
    execute(tmp_path, FINISH, fork_server=server_or_none)
    assert dict(os.environ) == before


def test_standard_error_of_a_kernel_goes_to_its_log(tmp_path, server_or_none, capfd):
    (tmp_path / "library.py").write_text("import os; os.write(2, b'imported')")
    cell = "import os; os.write(2, b'native')"
    execute(tmp_path, "import library", cell, FINISH, fork_server=server_or_none)
    assert "native" in (tmp_path / "run" / "notebooks" / "01_data.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_fault_of_a_kernel_is_recorded(tmp_path, server_or_none):
    cell = "from cxr_helpers.system.errors import DataError\nraise DataError('no images')"
    with pytest.raises(NotebookFailed, match="no images") as error:
        execute(tmp_path, cell, fork_server=server_or_none)
    assert error.value.code == 3


@pytest.mark.skipif(not kernels.has_abstract_sockets(), reason="no abstract sockets here")
def test_kernel_has_no_port_that_another_program_could_take(tmp_path, server_or_none):
    _, lines, _ = execute(tmp_path, TRANSPORT, FINISH, fork_server=server_or_none)
    assert lines == ["ipc"]


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems are imitated")
@pytest.mark.parametrize("limit", ["macOS", "a sandbox"])
def test_kernel_has_ports_where_there_are_no_abstract_sockets(
    tmp_path, monkeypatch, request, limit
):
    class Refused(socket.socket):
        def bind(self, address):
            raise PermissionError(1, "Operation not permitted")

    kernels.has_abstract_sockets.cache_clear()
    request.addfinalizer(kernels.has_abstract_sockets.cache_clear)
    with monkeypatch.context() as patch:
        if limit == "macOS":
            patch.setattr(kernels.sys, "platform", "darwin")
        else:
            patch.setattr(kernels.socket, "socket", Refused)
        assert not kernels.has_abstract_sockets()
    _, lines, _ = execute(tmp_path, TRANSPORT, FINISH)
    assert lines == ["tcp"]


def test_dead_kernel_points_to_memory(tmp_path, server_or_none):
    with pytest.raises(NotebookFailed, match="lack of memory"):
        execute(tmp_path, "import os; os.kill(os.getpid(), 9)", fork_server=server_or_none)


def test_endless_cell_is_stopped(tmp_path, server_or_none):
    with pytest.raises(NotebookFailed, match=r"longer than 1 s \(--timeout\)"):
        execute(tmp_path, "while True: pass", timeout=1, fork_server=server_or_none)


# --- forked ---


@forks
def test_forked_kernels_are_processes_with_what_their_stage_sets(tmp_path, server):
    cell = """
import numpy as np, os
names = ["CXR_RUNNING", "CXR_KERNEL_PID", "TF_CPP_MIN_LOG_LEVEL", "MPLBACKEND"]
stage.log(repr({
    "pids": (os.getpid(), os.getpgrp(), os.getsid(0)), "parent": os.getppid(),
    "folder": os.getcwd(), "variables": {n: os.environ[n] for n in os.environ if n[:4] == "CXR_"},
    "random": np.random.random(),
}))
"""
    kernels = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        _, lines, _ = execute(folder, cell, FINISH, fork_server=server)
        kernels.append(eval(lines[0]))
        assert kernels[-1]["folder"] == str(folder)
        variables = kernels[-1]["variables"]
        assert variables["CXR_KERNEL_PID"].startswith(str(folder))
        assert variables["CXR_KERNEL_RUNNER"] == str(os.getpid())
        assert len(set(kernels[-1]["pids"])) == 1  # of process, group and session
    first, second = kernels
    assert first["parent"] == second["parent"] != os.getpid()
    assert first["pids"] != second["pids"] and first["random"] != second["random"]


@forks
def test_server_imports_libraries_but_nothing_of_this_project(tmp_path, server):
    begin = (
        "import sys; stage.log(str([n in sys.modules for n in ('colorsys', 'cxr_helpers.data')]))"
    )
    imports = "import colorsys\nfrom cxr_helpers.data import class_names"
    _, lines, _ = execute(tmp_path, begin, imports, PARENT, FINISH, fork_server=server)
    assert lines[0] == "[True, False]" and lines[1] != str(os.getpid())


@forks
def test_figures_are_shown_by_the_inline_backend(tmp_path, server):
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    done, *_ = execute(tmp_path, plot, FINISH, fork_server=server)
    (output,) = nbformat.read(done, as_version=4).cells[3].outputs
    assert "image/png" in output.data


@forks
@pytest.mark.parametrize(
    "library",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=[99], daemon=True).start()",
        "import sys\nassert sys.argv[1] == '-f'  # as in a kernel",
        "import os, sys\nsys.argv[1] == '-f' or os.kill(os.getpid(), 9)",
    ],
    ids=["starts a thread", "raises", "crashes"],
)
def test_kernel_is_a_new_process_if_importing_a_library(tmp_path, server, library):
    (tmp_path / "library.py").write_text(library)
    _, lines, _ = execute(tmp_path, "import library", PARENT, FINISH, fork_server=server)
    assert lines == [str(os.getpid())]
    assert children() == []


@forks
def test_missing_library_is_reported_by_the_cell_that_imports_it(tmp_path, server):
    with pytest.raises(NotebookFailed, match=r"cell 3: .*no_such_package") as error:
        execute(tmp_path, "import no_such_package", FINISH, fork_server=server)
    assert error.value.code == 6


@forks
def test_running_kernel_outlives_the_server_and_the_next_is_a_new_process(tmp_path, server):
    cell = "import os, time; os.kill(os.getppid(), 9); time.sleep(0.5)"
    execute(tmp_path, cell, FINISH, fork_server=server)
    _, lines, _ = execute(tmp_path, PARENT, FINISH, fork_server=server)
    assert lines == [str(os.getpid())]


def test_kernel_is_a_new_process_where_forking_is_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv(fork_server.OFF, "1")
    with ForkServer() as server:
        _, lines, _ = execute(tmp_path, PARENT, FINISH, fork_server=server)
        assert lines == [str(os.getpid())]


@pytest.mark.skipif(os.name != "posix", reason="POSIX processes")
def test_kernel_is_a_new_process_on_other_systems_than_linux(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with ForkServer() as server:
        _, lines, _ = execute(tmp_path, PARENT, FINISH, fork_server=server)
        assert lines == [str(os.getpid())]


def test_kernel_runs_where_there_is_no_fork_at_all(tmp_path, monkeypatch):
    """As on Windows: without the guard, and without groups of processes."""
    forget = "import os\nfor name in ('fork', 'setsid', 'killpg', 'getppid'): delattr(os, name)\n"
    (tmp_path / "sitecustomize.py").write_text(forget, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delattr(os, "killpg")
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    cell = "import os; stage.log(str(hasattr(os, 'fork')))"
    with ForkServer() as server:
        _, lines, _ = execute(tmp_path, cell, FINISH, fork_server=server)
    assert lines == ["False"] and children() == []


class Process:
    """What psutil lists of a process; on Windows, the number of a parent stays."""

    def __init__(self, pid, parent, created):
        self.pid, self.ended = pid, False
        self.ppid, self.create_time = lambda: parent, lambda: created

    def kill(self):
        self.ended = True


@pytest.mark.parametrize(("created", "is_kernel"), [(45, True), (55, False)])
def test_kernel_and_its_children_end_where_there_are_no_groups_of_processes(
    created, is_kernel, tmp_path, monkeypatch
):
    """A process that is younger than the file has the number of a kernel that has ended."""
    pid, kernel = tmp_path / "pid", Process(100, 9, created)
    pid.write_text("100", encoding="ascii")
    os.utime(pid, (50, 50))
    processes = [
        Process(1, 100, 60),  # its child
        Process(2, 1, 70),  # and that one's
        Process(3, 9, 60),  # another's
        Process(4, 100, 40),  # of an earlier process with that number
    ]
    gone = Process(5, 100, 60)
    gone.kill = lambda: (_ for _ in ()).throw(psutil.NoSuchProcess(5))
    monkeypatch.delattr(os, "killpg")
    monkeypatch.setattr(kernels.psutil, "process_iter", lambda: [gone, *processes])
    monkeypatch.setattr(kernels.psutil, "Process", {100: kernel}.__getitem__)
    kernels.end_group(pid)
    assert [process.ended for process in processes] == [True, True, False, False]
    assert kernel.ended == is_kernel
    pid.unlink()
    kernels.end_group(pid)  # of a kernel that never started


def test_group_ends_the_kernels_that_run(tmp_path, monkeypatch):
    ended, group = [], kernels.Group()
    monkeypatch.setattr(kernels, "end_group", ended.append)
    first, second = tmp_path / "first", tmp_path / "second"
    with group.including(first):
        with group.including(second):
            group.end()
        assert set(ended) == {first, second}
        group.end()
    group.end()
    assert ended[2:] == [first]


def fork(server, program, folder, imports=()):
    return server.fork(program, [], imports=imports, environment=os.environ, folder=folder)


@forks
def test_server_ends_with_its_context(tmp_path):
    with ForkServer() as server:
        process = fork(server, "pass", tmp_path)
        process.wait()
        assert len(children()) == 1
    assert children() == []


@forks
def test_forked_process_is_interrupted_and_its_end_noticed(tmp_path, server):
    # in a background job of a shell, SIGINT would be ignored
    program = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "open('started', 'w'); time.sleep(1000)"
    process = fork(server, program, tmp_path)
    wait_for((tmp_path / "started").exists)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait() == process.poll() == 1
    wait_for(lambda: not psutil.pid_exists(process.pid))
    process.kill()  # of a process that has ended: no error


@forks
def test_kill_9_of_the_runner_while_the_server_imports_leaves_no_process(tmp_path):
    code = """
import os
from cxr_helpers.pipeline.fork_server import ForkServer
imports = ["import time", "open('importing', 'w')", "time.sleep(1000)"]
ForkServer().fork("", [], imports=imports, environment=os.environ, folder=os.getcwd())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(cxr_helpers.__file__).parents[1])}
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    wait_for((tmp_path / "importing").exists)
    (server,) = psutil.Process(runner.pid).children()
    runner.kill()
    runner.wait()
    wait_for(lambda: is_gone(server), within=20)


@forks
def test_end_of_the_server_frees_a_thread_that_waits_for_its_answer(tmp_path):
    imports = [f"open({str(tmp_path / 'importing')!r}, 'w')", "import time; time.sleep(1000)"]
    with ForkServer() as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(fork, server, "", tmp_path, imports)
        wait_for((tmp_path / "importing").exists)
        assert not answer.done()
        server.end()
        assert answer.result(timeout=20) is None


@forks
def test_server_outlives_the_thread_that_asked_first(tmp_path):
    """Linux would end it with the thread that started it."""
    program = f"open({str(tmp_path / 'ran')!r}, 'w')"
    with ForkServer() as server:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(fork, server, "", tmp_path).result() is not None
        time.sleep(0.5)
        assert fork(server, program, tmp_path) is not None
        wait_for((tmp_path / "ran").exists)


def test_no_kernel_starts_in_a_group_that_was_ended(tmp_path):
    group = kernels.Group()
    group.end()
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    kernel = kernels.this_interpreter(tmp_path, log=tmp_path / "log", environment={}, group=group)
    with kernel as (manager, _), pytest.raises(RuntimeError, match="the run was stopped"):
        asyncio.run(manager().start_kernel())

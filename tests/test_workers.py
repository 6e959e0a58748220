"""Whole runs of the tiny project on workers of Dask: real schedulers and workers, really killed.

What one machine can show: the workers are processes of this machine.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest
import tiny
from tiny import HOLD, descendants, ended, is_gone, kill, wait_for

from cxr_helpers.pipeline import graph, runs
from cxr_helpers.pipeline.runs import Run

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="POSIX signals"),
    pytest.mark.slow,
]
AGAIN = "the same command continues from here"
# Holds the first time only: the next worker finds the file.
HOLD_ONCE = f"if not Path('held').exists():\n    Path('held').touch()\n    exec({HOLD!r})"
SEED = "\nstage.save('seed.txt', Path.write_text, str(seed))"  # an artifact that depends on it


@dataclass
class Cluster:
    """A scheduler and workers of this machine, started as on several."""

    file: str
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]

    @property
    def option(self):
        return ("--cluster", self.file)

    def holder(self, child):
        """Return the worker that a process descends from."""
        (found,) = [w for w in self.workers if child in descendants(w)]
        return found


@contextmanager
def cluster(project, *, workers=2, planted=None):
    """Start a cluster in a project's folder; the planted code runs in stages on its workers."""
    variables = {f"TINY_{stage}": code for stage, code in (planted or {}).items()}
    file = project.root / "dask.json"

    def dask(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
            cwd=project.root,
            env=os.environ | variables | {"PYTHONPATH": str(project.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    started = [
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    ]
    try:
        wait_for(file.exists)
        for _ in range(workers):
            own = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
            started.append(dask("worker", "--scheduler-file", str(file), *own))
        yield Cluster(str(file), started[0], started[1:])
    finally:
        for process in started:
            process.kill()
            process.wait()


def artifacts(run):
    """Return the content of a run's artifacts by stage and name, without times and machines."""
    contents = {}
    for path in sorted(run.folder.rglob("stages/*/*")):
        content = path.read_bytes()
        if path.name == runs.DECLARED:
            declared = json.loads(content)
            content = {k: declared[k] for k in ("outputs", "inputs", "facts")}
        if path.name != runs.MANIFEST:
            contents[str(path.relative_to(run.folder))] = content
    return contents


def results(run):
    return {name: (run.folder / name).read_bytes() for name in ("results.csv", "results.json")}


# --- equal results ---


def test_seeds_on_two_workers_give_the_bytes_of_one_process(project):
    """A rerun in one process does nothing more, and the other way round."""
    tiny.write_notebook(project.root / "notebooks" / "03_categorical.ipynb", more=SEED)
    command = ("--seeds", "0-2", "--no-pdf", "--threads", "1")
    done = project.run(*command, "--workers", "2")
    assert done.code == 0, done.text
    assert "tasks: 3, threads of each: 1" in done.text
    assert "│ phantom-standard │ done " in done.text and "│   seed 2         │ done" in done.text
    ran = project.take_log()
    assert sorted(ran) == sorted([*graph.default(), *graph.default().retrained * 2])
    run = Run(project.run_dir)
    on_workers = artifacts(run), results(run)
    assert {k: v for k, v in on_workers[0].items() if k.endswith("seed.txt")} == {
        "stages/03_categorical/seed.txt": b"0",
        "seeds/1/stages/03_categorical/seed.txt": b"1",
        "seeds/2/stages/03_categorical/seed.txt": b"2",
    }
    assert "seeds_mean" in (project.run_dir / "results.csv").read_text()
    assert project.run(*command).code == 0 and project.take_log() == []
    assert project.run(*command, "--force").code == 0 and project.take_log() == ran_once(ran)
    assert (artifacts(run), results(run)) == on_workers
    assert project.run(*command, "--workers", "2").code == 0 and project.take_log() == []


def ran_once(ran):
    """Return the same stages in the order of one process."""
    assert len(ran) == len(graph.default()) + 2 * len(graph.default().retrained)
    return [*graph.default(), *graph.default().retrained * 2]


def test_grid_makes_a_run_for_each_combination_and_an_overview(project):
    command = ("--grid", "05_knn.number=2,3", "--no-pdf")
    done = project.run(*command, "--workers", "2")
    assert done.code == 0, done.text
    build = project.root / "report" / "build"
    for number in (2, 3):
        run = Run(build / f"phantom-standard-number-{number}")
        assert f"05_knn {number} " in (run.stage("05_knn") / "value.txt").read_text()
        assert (run.folder / "report.html").exists()
    folder = build / "phantom-standard-number-overview"
    assert done.last == f"overview: report/build/{folder.name}/overview.html"
    page = (folder / "overview.html").read_text()
    assert "../phantom-standard-number-2/report.html" in page and "05_knn.number" in page
    header, first = (folder / "overview.csv").read_text().splitlines()[:2]
    assert header.startswith("run,data,05_knn.number,row,split,metric,value")
    assert first.startswith("phantom-standard-number-2,phantom,2,")
    project.take_log()
    again = project.run(*command)
    assert again.code == 0 and project.take_log() == []
    assert again.last == done.last


# --- a worker ends ---


def test_task_of_a_killed_worker_moves_to_another_one(finished):
    """kill -9 while a cell writes: its processes end, and the result is that of one process."""
    before = artifacts(Run(finished.run_dir))
    with cluster(finished, planted={"02_binary": HOLD_ONCE}) as two:
        run = finished.start("--only", "02", *two.option)
        child = finished.held()
        worker = two.holder(child)
        processes = descendants(worker)
        kill(worker)
        done = ended(run)
        wait_for(lambda: all(map(is_gone, processes)), within=20)
    assert done.code == 0, done.text
    assert "phantom-standard: again on " in done.text
    assert finished.take_log() == ["02_binary"] * 2
    assert artifacts(Run(finished.run_dir)) == before and finished.partial() == []


def test_local_worker_that_is_killed_is_replaced(finished):
    """The same with --workers, whose worker processes are the driver's."""
    before = artifacts(Run(finished.run_dir))
    run = finished.start("--only", "02", "--workers", "1", planted={"02_binary": HOLD_ONCE})
    child = finished.held()
    (worker,) = [
        p for p in psutil.Process(run.pid).children() if child in p.children(recursive=True)
    ]
    worker.kill()
    done = ended(run)
    assert done.code == 0, done.text
    assert finished.take_log() == ["02_binary"] * 2
    assert artifacts(Run(finished.run_dir)) == before and finished.partial() == []


# --- a notebook fails ---


def test_failed_seeds_are_named_and_the_others_finish(project):
    """They are not tried again."""
    fail = "Path('tried.txt').open('a').write(f'{seed} ')\nassert seed != 1, 'odd'"
    done = project.run("--seeds", "0-2", "--workers", "2", planted={"02_binary": fail})
    assert done.code == 4
    assert done.last == (
        "error: seed 1 of phantom-standard failed: 02_binary.ipynb, cell 4: AssertionError: odd"
    )
    tried = (project.root / "notebooks" / "tried.txt").read_text().split()
    assert sorted(tried) == ["0", "1", "2"]
    run = Run(project.run_dir)
    assert run.seed(2).is_complete("05_knn") and not run.seed(1).is_complete("02_binary")
    assert not (project.run_dir / "report.html").exists()
    project.take_log()
    again = project.run("--seeds", "0-2", "--workers", "2", "--no-pdf")
    assert again.code == 0 and set(project.take_log()) == set(graph.default().retrained)
    assert (project.run_dir / "report.html").exists()


def test_seeds_of_a_failed_run_are_not_run(project):
    done = project.run("--seeds", "0-1", "--workers", "2", planted={"02_binary": "assert False"})
    assert done.code == 4 and "error: phantom-standard failed: 02_binary.ipynb" in done.last
    assert "phantom-standard, seed 1: not run" in done.text
    assert project.take_log() == ["01_data", "02_binary"]


# --- the scheduler or the driver ends ---


def test_scheduler_that_is_gone_is_reported_and_its_tasks_end(finished):
    with cluster(finished, workers=1, planted={"02_binary": HOLD_ONCE}) as one:
        run = finished.start("--only", "02", *one.option)
        processes = [finished.held(), *descendants(one.workers[0])]
        kill(one.scheduler)
        done = ended(run)
        wait_for(lambda: all(map(is_gone, processes)), within=40)
    assert done.code == 6
    assert done.last.startswith("error: the scheduler ") and "the same command" in done.last
    finished.take_log()
    assert finished.run("--only", "02").code == 0
    assert finished.take_log() == ["02_binary"] and finished.partial() == []


def test_tasks_of_a_killed_driver_end(finished):
    """The cluster stays and serves the next driver."""
    with cluster(finished, workers=1, planted={"02_binary": HOLD_ONCE}) as one:
        run = finished.start("--only", "02", *one.option)
        processes = [finished.held(), *descendants(one.workers[0])]
        kill(run)
        wait_for(lambda: all(map(is_gone, processes)), within=40)
        finished.take_log()
        again = finished.run("--only", "02", *one.option)
    assert again.code == 0, again.text
    assert finished.take_log() == ["02_binary"] and finished.partial() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tasks_of_a_stopped_driver_end(finished, number):
    with cluster(finished, workers=1, planted={"02_binary": HOLD}) as one:
        run = finished.start("--only", "02", *one.option)
        processes = [finished.held(), *descendants(one.workers[0])]
        run.send_signal(number)
        done = ended(run)
        assert done.code == 128 + number
        assert done.last == f"error: stopped by {number.name}; {AGAIN}"
        assert all(map(is_gone, processes)) and one.workers[0].poll() is None
    assert finished.partial() == [] and Run(finished.run_dir).manifest("02_binary") is None


def test_killed_driver_leaves_none_of_its_own_workers(finished):
    run = finished.start("--only", "02", "--workers", "2", planted={"02_binary": HOLD})
    processes = [finished.held(), *descendants(run)]
    kill(run)
    wait_for(lambda: all(map(is_gone, processes)), within=40)


def test_ctrl_c_in_the_terminal_ends_the_driver_and_its_workers(finished):
    """The terminal sends it to all processes of the group, the workers too."""
    planted = {"02_binary": HOLD}
    run = finished.start("--only", "02", "--workers", "2", planted=planted, start_new_session=True)
    processes = [finished.held(), *descendants(run)]
    os.killpg(run.pid, signal.SIGINT)
    done = ended(run)
    assert done.code == 130 and done.last == f"error: stopped by SIGINT; {AGAIN}"
    assert "Traceback" not in done.text
    wait_for(lambda: all(map(is_gone, processes)), within=20)
    assert finished.partial() == []


def test_second_driver_in_a_folder_is_refused(finished):
    """[PRC-04] It does not disturb the first."""
    with cluster(finished, planted={"02_binary": HOLD}) as two:
        first = finished.start("--only", "02", *two.option)
        finished.held()
        second = finished.run("--only", "06", *two.option)
        assert second.code == 5 and f"in use by process {first.pid}:" in second.last
        assert first.poll() is None and finished.take_log() == ["02_binary"]
        kill(first)


# --- refused ---


def test_without_dask_one_line_names_what_to_install(finished):
    absent = (
        "import sys; sys.modules['distributed'] = None; import run_all; sys.exit(run_all.main())"
    )
    done = finished.run("--workers", "2", code=absent)
    assert done.code == 6 and done.last == (
        "error: Dask is not installed: `uv sync --extra cluster`, or `pip install distributed "
        "cryptography`"
    )
    assert finished.run("--dry-run", "--workers", "2", code=absent).code == 0


def test_cluster_without_a_scheduler_is_refused(finished):
    done = finished.run("--cluster", "none.json")
    assert done.code == 2 and "--cluster none.json: no such scheduler file" in done.last
    done = finished.run("--cluster", "192.0.2.1:8786")
    assert done.code == 2 and "is plain TCP" in done.last

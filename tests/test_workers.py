"""Whole runs of the tiny project on workers of Dask: real schedulers and workers, really killed.

What one machine can show: the workers are processes of this machine.
"""

import json
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest
import tiny
import warm
from distributed.security import Security
from tiny import HOLD, descendants, ended, is_gone, kill, wait_for

from cxr_helpers.pipeline import graph, runs
from cxr_helpers.pipeline.runs import Run

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="POSIX signals"),
    pytest.mark.slow,
]
DASK = """
import sys
from dask.cli import run_cli
sys.argv[0] = "dask"
run_cli()
"""
AGAIN = "the same command continues from here"
# Holds the first time only: the next worker finds the file.
HOLD_ONCE = f"if not Path('held').exists():\n    Path('held').touch()\n    exec({HOLD!r})"
SEED = "\nstage.save('seed.txt', Path.write_text, str(seed))"  # an artifact that depends on it


@dataclass
class Cluster:
    """A scheduler and workers of this machine, started as on several."""

    file: str
    scheduler: warm.Started
    workers: list[warm.Started]

    @property
    def option(self):
        return ("--cluster", self.file)

    def holder(self, child):
        """Return the worker that a process descends from."""
        (found,) = [w for w in self.workers if child in descendants(w)]
        return found


@contextmanager
def cluster(project, *, workers=2, planted=None, options=()):
    """Start a cluster in a project's folder; the planted code runs in stages on its workers.

    ``options`` are those of scheduler and workers.
    """
    variables = {f"TINY_{stage}": code for stage, code in (planted or {}).items()}
    file = project.root / "dask.json"

    def dask(*arguments):
        return warm.server().start(
            DASK,
            [*arguments, "--no-dashboard", *options],
            environment=os.environ | variables | {"PYTHONPATH": str(project.root)},
            folder=project.root,
            quiet=True,
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


def run(project, *arguments, **options):
    """Run a command that takes longer than one run of the tiny project."""
    return ended(project.start(*arguments, **options), within=300)


def results(run):
    return {name: (run.folder / name).read_bytes() for name in ("results.csv", "results.json")}


# --- equal results ---


def test_seeds_on_two_workers_give_the_bytes_of_one_process(finished, tmp_path):
    """Of the run itself only the stage that has changed, and those that read it, run again."""
    tiny.write_notebook(finished.root / "notebooks" / "03_categorical.ipynb", more=SEED)
    shutil.copytree(finished.root, tmp_path / "other")
    other = tiny.Project(tmp_path / "other")
    command = ("--seeds", "0-2", "--no-report", "--threads", "1")
    assert run(other, *command).code == 0
    done = run(finished, *command, "--workers", "2")
    assert done.code == 0, done.text
    assert "tasks: 3, threads of each: 1" in done.text
    assert "│ phantom-standard │ done " in done.text and "│   seed 2         │ done" in done.text
    assert sorted(finished.take_log()) == sorted(other.take_log())
    ours, theirs = Run(finished.run_dir), Run(other.run_dir)
    assert artifacts(ours) == artifacts(theirs) and results(ours) == results(theirs)
    for seed in (1, 2):
        path = ours.seed(seed).stage("03_categorical") / "seed.txt"
        assert path.read_text() == str(seed)
        assert ours.seed(seed).manifest("02_binary")["machine"]["threads"] == 1
    assert "seeds_mean" in (finished.run_dir / "results.csv").read_text()
    assert run(finished, *command).code == 0 and finished.take_log() == []


def test_grid_makes_a_run_for_each_combination_and_an_overview(project):
    command = ("--grid", "05_knn.number=2,3", "--no-pdf")
    done = run(project, *command, "--workers", "2")
    assert done.code == 0, done.text
    build = project.root / "report" / "build"
    for number in (2, 3):
        made = Run(build / f"phantom-standard-number-{number}")
        assert f"05_knn {number} " in (made.stage("05_knn") / "value.txt").read_text()
        assert (made.folder / "report.html").exists()
    folder = build / "phantom-standard-number-overview"
    assert done.last == f"overview: report/build/{folder.name}/overview.html"
    page = (folder / "overview.html").read_text()
    assert "../phantom-standard-number-2/report.html" in page and "05_knn.number" in page
    header, first = (folder / "overview.csv").read_text().splitlines()[:2]
    assert header.startswith("run,data,05_knn.number,row,split,metric,value")
    assert first.startswith("phantom-standard-number-2,phantom,2,")
    project.take_log()
    again = run(project, *command)
    assert again.code == 0 and project.take_log() == []
    assert again.last == done.last


# --- a worker ends ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_task_of_a_worker_that_ends_moves_to_another_one(finished, number):
    """While a cell writes; its processes end, and the result is that of one process.

    SIGTERM is what batch systems send before they take a machine away.
    """
    before = artifacts(Run(finished.run_dir))
    with cluster(finished, planted={"02_binary": HOLD_ONCE}) as two:
        driver = finished.start("--only", "02", "--no-report", *two.option)
        child = finished.held()
        worker = two.holder(child)
        processes = descendants(worker)
        worker.send_signal(number)
        done = ended(driver)
        wait_for(lambda: all(map(is_gone, processes)), within=20)
    assert done.code == 0, done.text
    assert "phantom-standard: again on " in done.text
    assert finished.take_log() == ["02_binary"] * 2
    assert artifacts(Run(finished.run_dir)) == before and finished.partial() == []


def test_local_worker_that_is_killed_is_replaced(finished):
    """The same with --workers, whose worker processes are the driver's."""
    before = artifacts(Run(finished.run_dir))
    driver = finished.start(
        "--only", "02", "--no-report", "--workers", "1", planted={"02_binary": HOLD_ONCE}
    )
    child = finished.held()
    (worker,) = [
        p for p in psutil.Process(driver.pid).children() if child in p.children(recursive=True)
    ]
    worker.kill()
    done = ended(driver)
    assert done.code == 0, done.text
    assert finished.take_log() == ["02_binary"] * 2
    assert artifacts(Run(finished.run_dir)) == before and finished.partial() == []


# --- a notebook fails ---


def test_failed_seeds_are_named_and_the_others_finish(finished):
    """They are not tried again."""
    fail = "Path('tried.txt').open('a').write(f'{seed} ')\nassert seed != 1, 'odd'"
    command = ("--seeds", "0-2", "--no-report", "--workers", "2")
    done = run(finished, *command, planted={"02_binary": fail})
    assert done.code == 4
    assert done.last == (
        "error: seed 1 of phantom-standard failed: 02_binary.ipynb, cell 4: AssertionError: odd"
    )
    tried = (finished.root / "notebooks" / "tried.txt").read_text().split()
    assert sorted(tried) == ["1", "2"]
    made = Run(finished.run_dir)
    assert made.seed(2).is_complete("05_knn") and not made.seed(1).is_complete("02_binary")
    assert "seeds_mean" not in (finished.run_dir / "results.csv").read_text()
    finished.take_log()
    assert run(finished, *command).code == 0
    assert finished.take_log() == list(graph.default().retrained)
    assert "seeds_mean" in (finished.run_dir / "results.csv").read_text()


def test_seeds_of_a_failed_run_are_not_run(project):
    done = project.run("--seeds", "0-1", "--workers", "1", planted={"02_binary": "assert False"})
    assert done.code == 4 and "error: phantom-standard failed: 02_binary.ipynb" in done.last
    assert "phantom-standard, seed 1: not run" in done.text
    assert project.take_log() == ["01_data", "02_binary"]


# --- the scheduler or the driver ends ---


def test_scheduler_that_is_gone_is_reported_and_its_tasks_end(finished):
    with cluster(finished, workers=1, planted={"02_binary": HOLD_ONCE}) as one:
        driver = finished.start("--only", "02", "--no-report", *one.option)
        processes = [finished.held(), *descendants(one.workers[0])]
        kill(one.scheduler)
        done = ended(driver)
        wait_for(lambda: all(map(is_gone, processes)), within=40)
    assert done.code == 6
    assert done.last.startswith("error: the scheduler ") and "the same command" in done.last
    finished.take_log()
    assert finished.run("--only", "02", "--no-report").code == 0
    assert finished.take_log() == ["02_binary"] and finished.partial() == []


def test_tasks_of_a_killed_driver_end(finished):
    """The cluster stays and serves the next driver."""
    with cluster(finished, workers=1, planted={"02_binary": HOLD_ONCE}) as one:
        driver = finished.start("--only", "02", "--no-report", *one.option)
        processes = [finished.held(), *descendants(one.workers[0])]
        kill(driver)
        wait_for(lambda: all(map(is_gone, processes)), within=40)
        finished.take_log()
        again = finished.run("--only", "02", "--no-report", *one.option)
    assert again.code == 0, again.text
    assert finished.take_log() == ["02_binary"] and finished.partial() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tasks_of_a_stopped_driver_end(finished, number):
    with cluster(finished, workers=1, planted={"02_binary": HOLD}) as one:
        driver = finished.start("--only", "02", "--no-report", *one.option)
        processes = [finished.held(), *descendants(one.workers[0])]
        driver.send_signal(number)
        done = ended(driver)
        assert done.code == 128 + number
        assert done.last == f"error: stopped by {number.name}; {AGAIN}"
        wait_for(lambda: all(map(is_gone, processes)), within=20)
        assert one.workers[0].poll() is None
    assert finished.partial() == [] and Run(finished.run_dir).manifest("02_binary") is None


def test_killed_driver_leaves_none_of_its_own_workers(finished):
    driver = finished.start("--only", "02", "--workers", "2", planted={"02_binary": HOLD})
    processes = [finished.held(), *descendants(driver)]
    kill(driver)
    wait_for(lambda: all(map(is_gone, processes)), within=40)


def test_ctrl_c_in_the_terminal_ends_the_driver_and_its_workers(finished):
    """The terminal sends it to all processes of the group, the workers too."""
    planted = {"02_binary": HOLD}
    driver = finished.start(
        "--only", "02", "--workers", "2", planted=planted, start_new_session=True
    )
    processes = [finished.held(), *descendants(driver)]
    os.killpg(driver.pid, signal.SIGINT)
    done = ended(driver)
    assert done.code == 130 and done.last == f"error: stopped by SIGINT; {AGAIN}"
    assert "Traceback" not in done.text
    wait_for(lambda: all(map(is_gone, processes)), within=20)
    assert finished.partial() == []


def test_second_driver_in_a_folder_is_refused(finished):
    """[PRC-04] It does not disturb the first."""
    with cluster(finished, planted={"02_binary": HOLD}) as two:
        first = finished.start("--only", "02", "--no-report", *two.option)
        finished.held()
        second = finished.run("--only", "06", *two.option)
        assert second.code == 5 and f"in use by process {first.pid}:" in second.last
        assert first.poll() is None and finished.take_log() == ["02_binary"]
        kill(first)


# --- the connection ---


def test_connection_is_encrypted_with_the_files_that_are_given(finished, tmp_path):
    """Without them, the scheduler is not connected to."""
    own = Security.temporary()
    files = {"ca": own.tls_ca_file, "cert": own.tls_client_cert, "key": own.tls_client_key}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_text(content)
    ca, cert, key = (str(tmp_path / f"{name}.pem") for name in files)
    options = ("--protocol", "tls", "--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key)
    with cluster(finished, workers=1, options=options) as one:
        done = finished.run("--only", "02", "--no-report", *one.option, "--tls", ca, cert, key)
        assert done.code == 0 and finished.take_log() == ["02_binary"], done.text
        done = finished.run("--only", "02", "--no-report", *one.option)
        assert done.code == 2 and done.last.endswith("give --tls CA CERTIFICATE KEY")
    assert finished.take_log() == []


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

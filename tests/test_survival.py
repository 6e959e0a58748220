"""Whole runs of the tiny project that are stopped, run out of resources, or find files changed.

In brackets: the names of the faults in the list that the project is tested against.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import psutil
import pytest
import tiny
from machine import powerless
from tiny import HOLD, descendants, ended, is_gone, kill, wait_for

from cxr_helpers.pipeline import graph, runs
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system import files

AGAIN = "the same command continues from here"
WAIT_AND_FAIL = """
import time
while not Path("begun").exists():
    time.sleep(0.05)
time.sleep(1)
raise RuntimeError("planted")
"""
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def reports(project):
    """Return the present content of the report's files."""
    return {p.name: p.read_bytes() for p in project.run_dir.glob("re*.*") if p.is_file()}


# --- stopped ---


@posix
def test_kill_9_leaves_no_process_and_the_next_run_goes_on(finished):
    """[PRC-01, PRC-04] The runner is killed while a cell is writing and has a child process."""
    run = finished.start("--only", "02", planted={"02_binary": HOLD})
    processes = [finished.held(), *descendants(run)]
    kill(run)
    wait_for(lambda: all(map(is_gone, processes)), within=20)
    assert any(name.endswith("half.txt") for name in finished.partial())
    left = {path.name for path in finished.run_dir.glob("notebooks/.partial-*/*.json")}
    assert left == {"connection.json", "fault.json"}  # of the kernel, nowhere else
    assert not (finished.stage("02_binary") / "half.txt").exists()
    finished.take_log()
    again = finished.run("--only", "02", "--no-report")
    assert again.code == 0 and "02_binary: never finished" in again.text
    assert finished.take_log() == ["02_binary"] and finished.partial() == []


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_in_a_cell_ends_every_process(finished, number):
    """[PRC-02, PRC-03]"""
    run = finished.start("--only", "02", planted={"02_binary": HOLD})
    processes = [finished.held(), *descendants(run)]
    run.send_signal(number)
    done = ended(run)
    assert done.code == 128 + number
    assert done.last == f"error: stopped by {number.name}; {AGAIN}"
    assert "failed" not in done.text and "Traceback" not in done.text
    wait_for(lambda: all(map(is_gone, processes)), within=20)
    assert finished.partial() == [] and not (finished.stage("02_binary") / "half.txt").exists()
    assert Run(finished.run_dir).manifest("02_binary") is None
    assert not (finished.run_dir / "report.html").exists()


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stages_side_by_side_end_with_the_run(finished, number):
    """[PRC-01, PRC-02] Each is in a cell that has a child process."""
    stages = ("02_binary", "04_autoencoder")
    planted = {stage: HOLD.replace("child.t", f"{stage}.t") for stage in stages}
    run = finished.start("--only", "02", "04", "--jobs", "2", planted=planted)
    files = [finished.root / "notebooks" / f"{stage}.txt" for stage in stages]
    wait_for(lambda: all(path.exists() for path in files))
    children = [psutil.Process(int(path.read_text())) for path in files]
    processes = [*children, *descendants(run)]
    run.send_signal(number)
    assert ended(run).code == (-number if number == signal.SIGKILL else 128 + number)
    wait_for(lambda: all(map(is_gone, processes)), within=20)
    for stage in stages:
        assert Run(finished.run_dir).manifest(stage) is None
    if number != signal.SIGKILL:
        assert finished.partial() == []


def test_command_that_finds_all_up_to_date_imports_no_typesetting(finished):
    """These imports took three quarters of its time."""
    code = "import run_all, sys; assert run_all.main() == 0\n"
    code += "heavy = {'nbformat', 'nbconvert', 'papermill', 'IPython', 'seaborn', 'matplotlib.pyplot', 'tensorflow'}\n"
    code += "print(*heavy & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=finished.root, capture_output=True, text=True
    )
    assert done.returncode == 0 and "report" in done.stderr, done.stderr
    assert done.stdout.split() == [] and finished.take_log() == []


@posix
def test_ctrl_c_ends_a_stage_that_goes_on_beside_a_failed_one(finished):
    planted = {"02_binary": "Path('begun').touch()\n" + HOLD, "04_autoencoder": WAIT_AND_FAIL}
    run = finished.start("--only", "02", "04", "--jobs", "2", planted=planted)
    processes = [finished.held(), *descendants(run)]
    for line in run.stderr:
        if "still running" in line:
            break
    run.send_signal(signal.SIGINT)
    done = ended(run)
    assert done.code == 130 and done.last == f"error: stopped by SIGINT; {AGAIN}"
    wait_for(lambda: all(map(is_gone, processes)), within=20)


def test_runs_with_one_and_two_stages_at_once_are_equal(finished):
    """Each from nothing: a stage that began before those that it reads would fail."""
    done = finished.run("--run", "with-1", "--jobs", "1", "--no-report")
    assert done.code == 0, done.text
    assert finished.log() == list(graph.default())
    with_two, with_one = (
        [(run.stage(s) / "value.txt").read_bytes() for s in graph.default()]
        for run in (Run(finished.run_dir), Run(finished.run_dir.with_name("with-1")))
    )
    assert with_two == with_one


@posix
def test_second_ctrl_c_ends_the_run_at_once_and_leaves_no_process(finished):
    """[PRC-03] Planted: a clean-up that hangs."""
    hang = """
import pathlib, run_all, sys, time
from cxr_helpers.pipeline import kernels
kernels.end_group = lambda _: (pathlib.Path("cleaning").touch(), time.sleep(1000))
sys.exit(run_all.main())
"""
    run = finished.start("--only", "02", planted={"02_binary": HOLD}, code=hang)
    processes = [finished.held(), *descendants(run)]
    run.send_signal(signal.SIGINT)
    wait_for((finished.root / "cleaning").exists)
    run.send_signal(signal.SIGINT)
    assert ended(run).code == 130
    wait_for(lambda: all(map(is_gone, processes)), within=20)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_run_stopped_while_it_imports_libraries_leaves_no_process(finished, number):
    """[PRC-01, PRC-03] Planted: a library whose import takes long, in the fork server on Linux."""
    notebook = finished.root / "notebooks" / "02_binary.ipynb"
    tiny.write_notebook(notebook, more="\nimport slow")
    slow = "import time\nopen('importing', 'w')\ntime.sleep(1000)"
    (finished.root / "notebooks" / "slow.py").write_text(slow)
    run = finished.start("--only", "02")
    wait_for((finished.root / "notebooks" / "importing").exists)
    processes = descendants(run)
    run.send_signal(number)
    ended(run)
    assert run.returncode == (130 if number == signal.SIGINT else -number)
    wait_for(lambda: all(map(is_gone, processes)), within=20)


@posix
@pytest.mark.skipif(shutil.which("nohup") is None, reason="no nohup here")
def test_sighup_is_ignored_under_nohup(finished):
    """[PRC-02]"""
    run = finished.start(
        "--only",
        "02",
        planted={"02_binary": HOLD},
        prefix=["nohup"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    finished.held()
    run.send_signal(signal.SIGHUP)
    run.send_signal(signal.SIGTERM)
    assert ended(run).code == 143  # 129 if the first had counted


@posix
def test_closed_terminal_ends_the_run(finished):
    """[PRC-02] The system sends SIGHUP, and the terminal cannot be written to."""
    import pty

    controller, terminal = pty.openpty()
    run = finished.start(
        "--only",
        "02",
        planted={"02_binary": HOLD},
        code="import os, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.dup2(0, 2); "
        "import run_all, sys; sys.exit(run_all.main())",
        stdin=terminal,
        start_new_session=True,
    )
    processes = [finished.held(), *descendants(run)]
    os.close(terminal)
    os.close(controller)
    assert ended(run).code == 129
    wait_for(lambda: all(map(is_gone, processes)), within=20)


@posix
def test_ctrl_c_between_two_notebooks_keeps_finished_stages(project):
    """[PRC-03]"""
    stop = "; ".join(
        [
            "import os, run_all, sys",
            "write = run_all.Run.write_manifest",
            "end = lambda *a, **k: (write(*a, **k), os.kill(os.getpid(), 2))",
            "run_all.Run.write_manifest = end",
            "sys.exit(run_all.main())",
        ]
    )
    done = project.run(code=stop)
    assert done.code == 130 and done.last.endswith(AGAIN)
    assert project.take_log() == ["01_data"]
    plan = project.run("--dry-run").text
    assert "│ 01_data           │ up to date" in plan and "never finished" in plan


@posix
def test_ctrl_c_during_typesetting_leaves_the_old_report(finished):
    """[PRC-03] There is never a new page beside an old PDF."""
    before = reports(finished)
    assert set(before) >= {"report.html", "report.pdf"}
    stop = (
        "import os, report.output, run_all, sys; "
        "report.output.typeset = lambda *a, **k: os.kill(os.getpid(), 2); "
        "sys.exit(run_all.main())"
    )
    done = finished.run("--title", "Another", code=stop)
    assert done.code == 130 and done.last.endswith(AGAIN)
    assert reports(finished) == before and finished.partial() == []


@posix
def test_second_run_in_a_folder_is_refused(finished):
    """[PRC-04] It does not disturb the first."""
    first = finished.start("--only", "02", planted={"02_binary": HOLD})
    finished.held()
    second = finished.run("--only", "06")
    assert second.code == 5 and f"in use by process {first.pid}:" in second.last
    assert "--run" in second.last and first.poll() is None
    assert finished.take_log() == ["02_binary"]
    kill(first)


# --- out of resources ---


@posix
def test_folder_without_write_permission_is_refused_before_any_notebook(project):
    """[OUT-01]"""
    (project.root / "report" / "build").mkdir()
    (project.root / "report" / "build").chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = project.run(prefix=powerless())
    assert done.code == 6
    assert "cannot be written to (Permission denied)" in done.last
    assert project.take_log() == [] and "01_data" not in done.text


@posix
def test_limit_on_file_sizes_is_reported_and_leaves_old_artifacts(finished):
    """[OUT-02] The kernel inherits the limit; the old file stays unchanged."""
    before = (finished.stage("02_binary") / "value.txt").read_bytes()
    large = 'stage.save("value.txt", lambda path: path.write_bytes(bytes(2_000_000)))'
    done = finished.run(
        "--only",
        "02",
        planted={"02_binary": large},
        code="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)); "
        "import run_all, sys; sys.exit(run_all.main())",
    )
    assert done.code == 6
    assert "02_binary.ipynb, cell" in done.last and "File too large" in done.last
    assert "raise the limit" in done.last and "Traceback" not in done.text
    assert (finished.stage("02_binary") / "value.txt").read_bytes() == before
    assert finished.partial() == []


@posix
def test_runner_out_of_disk_is_reported(finished):
    """[OUT-02] The runner writes the outputs of a notebook."""
    done = finished.run(
        "--only",
        "02",
        planted={"02_binary": "print('x' * 2_000_000)"},
        code="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)); "
        "import run_all, sys; sys.exit(run_all.main())",
    )
    assert done.code == 6 and "File too large: raise the limit" in done.last
    assert Run(finished.run_dir).manifest("02_binary") is None and finished.partial() == []


# --- changed ---


def test_unchanged_rerun_runs_and_typesets_nothing(finished):
    """[OUT-06] Not even if every source was touched."""
    for path in [*finished.root.rglob("*.py"), *finished.root.glob("notebooks/*.ipynb")]:
        os.utime(path)
    before = {p: p.stat().st_mtime_ns for p in finished.run_dir.glob("re*.*")}
    done = finished.run()
    assert done.code == 0 and finished.take_log() == []
    assert "│ report            │ up to date" in done.text
    assert "SYNTHETIC PHANTOMS. Table 1" in done.text
    assert {p: p.stat().st_mtime_ns for p in finished.run_dir.glob("re*.*")} == before


def test_changed_notebook_and_helper_rerun_their_stages(finished):
    """[OUT-06] Stages that read them run again if the artifacts have changed."""
    more = "\nstage.save('more.txt', Path.write_text, 'more')"
    tiny.write_notebook(finished.root / "notebooks" / "05_knn.ipynb", more=more)
    helper = finished.root / "cxr_helpers" / "system" / "signals.py"  # only 07 imports it
    helper.write_text(helper.read_text() + "\n# changed\n")
    done = finished.run("--no-report")
    assert done.code == 0
    assert finished.take_log() == ["05_knn", "06_tsne", "07_explainability"]
    assert "05_knn: code of the notebook changed" in done.text
    assert "06_tsne: input changed: 05_knn" in done.text
    assert "07_explainability: helper changed: system.signals" in done.text


def test_changed_markdown_is_in_the_report_without_a_run(finished):
    """A changed colour or caption does not train again: see test_store and test_checkpoints."""
    book = finished.root / "notebooks" / "05_knn.ipynb"
    book.write_text(book.read_text().replace("# Stage 05_knn", "# Neighbours, with a comma"))
    plan = finished.run("--dry-run")
    assert "│ 05_knn            │ text changed" in plan.text and "only if" not in plan.text
    done = finished.run()
    assert done.code == 0 and finished.take_log() == []
    assert "Neighbours, with a comma" in (finished.run_dir / "report.html").read_text()
    assert "│ report            │ up to date" in finished.run().text


def test_changed_markdown_of_a_skipped_stage_leaves_no_report(finished):
    book = finished.root / "notebooks" / "05_knn.ipynb"
    book.write_text(book.read_text().replace("# Stage 05_knn", "# Neighbours"))
    done = finished.run("--from", "06")
    assert done.code == 0 and finished.take_log() == []
    assert "05_knn            │ skipped: text changed" in done.text
    assert "no report: 05_knn not up to date" in done.text


def test_changed_parameter_reruns_its_stage_and_those_that_read_it(finished):
    """[OUT-04]"""
    done = finished.run("--set", "05_knn.number=2", "--no-report")
    assert done.code == 0 and finished.take_log() == ["05_knn", "06_tsne"]
    assert "05_knn: parameter changed: number 1 → 2" in done.text


def test_stage_that_reads_a_stale_one_is_refused(finished):
    """[OUT-04] Only 07 after a change upstream."""
    before = finished.contents()
    done = finished.run("--set", "02_binary.number=2", "--only", "07")
    assert done.code == 2 and finished.take_log() == []
    assert "02_binary is not up to date (parameter changed: number 1 → 2)" in done.last
    assert finished.contents() == before


def test_damaged_stages_run_again(finished):
    """[OUT-05] A manifest overwritten, an artifact edited, one deleted, an executed copy deleted."""
    before = finished.contents()
    (finished.stage("03_categorical") / "manifest.json").write_bytes(b"\xff{}")
    (finished.stage("04_autoencoder") / "value.txt").write_text("edited")
    (finished.stage("06_tsne") / "value.txt").unlink()
    (finished.run_dir / "notebooks" / "07_explainability.ipynb").unlink()
    done = finished.run("--no-report")
    assert done.code == 0
    ran = ["03_categorical", "04_autoencoder", "06_tsne", "07_explainability"]
    assert finished.take_log() == ran
    assert "03_categorical: never finished" in done.text
    assert "04_autoencoder: artifact changed or missing: value.txt" in done.text
    assert "06_tsne: artifact changed or missing: value.txt" in done.text
    assert "07_explainability: executed notebook changed or missing" in done.text
    after = finished.contents()
    assert {n: c for n, c in after.items() if n.endswith("value.txt")} == {
        n: c for n, c in before.items() if n.endswith("value.txt")
    }


def test_input_that_changes_while_a_stage_runs_is_reported(finished):
    """[OUT-08]"""
    edit = '(stage.run_dir / "stages" / "01_data" / "value.txt").write_text("edited")'
    done = finished.run("--only", "02", planted={"02_binary": edit})
    assert done.code == 4
    assert "02_binary: its input 01_data/value.txt changed while it ran" in done.last
    finished.take_log()
    plan = finished.run("--dry-run").text
    assert "artifact changed or missing: value.txt" in plan and "never finished" in plan


def test_code_that_changes_while_a_stage_runs_makes_it_stale(finished):
    """[OUT-08] The recipe is taken before the notebook starts."""
    book = finished.root / "notebooks" / "06_tsne.ipynb"
    edit = (
        'p = Path("06_tsne.ipynb"); p.write_text(p.read_text().replace("inputs = ", "inputs =  "))'
    )
    assert finished.run("--only", "06", "--no-report", planted={"06_tsne": edit}).code == 0
    assert json.loads(book.read_text())["cells"]
    assert "code of the notebook changed" in finished.run("--dry-run").text


def test_edited_report_is_written_again(finished):
    before = reports(finished)
    (finished.run_dir / "report.html").write_text("edited")
    (finished.run_dir / "report.pdf").unlink()
    done = finished.run()
    assert done.code == 0 and finished.take_log() == []
    assert "│ report            │ ran" in done.text
    again = reports(finished)
    assert again["report.html"] == before["report.html"]
    assert again["report.pdf"] == before["report.pdf"]


def test_notes_stand_in_the_report_where_their_names_say(finished):
    notes = finished.root / "report" / "notes"
    notes.mkdir(exist_ok=True)
    words = {"00-introduction": "First words", "02-remark": "On 02", "99-conclusion": "Last words"}
    for name, heading in words.items():
        (notes / f"{name}.md").write_text(f"## {heading}\n\nMy own text.\n")
    done = finished.run()
    assert done.code == 0 and finished.take_log() == []
    html = (finished.run_dir / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h[1-3][^>]*>(.*?)</h[1-3]>", html, flags=re.DOTALL)
    texts = [re.sub(r"<[^>]*>", "", heading) for heading in headings]
    names = [text.lstrip("0123456789. \n").strip() for text in texts]
    expected = ["First words", "Stage 02_binary", "On 02", "Stage 03_categorical", "Last words"]
    assert [name for name in names if name in expected] == expected


def test_report_is_left_out_on_request_and_written_by_the_next_command(finished):
    done = finished.run("--set", "07_explainability.number=2", "--no-report")
    assert done.code == 0 and finished.take_log() == ["07_explainability"]
    assert "│ report            │ left out" in done.text and "report: " not in done.text
    left = {"report.manifest.json", "results.csv", "results.json"}
    assert set(reports(finished)) == left
    done = finished.run("--set", "07_explainability.number=2")
    assert done.code == 0 and finished.take_log() == []
    assert "│ report            │ ran" in done.text
    assert {"report.html", "report.pdf"} < set(reports(finished))
    done = finished.run("--title", "Another", "--no-report")  # of which no report is current
    assert done.code == 0 and set(reports(finished)) == left


def test_without_typst_there_is_a_page_and_one_warning(finished):
    """[PDF-01]"""
    (finished.run_dir / "report.html").unlink()
    absent = "import sys; sys.modules['typst'] = None; import run_all; sys.exit(run_all.main())"
    done = finished.run(code=absent)
    assert done.code == 0
    assert (finished.run_dir / "report.html").exists()
    assert not (finished.run_dir / "report.pdf").exists()
    (warning,) = [line for line in done.text.splitlines() if line.startswith("warning: ")]
    assert warning == "warning: there will be no PDF: typst is not installed (pip install typst)"


def test_other_seeds_train_on_the_same_data_and_are_kept(project):
    """The tiny stages use no seed: tested is which run, where, and what the report reads."""
    assert project.run("--seeds", "0-1").code == 0
    ran = project.take_log()
    assert ran == sorted([*graph.default(), *graph.default().retrained])
    again = project.run_dir / runs.SEEDS / "1" / "stages"
    assert (again / "01_data" / "value.txt").samefile(project.stage("01_data") / "value.txt")
    assert "seeds_mean" in (project.run_dir / "results.csv").read_text()
    assert project.run("--seeds", "0-1").code == 0 and project.take_log() == []
    assert project.run("--no-report").code == 0 and project.take_log() == []
    assert "seeds_mean" not in (project.run_dir / "results.csv").read_text()


def test_run_of_another_version_is_made_again(finished):
    """Planted: declarations without a format, as before the renaming."""
    for stage in graph.default():
        path = finished.stage(stage) / runs.DECLARED
        content = files.read_json(path)
        del content["format"]
        files.write_json(path, content)
    plan = finished.run("--dry-run").text
    assert plan.count("made by another version of this project") == len(graph.default())
    scored = finished.run("--weights-from", "phantom-standard", "--run", "new")
    assert scored.code == 2 and scored.last == (
        "error: --weights-from 'phantom-standard' was made by another version of this project: run "
        "it again first"
    )
    assert finished.run("--no-report").code == 0
    assert finished.take_log() == list(graph.default())

"""A run opened in a real JupyterLab, in a real browser, as its user does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from browser import CHROMIUM, FLAGS
from chain import rounding, run_into
from PIL import Image

import run_all
from cxr_helpers.explore import opening
from cxr_helpers.pipeline.runs import Run

BROWSER = """#!/bin/sh
printf %s "$1" > '{place}'
"""


@pytest.fixture
def run(on_phantoms, tmp_path):
    """Return a copy of the run, named like one of a user."""
    shutil.copytree(on_phantoms.folder, tmp_path / "build" / "mine")
    return Run(tmp_path / "build" / "mine")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_notebook_is_copied_once_and_reads_its_own_run(run):
    path = opening.notebook(run)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (parameters,) = (c for c in cells if "parameters" in c["metadata"].get("tags", []))
    assert parameters["source"] == 'run_dir: str = "."  # folder of the run'
    path.write_text("changed by its user")
    assert opening.notebook(run).read_text() == "changed by its user"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_run_without_a_stage_is_refused(run, capsys):
    shutil.rmtree(run.stage("05_knn"))
    assert run_into(run.folder.parent, "--explore", "mine") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message == "error: --explore 'mine': its 05_knn is not complete: run it again first"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_missing_jupyterlab_is_one_line(run, capsys, monkeypatch):
    monkeypatch.setattr(opening.importlib.util, "find_spec", lambda name: None)
    assert run_into(run.folder.parent, "--explore", "mine") == 6
    assert "JupyterLab is not installed" in capsys.readouterr().err


@pytest.fixture
def lab(run, tmp_path):
    """Start ``run_all.py --explore``; return the address that it opens in the browser."""
    opened, script = tmp_path / "address.txt", tmp_path / "browser.sh"
    script.write_text(BROWSER.format(place=opened))
    script.chmod(0o755)
    code = f"import run_all; run_all.BUILD = run_all.Path({str(run.folder.parent)!r}); "
    code += "run_all.sys.exit(run_all.main())"
    environment = os.environ | {
        "BROWSER": f"{script} %s",  # split at spaces, which the path of Python may have
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
    }
    command = [sys.executable, "-c", code, "--explore", "mine"]
    with subprocess.Popen(
        command,
        cwd=run_all.ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not opened.exists() or not opened.read_text():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
            yield opened.read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            text = process.communicate(timeout=60)[1]
    assert "opens in JupyterLab; Ctrl-C ends it. Not for clinical use." in text


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed")
def test_upload_move_and_read_the_number_in_jupyterlab(lab, run, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    pixels = np.load(run.stage("01_data") / "images.npy")[-1]
    Image.fromarray(pixels).save(tmp_path / "radiograph.png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(lab)
        page.get_by_role("heading", name="Explore a run").wait_for(timeout=60_000)
        page.get_by_text("| Idle").first.wait_for(timeout=120_000)  # else the click is lost
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        answers = page.locator(".cxr-answers")
        answers.wait_for(timeout=300_000)  # imports TensorFlow first
        expect(page.get_by_text("Not for clinical use.").last).to_be_visible()

        with page.expect_file_chooser() as chooser:
            page.locator(".jupyter-button", has_text="Upload").click()
        chooser.value.set_files(tmp_path / "radiograph.png")
        expect(page.get_by_text("uploaded image")).to_be_visible(timeout=20_000)
        saved = float(np.load(run.stage("02_binary") / "probabilities.npy")[-1])
        places = round((rounding(run) + 0.001) / 0.001)
        near = "|".join(f"{saved + d / 1000:.3f}" for d in range(-places, places + 1))
        row = answers.get_by_role("row").filter(has_text="published, binary")
        expect(row).to_contain_text(re.compile(near), timeout=20_000)

        slider = page.locator(".widget-slider", has_text="threshold").get_by_role("slider")
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".cxr-confusion")).to_contain_text("threshold 0.51")
        page.screenshot(path=tmp_path / "panel.png", full_page=True)
        browser.close()

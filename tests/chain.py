"""The whole chain of the real notebooks, with small settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import filelock

import run_all
from cxr_helpers.pipeline.runs import Run

SMALL = {
    **{"n_phantoms": 100, "image_size": 32, "epochs": 2, "study_images": 16},
    **{"ours_widths": "4,8", "ours_crop_size": 16, "ours_test_size": 24},
    **{"max_images": 60, "images_per_row": 2, "images_per_mean": 2, "patch_share": 0.5},
    **{"twin_images": 40, "twin_epochs": 1, "gradient_images": 2, "occlusion_images": 2},
}


def run_into(build, *arguments, settings=SMALL):
    """Run the command line with results in ``build``; return its exit code."""
    before, run_all.BUILD = run_all.BUILD, build
    options = ["--preset", "quick"]
    for name, value in settings.items():
        options += ["--set", f"{name}={value}"]
    if {"--weights-from", "--predict", "--explore"} & set(arguments):  # with those of that run
        options = []
    try:
        return run_all.main([*options, *arguments])
    finally:
        run_all.BUILD = before


def rounding(run: Run) -> float:
    """Return by how much a run's probabilities may differ from those computed in float32."""
    precision = run.manifest("03_categorical")["recipe"]["parameters"]["precision"]
    return 1e-5 if precision == "float32" else 0.01


def shared_run(basetemp: Path) -> Run:
    """Return a run on phantoms; the processes of one test session share it."""

    def make(build: Path) -> None:
        build.mkdir()
        assert run_into(build, "--author", "A. Student", "--course", "Course 101") == 0

    return Run(made_once(basetemp, "ein Ordner mit ü", make) / "phantom-quick")


def made_once(basetemp: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that the processes of one test session share.

    Parameters
    ----------
    basetemp : Path
        ``tmp_path_factory.getbasetemp()``, which differs between the processes of pytest-xdist.
    name : str
        Of the folder.
    make : callable
        Makes it, in the process that asks first.
    """
    shared = basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
    folder, done = shared / name, shared / f"{name}.done"
    with filelock.FileLock(shared / f"{name}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder

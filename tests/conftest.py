"""Fixtures that several test files share."""

import gc
import os
import shutil
from pathlib import Path

import chain
import pytest
import tiny
from devices import before_import, card, float16, no_card, tensorflow_gpu  # noqa: F401
from windows import windows  # noqa: F401

from cxr_helpers.pipeline import graph, stages
from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas

# The first one makes the run that the last four share.
LONGEST = (
    "test_whole_chain",
    "test_survival",
    "test_workers",
    "test_new_network",
    "test_checkpoints",
    "test_exercises",
    "test_opening",
    "test_session",
    "test_panel",
)


def pytest_collection_modifyitems(items):
    """Start with the files that take longest, so that no process waits for them at the end."""
    items.sort(key=lambda item: LONGEST.index(n) if (n := item.path.stem) in LONGEST else 9)


def pytest_collection_finish():
    """Leave what was imported out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _as_the_runner(tmp_path_factory):
    """Let stages write as in the runner's kernels; ``by_hand`` undoes this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(stages.RUNNER, str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="session")
def shared_data():
    """Return the folder with real images and kept lists of versions, which is not in the project."""
    if "CXR_DATA_DIR" not in os.environ:
        pytest.skip("CXR_DATA_DIR does not name the folder of the shared data")
    return Path(os.environ["CXR_DATA_DIR"])


@pytest.fixture
def by_hand(monkeypatch):
    """Open notebooks as a user does, without the runner."""
    monkeypatch.delenv(stages.RUNNER)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    def make(root):
        project = tiny.make(root)
        done = project.run("--jobs", "2")
        assert done.code == 0, done.text
        assert project.take_log() == list(graph.default())

    return tiny.Project(chain.made_once(tmp_path_factory.getbasetemp(), "tiny", make))


@pytest.fixture(scope="session")
def on_phantoms(tmp_path_factory):
    """Return a small run of the real notebooks on phantoms; no test changes it."""
    return chain.shared_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def project(tmp_path):
    """Return a tiny project without a run."""
    return tiny.make(tmp_path / "project")


@pytest.fixture
def finished(_finished, tmp_path):
    """Return a tiny project with a finished run."""
    shutil.copytree(_finished.root, tmp_path / "project")
    return tiny.Project(tmp_path / "project")

"""Fixtures that several files of tests share."""

import shutil

import pytest
import tiny


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    project = tiny.make(tmp_path_factory.mktemp("tiny") / "project")
    done = project.run()
    assert done.code == 0, done.said
    assert project.take_log() == list(tiny.stages.STAGES)
    return project


@pytest.fixture
def project(tmp_path):
    """Return a tiny project that was never run."""
    return tiny.make(tmp_path / "project")


@pytest.fixture
def finished(_finished, tmp_path):
    """Return a tiny project whose run is finished."""
    shutil.copytree(_finished.root, tmp_path / "project")
    return tiny.Project(tmp_path / "project")

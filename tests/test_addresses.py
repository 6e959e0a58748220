"""Notebooks and README carry the address that pyproject.toml gives."""

import json
import shutil

import pytest
from machine import ROOT

from docs import addresses

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/someone/cxr-report"


@pytest.mark.parametrize("path", [ROOT / "README.md", *NOTEBOOKS], ids=lambda path: path.stem)
def test_file_is_up_to_date(path):
    address, release = addresses.project()
    content = addresses.stamped(path, address=address, release=release)
    assert content == path.read_text("utf-8"), "run docs/addresses.py"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Return a copy of the project in which one line of pyproject.toml is set."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    path = tmp_path / "pyproject.toml"
    before = path.read_text()
    line = f'[project.urls]\nRepository = "{ADDRESS}.git"\n'
    path.write_text(before.replace("[project.urls]\n", line))
    assert path.read_text() != before
    monkeypatch.setattr(addresses, "ROOT", tmp_path)
    return tmp_path


def test_one_line_sets_the_address_everywhere(published, capsys):
    assert addresses.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(NOTEBOOKS)
    for path in (published / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        setup = "".join(cells[2]["source"])
        assert f'REPOSITORY = "{ADDRESS}"  # @param' in setup and 'RELEASE = "v0.' in setup
        links = "".join(cells[1]["source"])
        assert links.count(f"/notebooks/{path.name})") == 3
        assert "mybinder.org/v2/gh/someone/cxr-report/v0." in links
    assert "colab.research.google.com/github/someone/" in (published / "README.md").read_text()
    assert addresses.main() == 0 and capsys.readouterr().out == ""  # nothing is left to write


def test_without_an_address_there_are_no_buttons():
    assert "[" not in addresses.buttons("notebooks/01_data.ipynb", address="", release="v1")

"""A report is made anew when anything of it changes, and only then."""

import shutil
from pathlib import Path

import pytest

from cxr_helpers.pipeline import currency, graph, stages


@pytest.fixture
def run(tmp_path):
    """Return a run with a manifest for each stage and a report."""
    run_dir = tmp_path / "run"
    for name in graph.default():
        stages.Stage(name, run_dir=run_dir).finish()
        currency.write(name, {"inputs": 1}, run_dir, seconds=1.0)
    made = [run_dir / name for name in ("report.html", "report.pdf")]
    for path in made:
        path.write_text("made")
    currency.write(recipe(run_dir), run_dir, made)
    return run_dir


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Let the report be that of a copy, which a test may change."""
    here = Path(currency.__file__).parent
    for folder in (here, here.parent / "cxr_helpers"):
        ignored = shutil.ignore_patterns("__pycache__", "build")
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    monkeypatch.setattr(currency, "__file__", str(tmp_path / "report" / "currency.py"))
    return tmp_path


def recipe(run_dir, **options):
    return currency.recipe(run_dir, options={"title": None, "no_pdf": False} | options)


def current(run_dir, **options):
    return currency.is_current(recipe(run_dir, **options), run_dir)


def test_nothing_changed(run):
    assert current(run)
    assert current(run, force=True, debug=True)


@pytest.mark.parametrize(
    "option", [{"title": "x"}, {"author": "x"}, {"course": "x"}, {"no_pdf": 1}]
)
def test_what_the_title_page_says_and_whether_there_is_a_pdf(run, option):
    assert not current(run, **option)


@pytest.mark.parametrize(
    "name",
    [
        "report/report.toml",
        "report/discussion.md",
        "report/html.py",
        "report/templates/html/style.css",
        "report/templates/typst/style.typ",
        "report/templates/markdown.lua",
        "cxr_helpers/results.py",
    ],
)
def test_a_template_or_source_that_changes(sources, run, name):
    assert current(run)
    path = sources / name
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    assert not current(run)
    path.write_bytes(content)  # touched, no more
    assert current(run)


@pytest.mark.parametrize("name", ["report.html", "report.pdf", currency.MANIFEST])
@pytest.mark.parametrize("damage", ["edited", "deleted"])
def test_a_file_that_was_edited_or_deleted(run, name, damage):
    (run / name).unlink() if damage == "deleted" else (run / name).write_text("edited")
    assert not current(run)


def test_a_stage_that_ran_again(run):
    currency.write("05_knn", {"inputs": 2}, run, seconds=1.0)
    assert not current(run)


def test_the_fixed_date(run, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert not current(run)


def test_another_version_of_a_typesetter(run, monkeypatch):
    monkeypatch.setattr(currency.provenance, "versions", lambda names: {"typst": "0"})
    assert not current(run)

"""A report is rendered again when anything that determines it changes, and only then."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from cxr_helpers.pipeline import stages
from cxr_helpers.pipeline.runs import Run
from report import currency


@pytest.fixture
def run(tmp_path):
    """Return a run with a manifest for each stage and a report."""
    run = Run(tmp_path / "run")
    for name in run.graph:
        stages.Stage(name, run_dir=run.folder).finish()
        run.write_manifest(name, {"inputs": 1}, seconds=1.0)
    paths = [run.folder / name for name in ("report.html", "report.pdf")]
    for path in paths:
        path.write_text("rendered")
    currency.write(recipe(run), run, paths)
    return run


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Take the report's sources from a copy, which a test may change."""
    here = Path(currency.__file__).parent
    for folder in (here, here.parent / "cxr_helpers"):
        ignored = shutil.ignore_patterns("__pycache__", "build")
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    monkeypatch.setattr(currency, "__file__", str(tmp_path / "report" / "currency.py"))
    return tmp_path


def recipe(run, **options):
    return currency.recipe(run, options={"title": None, "no_pdf": False} | options)


def is_current(run, **options):
    return currency.is_current(recipe(run, **options), run)


def test_unchanged_report_is_current(run):
    assert is_current(run)
    assert is_current(run, force=True, debug=True)


@pytest.mark.parametrize(
    "option", [{"title": "x"}, {"author": "x"}, {"course": "x"}, {"no_pdf": 1}]
)
def test_changed_title_page_or_pdf_option_makes_it_stale(run, option):
    assert not is_current(run, **option)


def test_lines_that_the_title_page_loses_are_named(run):
    assert currency.lines_left_out(recipe(run, author=""), run) == {}
    currency.write(recipe(run, author="A. Student", course="Course 101"), run, [])
    assert currency.lines_left_out(recipe(run, author="B.", course="Course 101"), run) == {}
    assert currency.lines_left_out(recipe(run, author="", course="Course 102"), run) == {
        "author": "A. Student"
    }
    (run.folder / currency.MANIFEST).unlink()
    assert currency.lines_left_out(recipe(run), run) == {}


@pytest.mark.parametrize(
    "name",
    [
        "report/report.toml",
        "report/discussion.md",
        "report/html.py",
        "report/templates/html/style.css",
        "report/templates/typst/style.typ",
        "report/templates/markdown.lua",
        "cxr_helpers/pipeline/results.py",
    ],
)
def test_changed_template_or_source_makes_it_stale(sources, run, name):
    assert is_current(run)
    path = sources / name
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    assert not is_current(run)
    path.write_bytes(content)  # only the modification time differs
    assert is_current(run)


@pytest.mark.parametrize("name", ["report.html", "report.pdf", currency.MANIFEST])
@pytest.mark.parametrize("damage", ["edited", "deleted"])
def test_edited_or_deleted_file_makes_it_stale(run, name, damage):
    path = run.folder / name
    path.unlink() if damage == "deleted" else path.write_text("edited")
    assert not is_current(run)


def test_rerun_stage_makes_it_stale(run):
    run.write_manifest("05_knn", {"inputs": 2}, seconds=1.0)
    assert not is_current(run)


def test_other_declaration_of_a_row_makes_it_stale(run, monkeypatch):
    """Its label, published accuracy, group or place, in the metadata of a notebook."""
    first, *others = run.graph.rows
    changed = [dataclasses.replace(first, published=0.11), *others]
    monkeypatch.setattr(type(run.graph), "rows", property(lambda graph: changed))
    assert not is_current(run)


def test_source_date_epoch_makes_it_stale(run, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert not is_current(run)


def test_other_version_of_a_typesetter_makes_it_stale(run, monkeypatch):
    monkeypatch.setattr(currency.environment, "versions", lambda names: {"typst": "0"})
    assert not is_current(run)

"""The rooms keep their direction, and the page about them is up to date."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = "from importlinter.cli import lint_imports_command as lint; lint()"
SOURCES = {
    "run_all.py": ["run_all.py"],
    "report": ["report/contents.py"],
}


@pytest.fixture(scope="module")
def architecture():
    place = ROOT / "docs" / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules["architecture"] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["architecture"]


@pytest.fixture(scope="module")
def rooms(architecture):
    return architecture.rooms()


@pytest.fixture(scope="module")
def steps(architecture, rooms):
    return architecture.ways({name: room.imports for name, room in rooms.items()})


def lint(folder):
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"], cwd=folder, capture_output=True, text=True
    )


def test_imports_keep_the_contracts():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


AGAINST = {
    "upwards": ("models/training.py", "from cxr_helpers.pipeline import runs"),
    "sibling": ("explain/occlusion.py", "from cxr_helpers.anomaly import texture"),
    "evaluation": ("evaluation/metrics.py", "from cxr_helpers.data import labels"),
    "of evaluation": ("shortcuts/border.py", "from cxr_helpers.evaluation import metrics"),
    "lazy": ("system/files.py", "def later():\n    from cxr_helpers.data import dataset"),
    "for types": (
        "system/errors.py",
        "if TYPE_CHECKING:\n    from cxr_helpers.phantoms import anatomy",
    ),
}


def lint_with(folder, imports):
    """Lint a copy of the package with more imports at the ends of its modules."""
    for name in ("cxr_helpers", "report"):
        ignored = shutil.ignore_patterns("__pycache__", "build")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / ".importlinter", folder)
    for module, line in imports:
        with open(folder / "cxr_helpers" / module, "a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    done = lint(folder)
    assert done.returncode == 1 and "BROKEN" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return lint_with(tmp_path_factory.mktemp("broken"), AGAINST.values())


@pytest.mark.parametrize("kind", AGAINST)
def test_import_against_a_contract_is_refused(broken, kind):
    module, line = AGAINST[kind]
    _, imported, _, name = line.split()[-4:]
    importer = "cxr_helpers." + module.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {imported}.{name}" in broken


def test_circle_of_two_modules_is_refused(tmp_path):
    output = lint_with(tmp_path, [("data/splits.py", "from cxr_helpers.data import dataset")])
    assert ".splits -> .dataset" in output


def test_page_is_up_to_date(architecture, rooms, steps):
    expected = architecture.page(architecture.table(rooms, steps))
    assert architecture.PAGE.read_text(encoding="utf-8") == expected, "uv run docs/architecture.py"


def test_picture_is_up_to_date(architecture, rooms, steps):
    expected = architecture.picture(rooms, steps)
    is_same = architecture.PICTURE.read_text(encoding="utf-8") == expected
    assert is_same, "uv run docs/architecture.py"


def test_recorded_calls_are_those_of_the_notebooks_and_the_report(steps):
    for step in steps:
        names = SOURCES.get(step.caller, [f"notebooks/{step.caller}.ipynb"])
        source = "".join((ROOT / name).read_text(encoding="utf-8") for name in names)
        *_, name = step.call.split(".")
        assert (f".{name}(" if "." in step.call else f"{step.module}.{name}") in source, step


def test_every_room_states_its_purpose(rooms):
    assert not [name for name, room in rooms.items() if len(room.purpose.split()) < 4]


def test_returns_counts_rooms_entered_again(architecture):
    assert architecture.returns(["data", "models", "data", "models", "figures"]) == [
        "data",
        "models",
    ]
    assert architecture.returns(["data", "models"]) == []

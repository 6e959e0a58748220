"""Staleness knows every way in which a module is imported here; other ways are forbidden."""

import ast
import json
from pathlib import Path

import pytest

from cxr_helpers.pipeline import dependencies

ROOT = Path(dependencies.__file__).parents[2]


@pytest.mark.parametrize(
    "source",
    [
        "from cxr_helpers import occlusion",
        "from cxr_helpers import occlusion as o",
        "from cxr_helpers.explain.occlusion import positions",
        "import cxr_helpers.explain.occlusion",
        "import json, cxr_helpers.explain.occlusion as o",
        "from . import occlusion",
        "from .occlusion import positions",
        "def f():\n    from cxr_helpers import occlusion",
        "%matplotlib inline\nfrom cxr_helpers import occlusion",
    ],
)
def test_every_form_of_import_is_known(source):
    assert dependencies.modules_of([source]) == ["occlusion"]


def test_modules_count_through_others():
    through = dependencies.modules_of(["from cxr_helpers import dataset"])
    assert {"dataset", "folder", "splits", "stages", "atomic"} <= set(through)
    assert "gradcam" not in through


def test_a_module_that_is_written_again_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(dependencies, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("from cxr_helpers import b")
    (tmp_path / "b.py").write_text("")
    assert dependencies.modules_of(["import cxr_helpers.a"]) == ["a", "b"]
    (tmp_path / "a.py").write_text("from cxr_helpers import b, c")
    (tmp_path / "c.py").write_text("")
    assert dependencies.modules_of(["import cxr_helpers.a"]) == ["a", "b", "c"]
    assert set(dependencies.digest_each(["a", "gone"])) == {"a"}


def sources():
    for path in sorted((ROOT / "cxr_helpers").rglob("*.py")):
        yield path.name, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path.name, "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def hidden_imports(source):
    """Return what imports modules in a way that ``helpers_of`` does not see."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name in ("importlib", "cxr_helpers")]
        elif isinstance(node, ast.ImportFrom) and node.module == "importlib":
            found += [a.name for a in node.names if a.name == "import_module"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxr_helpers"):
            found += [a.name for a in node.names if a.name == "*"]
        elif isinstance(node, ast.Attribute) and node.attr == "import_module":
            found.append(node.attr)
        elif isinstance(node, ast.Name) and node.id == "__import__":
            found.append(node.id)
    return found


@pytest.mark.parametrize(
    "planted",
    ["__import__('x')", "import importlib", "from importlib import import_module",
     "import importlib.util; importlib.import_module('x')",
     "import cxr_helpers", "from cxr_helpers import *"],
)  # fmt: skip
def test_a_planted_hidden_import_is_found(planted):
    assert hidden_imports(planted)


def test_no_module_is_imported_in_another_way():
    assert {name: found for name, text in sources() if (found := hidden_imports(text))} == {}

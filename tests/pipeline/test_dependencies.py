"""Staleness follows every form of import that is used here; other forms are forbidden."""

import ast
import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cxr_helpers.pipeline import dependencies

ROOT = Path(dependencies.__file__).parents[2]


@pytest.mark.parametrize(
    "source",
    [
        "from cxr_helpers.explain import occlusion",
        "from cxr_helpers.explain import occlusion as o",
        "from cxr_helpers.explain.occlusion import positions",
        "import cxr_helpers.explain.occlusion",
        "import json, cxr_helpers.explain.occlusion as o",
        "def f():\n    from cxr_helpers.explain import occlusion",
        "%matplotlib inline\nfrom cxr_helpers.explain import occlusion",
    ],
)
def test_every_form_of_import_is_followed(source):
    assert dependencies.modules_of([source]) == ["explain.occlusion"]


def test_modules_are_followed_through_others():
    modules = dependencies.modules_of(["from cxr_helpers.data import dataset"])
    assert {"data.dataset", "data.class_names", "data.splits", "system.files"} <= set(modules)
    assert "explain.gradcam" not in modules


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return an empty package with one room."""
    monkeypatch.setattr(dependencies, "PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def test_rewritten_module_is_parsed_again(package):
    (package / "a.py").write_text("from cxr_helpers.room import b")
    (package / "b.py").write_text("")
    assert dependencies.modules_of(["import cxr_helpers.room.a"]) == ["room.a", "room.b"]
    (package / "a.py").write_text("from cxr_helpers.room import b, c")
    (package / "c.py").write_text("")
    assert dependencies.modules_of(["import cxr_helpers.room.a"]) == ["room.a", "room.b", "room.c"]
    assert set(dependencies.digest_each(["room.a", "room.gone"])) == {"room.a"}


def test_package_in_a_room_counts_with_all_its_modules(package):
    """It may import them by name at run time."""
    (package / "plugins").mkdir()
    (package / "plugins" / "__init__.py").write_text("")
    (package / "plugins" / "one.py").write_text("from cxr_helpers.room import b")
    (package / "b.py").write_text("")
    modules = dependencies.modules_of(["from cxr_helpers.room import plugins"])
    assert modules == ["room.b", "room.plugins", "room.plugins.one"]
    assert set(dependencies.digest_each(modules)) == set(modules)


def test_library_imports_are_those_at_the_top_level_of_sources_and_modules(package):
    (package / "a.py").write_text(
        "from __future__ import annotations\nimport json, numpy as np\nfrom cxr_helpers.room import b"
    )
    (package / "b.py").write_text(
        "import ast\ndef f():\n    import keras\n    from cxr_helpers.room import c"
    )
    (package / "c.py").write_text("import tensorflow")
    cells = ["%matplotlib inline\nfrom scipy import special", "from cxr_helpers.room import a"]
    assert dependencies.library_imports(cells) == [
        "from scipy import special",
        "import json, numpy as np",
        "import ast",
    ]


def test_room_itself_is_not_a_module(package):
    (package / "__init__.py").write_text("")
    assert dependencies.modules_of(["from cxr_helpers import room"]) == []


def sources():
    """Yield name and code of modules and notebooks.

    A package in a room may import its modules by name: ``modules_of`` counts all of them.
    """
    package = ROOT / "cxr_helpers"
    for path in sorted({*package.rglob("*.py")} - {*package.glob("*/*/__init__.py")}):
        yield path.name, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path.name, "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def hidden_imports(source):
    """Return the imports that ``modules_of`` does not follow."""
    hidden = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            hidden += [a.name for a in node.names if a.name in ("importlib", "cxr_helpers")]
        elif isinstance(node, ast.ImportFrom) and node.level:
            hidden.append("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom) and node.module == "importlib":
            hidden += [a.name for a in node.names if a.name == "import_module"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxr_helpers"):
            hidden += [a.name for a in node.names if a.name == "*"]
        elif isinstance(node, ast.Attribute) and node.attr == "import_module":
            hidden.append(node.attr)
        elif isinstance(node, ast.Name) and node.id == "__import__":
            hidden.append(node.id)
    return hidden


@pytest.mark.parametrize(
    "planted",
    ["__import__('x')", "import importlib", "from importlib import import_module",
     "import importlib.util; importlib.import_module('x')", "from . import x", "from .x import y",
     "import cxr_helpers", "from cxr_helpers import *"],
)  # fmt: skip
def test_planted_hidden_import_is_found(planted):
    assert hidden_imports(planted)


def test_no_module_is_imported_in_a_hidden_way():
    assert {name: found for name, text in sources() if (found := hidden_imports(text))} == {}


def test_sources_are_read_in_several_threads_at_once():
    """Without a lock, up to Python 3.11.7: SystemError, "AST constructor recursion depth mismatch"."""
    deep = "import numpy\nx = " + "(1 + " * 60 + "1" + ")" * 60 + "\n"
    threshold, let_others_run = gc.get_threshold(), lambda *_: time.sleep(0)
    gc.set_threshold(20)
    gc.callbacks.append(let_others_run)
    try:
        with ThreadPoolExecutor(4) as pool:
            sources = [f"{deep}# {number}" for number in range(40)]  # each is parsed once
            found = list(pool.map(lambda source: dependencies.library_imports([source]), sources))
    finally:
        gc.callbacks.remove(let_others_run)
        gc.set_threshold(*threshold)
    assert found == [["import numpy"]] * 40


@pytest.mark.parametrize(
    "line", ["!ls", "?print", "print?", "files = !ls", "%time x = 1", "x = %env HOME"]
)
def test_syntax_of_ipython_is_allowed(line):
    assert dependencies.modules_of([f"{line}\nfrom cxr_helpers.explain import occlusion"]) == [
        "explain.occlusion"
    ]


def test_cell_or_module_that_cannot_be_parsed_is_named(package, tmp_path):
    (package / "a.py").write_text("x = 1\ny = (")
    sources = {"code": "import cxr_helpers.room.a", "markdown": "x = ("}
    cells = [{"cell_type": kind, "source": [source]} for kind, source in sources.items()]
    path = tmp_path / "02_binary.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    with pytest.raises(ValueError, match=r"room/a\.py, line 2: '\(' was never closed"):
        dependencies.check(path)
    (package / "a.py").write_text("")
    dependencies.check(path)
    cells.append({"cell_type": "code", "source": ["x = 1\n", "x = )"]})
    path.write_text(json.dumps({"cells": cells}))
    with pytest.raises(ValueError, match=r"02_binary\.ipynb, cell 2, line 2: unmatched"):
        dependencies.check(path)

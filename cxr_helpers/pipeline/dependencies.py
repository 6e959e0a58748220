"""The modules of this package, and the libraries, that a source imports, also through others."""

from __future__ import annotations

import ast
import json
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from cxr_helpers.system import digests

PACKAGE = Path(__file__).parents[1]
NAME = "cxr_helpers"
# Up to Python 3.11.7, two threads that parse at once can end in a SystemError (python/cpython#106905).
_ONE_THREAD = threading.Lock()


def modules_of(sources: Iterable[str]) -> list[str]:
    """Return the names of the package's modules that Python sources import, sorted.

    Recognised are ``from cxr_helpers.room import module``, ``from cxr_helpers.room.module import
    name`` and ``import cxr_helpers.room.module``, anywhere in a source, inside functions too.
    A package inside a room, such as ``data.layouts``, imports all its modules, so they all count.
    A test forbids relative imports, ``importlib`` and other forms.

    Returns
    -------
    list of str
        Such as ``"data.dataset"``.
    """
    modules: set[str] = set()
    new = set().union(*(_imported(ast.walk(_parse(source))) for source in sources))
    while new:
        modules |= new
        new = set().union(*(_imported_by(name, *_state(name)) for name in new)) - modules
    return sorted(modules)


def library_imports(sources: Iterable[str]) -> list[str]:
    """Return the import statements for modules outside this package, without duplicates.

    Those at the top level of the sources come first, then those of the modules of this package that
    are imported with them, directly or through others. What a function imports is left out, so that
    a source does not wait for libraries that it may not need.
    """
    found: dict[str, None] = {}
    read: set[str] = set()
    new = list(map(_top_level_imports, sources))
    while new:
        found |= dict.fromkeys(statement for statements, _ in new for statement in statements)
        modules = sorted(set().union(*(names for _, names in new)) - read)
        read.update(modules)
        files = filter(None, map(_file, modules))
        new = [_top_level_imports(path.read_text(encoding="utf-8")) for path in files]
    return list(found)


def digest_each(modules: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the sources of modules of this package, by name."""
    return {
        name: digests.sha256_of_file(path) for name in modules if (path := _file(name)) is not None
    }


def _file(name: str) -> Path | None:
    """Return the source of a module, or of a package inside a room; None where there is none."""
    path = PACKAGE.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _state(name: str) -> tuple[int, int]:
    """Return size and modification time of a module's source; zeros where there is none."""
    path = _file(name)
    if path is None:
        return 0, 0
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def check(notebook: Path) -> None:
    """Refuse a notebook with a code cell that cannot be parsed, or that imports such a module.

    Raises
    ------
    ValueError
        Naming the notebook and the cell, or the module, and the line.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = []
    for position, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            sources.append("".join(cell["source"]))
            try:
                _parse(sources[-1])
            except SyntaxError as error:
                place = f"{notebook.name}, cell {position}, line {error.lineno}"
                raise ValueError(f"{place}: {error.msg}") from None
    modules_of(sources)


@cache
def _imported_by(name: str, size: int, modified: int) -> frozenset[str]:
    """Return what a module imports; its source is parsed again only where it has changed."""
    if not modified:
        return frozenset()
    path = _file(name)
    try:
        return _imported(ast.walk(_parse(path.read_text(encoding="utf-8"))))
    except SyntaxError as error:
        place = path.relative_to(PACKAGE.parent).as_posix()
        raise ValueError(f"{place}, line {error.lineno}: {error.msg}") from None


@cache
def _top_level_imports(source: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return what a source imports at its top level: statements for libraries, modules of ours."""
    body = _parse(source).body
    return tuple(_library_imports(body)), _imported(body)


def _imported(nodes: Iterable[ast.AST]) -> frozenset[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.removeprefix(f"{NAME}.") for name in names if name.startswith(f"{NAME}.")}
    return frozenset().union(*map(_modules, inside))


def _library_imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the import statements that import no module of ours."""
    for node in nodes:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            modules = [node.module or NAME]  # a relative import is of this package
        else:
            continue
        if not any(module.split(".")[0] == NAME for module in modules):
            yield ast.unparse(node)


def _parse(source: str) -> ast.Module:
    """Parse a cell or a module; IPython's own syntax (``%time``, ``!ls``, ``?name``) is allowed."""
    with _ONE_THREAD:
        try:
            return ast.parse(source)
        except SyntaxError:
            from IPython.core.inputtransformer2 import TransformerManager  # takes half a second

            return ast.parse(TransformerManager().transform_cell(source))


def _modules(name: str) -> set[str]:
    """Return the modules that a dotted name refers to: none for a room or a name in a module."""
    if "." not in name or _file(name) is None:
        return set()
    folder = PACKAGE.joinpath(*name.split("."))
    return {name, *(f"{name}.{path.stem}" for path in folder.glob("[a-z]*.py"))}

"""Which modules of this package some code imports, directly or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cxr_helpers import digests

PACKAGE = Path(__file__).parent


def helpers_of(sources: Iterable[str]) -> list[str]:
    """Return the names of the package's modules that some Python sources need, sorted.

    Known are ``from cxr_helpers import x``, ``from cxr_helpers.x import y``, ``import
    cxr_helpers.x`` and their relative forms, anywhere in the source, inside functions too. A test
    forbids the other ways (``importlib``, ``__import__``) in package and notebooks.
    """
    found: set[str] = set()
    waiting = set().union(*(_named(source) for source in sources))
    while waiting:
        found |= waiting
        waiting = set().union(*(_of_module(name, *_state(name)) for name in waiting)) - found
    return sorted(found)


def digest_each(modules: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the source of some of the package's modules, by name."""
    return {name: digests.of_file(path) for name in modules if (path := _file(name)).is_file()}


def _file(name: str) -> Path:
    return PACKAGE / f"{name}.py"


def _state(name: str) -> tuple[int, int]:
    """Return size and modification time of a module's source; zeros where there is none."""
    path = _file(name)
    if not path.is_file():
        return 0, 0
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@cache
def _of_module(name: str, size: int, modified: int) -> frozenset[str]:
    """Return what a module imports; asked again only when its source was written again."""
    return _named(_file(name).read_text(encoding="utf-8")) if modified else frozenset()


def _named(source: str) -> frozenset[str]:
    plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%"))
    names: set[str] = set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Import):
            dotted = [alias.name.split(".") for alias in node.names]
            names |= {parts[1] for parts in dotted if parts[0] == "cxr_helpers" and parts[1:]}
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level:  # relative: the package is flat
                parts = ["cxr_helpers", *filter(None, parts)]
            if parts[0] == "cxr_helpers":
                names |= {parts[1]} if parts[1:] else {alias.name for alias in node.names}
    return frozenset(names)

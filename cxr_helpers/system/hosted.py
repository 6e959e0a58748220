"""Packages that a hosted notebook (Colab, Kaggle) lacks, installed without changing what it has.

This module runs before the packages of the project are there: it imports none of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
SERVICES = {"Colab": "COLAB_RELEASE_TAG", "Kaggle": "KAGGLE_KERNEL_RUN_TYPE"}  # variables they set
SAME = {"tensorflow": "tensorflow-cpu"}  # the same modules under another name
OWN = {"jupyter"}  # a hosted notebook has a Jupyter of its own


def service() -> str | None:
    """Return the service that this notebook runs in, ``"Colab"`` or ``"Kaggle"``, or None."""
    return next((name for name, variable in SERVICES.items() if variable in os.environ), None)


def requirements() -> list[Requirement]:
    """Return what the project depends on, without what a hosted notebook has of its own."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = map(Requirement, project["dependencies"])
    return [requirement for requirement in needed if requirement.name not in OWN]


def installed() -> dict[str, str]:
    """Return the version of each package that is installed, by its canonical name."""
    found = (d for d in metadata.distributions() if d.metadata["Name"])
    return {canonicalize_name(d.metadata["Name"]): d.version for d in found}


def lacking(
    needed: Iterable[Requirement], versions: Mapping[str, str]
) -> tuple[list[Requirement], list[Requirement]]:
    """Return the requirements that are missing, and those of which another version is there.

    Parameters
    ----------
    needed : iterable of Requirement
    versions : mapping of canonical name to version
        What is there.
    """
    missing, other = [], []
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        version = versions.get(name) or versions.get(SAME.get(name, ""))
        if version is None:
            missing.append(requirement)
        elif not requirement.specifier.contains(version, prereleases=True):
            other.append(requirement)
    return missing, other


def install() -> None:
    """Install what the project lacks here; every other package stays at its version.

    Raises
    ------
    SystemExit
        If the notebook is not hosted and packages are missing, if they cannot be installed, or if
        the session must be restarted; with what to do, in one line.
    """
    versions = installed()
    missing, other = lacking(requirements(), versions)
    if not missing and not other:
        return
    names = ", ".join(str(requirement) for requirement in [*missing, *other])
    if service() is None:
        raise SystemExit(
            f"This kernel lacks {names}: start Jupyter in the project's folder with "
            "`uv run jupyter lab notebooks`, or install them with `pip install -e .`"
        )
    print(f"Installing {names}. No other package is changed.", flush=True)
    changed = {canonicalize_name(requirement.name) for requirement in other}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        kept = (f"{n}=={v}\n" for n, v in sorted(versions.items()) if n not in changed)
        constraints.writelines(kept)
        constraints.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", constraints.name]
        done = subprocess.run(
            [*command, *(str(requirement) for requirement in [*missing, *other])],
            stderr=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        hint = ": switch the notebook's internet access on" if service() == "Kaggle" else ""
        raise SystemExit(f"{names} cannot be installed ({last}){hint}")
    distributions = metadata.packages_distributions()  # by module: Pillow is imported as PIL
    imported = {d for name in list(sys.modules) for d in distributions.get(name, [name])}
    if loaded := sorted(changed & {canonicalize_name(name) for name in imported}):
        raise SystemExit(
            f"{', '.join(loaded)} changed after it was imported: restart the session, then run all "
            "cells"
        )

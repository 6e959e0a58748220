import importlib.metadata
import os
import platform

import pytest

from cxr_helpers.system import environment


def test_versions_are_those_that_are_installed():
    found = environment.versions(["numpy", "no-such-library"])
    assert found == {
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "no-such-library": "not installed",
    }


def test_every_library_of_the_results_is_installed_and_named():
    found = environment.versions()
    assert set(found) == {"python", *environment.LIBRARIES}
    assert "not installed" not in found.values()


@pytest.mark.parametrize("threads", ["3", None])
def test_the_machine_says_what_changes_the_last_bits(monkeypatch, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = environment.machine()
    assert set(found) == {"system", "processor", "cores", "threads"}
    assert found["cores"] == os.cpu_count() and found["processor"]
    assert found["threads"] == 3 if threads else 1 <= found["threads"] <= os.cpu_count()
    assert os.path.expanduser("~") not in str(found)

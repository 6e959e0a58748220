import importlib.metadata
import os
import platform

import pytest

from cxr_helpers.system import environment


def test_versions_of_installed_and_missing_libraries():
    found = environment.versions(["numpy", "no-such-library"])
    assert found == {
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "no-such-library": "not installed",
    }


def test_default_versions_name_every_library_of_the_results():
    found = environment.versions()
    assert set(found) == {"python", *environment.LIBRARIES}
    assert "not installed" not in found.values()


@pytest.mark.parametrize("threads", ["3", None])
def test_machine_names_processor_cores_and_threads(monkeypatch, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = environment.machine()
    assert set(found) == {"system", "processor", "cores", "threads"}
    assert found["cores"] == os.cpu_count() and found["processor"]
    assert found["threads"] == 3 if threads else 1 <= found["threads"] <= os.cpu_count()
    assert os.path.expanduser("~") not in str(found)


def test_peak_memory_is_in_bytes():
    """This process holds more than 10 MB and less than a terabyte."""
    peak = environment.peak_memory()
    assert peak is None or 1e7 < peak < 1e12


@pytest.mark.parametrize(
    ("requested", "flags", "expected"),
    [
        ("auto", "fpu avx2 avx512f avx512_bf16", "mixed_bfloat16"),
        ("auto", "fpu amx_bf16", "mixed_bfloat16"),
        ("auto", "fpu avx2 avx512f", "float32"),
        ("auto", "", "float32"),
        ("float32", "amx_bf16", "float32"),
        ("mixed_bfloat16", "", "mixed_bfloat16"),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_has_its_instructions(
    monkeypatch, requested, flags, expected
):
    monkeypatch.setattr(environment, "_cpuinfo", lambda field: flags if field == "flags" else "")
    assert environment.precision(requested) == expected

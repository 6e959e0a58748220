import importlib.metadata
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cxr_helpers.system import accelerators, environment


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


@pytest.mark.parametrize("threads", ["3", "3,1", None])
def test_machine_names_processor_cores_and_threads(monkeypatch, threads):
    for name in environment.POOLS:
        monkeypatch.delenv(name, raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = environment.machine()
    expected = {"system", "processor", "cores", "threads", "device", "deterministic", "onednn"}
    assert set(found) == expected
    assert found["device"] == accelerators.device() and found["deterministic"] is True
    assert found["cores"] == os.cpu_count() and found["processor"]
    assert found["threads"] == 3 if threads else 1 <= found["threads"] <= os.cpu_count()
    assert os.path.expanduser("~") not in str(found)


@pytest.mark.parametrize("requested", ["1", "7"])
def test_threads_are_those_that_a_new_process_is_given(monkeypatch, requested):
    for name, value in environment.thread_limits(int(requested)).items():
        monkeypatch.setenv(name, value)
    assert environment.threads() == environment.machine()["threads"] == int(requested)


@pytest.mark.parametrize("before", ["4", None])
def test_limit_of_threads_holds_for_a_block(monkeypatch, before):
    for name in environment.POOLS:
        monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", before)
    known = dict(os.environ)
    with environment.limited_to(None):
        assert dict(os.environ) == known
    with environment.limited_to(3):
        assert environment.threads() == 3 and os.environ["OMP_NUM_THREADS"] == "3"
    assert dict(os.environ) == known
    assert environment.has_thread_limit() == bool(before)


TWO_RUNS = """
import tensorflow as tf
from cxr_helpers.system import environment
for threads in (1, 5):
    with environment.limited_to(threads):
        environment.fix_threads()
        tf.constant(1) + 1
        print(environment.threads(), tf.config.threading.get_intra_op_parallelism_threads())
"""


def test_process_that_has_computed_does_not_claim_another_number_of_threads():
    done = subprocess.run(
        [sys.executable, "-c", TWO_RUNS], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["1 1", "1 1"]


@pytest.mark.parametrize("requested", ["", "0", "all"])
def test_threads_are_all_cores_by_default(monkeypatch, requested):
    monkeypatch.setenv(environment.INTRAOP, requested)
    assert environment.threads() == environment.cores() >= 1


V2 = ("0::/{own}\n", "", "memory.max", "memory.current", "inactive_file")
V1 = (
    *("3:cpu:/\n2:memory:/{own}\n0::/\n", "memory"),
    *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("limited", ["", "job", "job/step"])
@pytest.mark.parametrize(("limit", "expected"), [("3000", 2400), ("max", 8000), (None, 8000)])
def test_free_memory_is_that_of_the_container_where_it_is_less(
    limit, expected, limited, version, tmp_path, monkeypatch
):
    """A limit of any group that this process's own one is in counts."""
    groups, root, largest, used, cache = version
    monkeypatch.setattr(
        environment.psutil, "virtual_memory", lambda: SimpleNamespace(available=8000)
    )
    group = tmp_path / root / limited
    (tmp_path / root / "job" / "step").mkdir(parents=True)
    (tmp_path / "cgroup").write_text(groups.format(own="job/step"))
    monkeypatch.setattr(environment, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(environment, "GROUPS", tmp_path)
    if limit is not None:
        (group / largest).write_text(f"{limit}\n")
        (group / used).write_text("1000\n")
        (group / "memory.stat").write_text(f"anon 600\n{cache} 400\n")
    assert environment.free_memory() == expected


def test_peak_memory_is_in_bytes():
    """This process holds more than 10 MB and less than a terabyte."""
    assert 1e7 < environment.peak_memory() < 1e12


def test_peak_memory_on_windows_is_that_of_the_working_set(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # there is no such module
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=5))
    monkeypatch.setattr(environment.psutil, "Process", lambda: memory)
    assert environment.peak_memory() == 5


@pytest.mark.parametrize("newest", ["process_cpu_count", "sched_getaffinity", "cpu_count"])
def test_cores_are_those_of_this_process_where_the_system_says(monkeypatch, newest):
    """From Python 3.13; on Linux before; and otherwise all that there are."""
    known = ["process_cpu_count", "sched_getaffinity", "cpu_count"]
    answers = [lambda: 3, lambda pid: {0, 5, 7}, lambda: 3]
    for name, answer in zip(known, answers, strict=True):
        monkeypatch.setattr(os, name, answer, raising=False)
    for name in known[: known.index(newest)]:
        monkeypatch.delattr(os, name)
    assert environment.cores() == 3


def test_precision_of_a_gpu_is_chosen_by_its_compute_capability(monkeypatch):
    """Not by the instructions of the processor beside it."""
    monkeypatch.setattr(environment, "_cpuinfo", lambda field: "amx_bf16")
    monkeypatch.setattr(accelerators, "gpu", lambda: accelerators.Gpu("Tesla T4", (7, 5)))
    assert environment.precision("auto") == "mixed_float16"
    assert environment.precision("float32") == "float32"


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

"""The software and the machine that a result was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath

import psutil

from cxr_helpers.system import accelerators

LIBRARIES = (
    "scipy",
    "seaborn",
    "tensorflow",
    "keras",
    "numpy",
    "scikit-learn",
    "pandas",
    "pillow",
    "imagehash",
    "matplotlib",
)


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of Python and of libraries, by default of those that results depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in libraries}


@cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# Linux's control groups, and which of them this process is in: a container's, or a job's. Limit, use,
# and cache that is not in use, in version 2 and version 1.
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CGROUP_V2 = "memory.max", "memory.current", "inactive_file"
CGROUP_V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
# Variables that libraries read when they are loaded: the size of their pools of threads.
INTRAOP = "TF_NUM_INTRAOP_THREADS"
POOLS = (
    *(INTRAOP, "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
)


def skip_unused_grammar() -> None:
    """Let ``import nbformat`` take 0.2 s instead of two.

    jsonschema, which it imports, would build the grammar of internationalised addresses (IRIs), a
    format that notebooks do not have; without that module it does not check this format.
    """
    sys.modules.setdefault("rfc3987_syntax", None)


def threads() -> int:
    """Return how many threads TensorFlow computes an operation with.

    Their number changes the last bits of a training (TensorFlow 2.21: 1, 2 and 4 threads gave three
    results), so it is part of what a stored result depends on. ``OMP_NUM_THREADS`` changes neither.
    """
    return _limit(INTRAOP) or cores()


def _limit(variable: str) -> int:
    """Return the number of threads that a variable sets, the first of a list; 0 for none."""
    first = os.environ.get(variable, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def thread_limits(threads: int) -> dict[str, str]:
    """Return the variables with which a new process computes with so many threads."""
    return dict.fromkeys(POOLS, str(threads))


def has_thread_limit() -> bool:
    """Return whether a variable sets the number of TensorFlow's threads."""
    return _limit(INTRAOP) > 0


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Let the processes that are started within the block compute with so many threads.

    Parameters
    ----------
    threads : int or None
        None changes nothing.
    """
    before = {name: os.environ.get(name) for name in POOLS}
    os.environ.update(thread_limits(threads) if threads else {})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def fix_threads() -> None:
    """Let TensorFlow, which must have been imported, compute with ``threads()`` threads here.

    Their number is fixed by the first operation of a process. Where this was called before with
    another one, ``threads`` returns that, for this process and those that it starts.
    """
    pools = sys.modules["tensorflow"].config.threading
    try:
        pools.set_intra_op_parallelism_threads(threads())
    except RuntimeError:
        if fixed := pools.get_intra_op_parallelism_threads():  # 0 where it was not called before
            os.environ.update(thread_limits(fixed))


def machine() -> dict[str, object]:
    """Return the properties of the machine that may change the last bits of a result."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": _limit("OMP_NUM_THREADS") or threads(),
        "device": accelerators.device(),
        "deterministic": accelerators.is_deterministic(),
        "onednn": accelerators.has_onednn(),
    }


def cores() -> int:
    """Return the number of cores that this process may use, not all that there are."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Return how many bytes new processes can use: what is free, or less where a container limits it."""
    free = [psutil.virtual_memory().available]
    lines = []
    with suppress(OSError):  # not on Linux
        lines = OWN_GROUP.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:
            root, names = GROUPS, CGROUP_V2
        elif "memory" in controllers.split(","):
            root, names = GROUPS / "memory", CGROUP_V1
        else:
            continue
        path = PurePosixPath(own.lstrip("/"))
        for group in (path, *path.parents):
            with suppress(OSError, ValueError):  # not there, or "max"
                free.append(_left(root / group, *names))
    return min(free)


def _left(group: Path, limit: str, used: str, cache: str) -> int:
    """Return how many bytes a control group has left, with the cache that the system takes back."""
    bytes_of = [int((group / name).read_text(encoding="ascii")) for name in (limit, used)]
    statistics = (group / "memory.stat").read_text(encoding="ascii").split()
    return bytes_of[0] - bytes_of[1] + int(statistics[statistics.index(cache) + 1])


def peak_memory() -> int:
    """Return the highest resident memory of this process in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def precision(requested: str) -> str:
    """Return the numerical precision that a request means on this machine.

    Parameters
    ----------
    requested : str
        ``"auto"``: on a GPU, the fastest that it has, see ``accelerators.Gpu.precision``; on the
        CPU, ``"mixed_bfloat16"`` where the processor has instructions for bfloat16, on which
        training is faster, otherwise ``"float32"``. Anything else is returned as it is.
    """
    if requested != "auto":
        return requested
    if gpu := accelerators.gpu():
        return gpu.precision
    fast = {"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split())
    return "mixed_bfloat16" if fast else "float32"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _cpuinfo(field: str) -> str:
    """Return a field of the first processor in Linux's list; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")

"""The device that TensorFlow computes on, what it can do, and what to advise where it is unused.

TensorFlow is asked in this process where it has been imported. Elsewhere, a process of its own is
asked once, and only on machines that may have a GPU: importing TensorFlow takes seconds.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType

from packaging.version import Version

from cxr_helpers.system.terminal import quiet_imports

CPU = "CPU"
NONDETERMINISTIC = "CXR_NONDETERMINISTIC"  # any value switches determinism off
GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
# By itself, TensorFlow 2.21 does not use oneDNN on an AMD processor with AVX2, where it trains the
# published networks twice as fast (benchmarks/train.py). The variable is read when TensorFlow is imported.
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# glibc gives threads arenas of their own, which fragment: docs/platforms.md has what that took in
# chapter 7. Read when a process starts; other C libraries ignore it.
ARENAS = "MALLOC_ARENA_MAX"
CARDS = Path("/proc/driver/nvidia/gpus")  # on Linux, a folder for each card
METAL = "tensorflow-metal"
# The last release of tensorflow-metal that is known to break, and the first TensorFlow that it does
# not fit: ``import tensorflow`` then fails, as TensorFlow loads every plugin that is installed.
METAL_BREAKS, SINCE = Version("1.2.0"), Version("2.20")
DOCS = "docs/platforms.md"
_QUESTION = """
import json, sys
import tensorflow
from cxr_helpers.system import accelerators
json.dump(accelerators.describe(tensorflow), sys.stdout)
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow computes on.

    Attributes
    ----------
    name : str
        As its driver reports it, such as ``"Tesla T4"``; ``"METAL"`` for Apple's.
    capability : (int, int), optional
        NVIDIA's compute capability, major and minor; None for other makers.
    """

    name: str
    capability: tuple[int, int] | None = None

    @property
    def precision(self) -> str:
        """The numeric policy on which its training is fastest.

        bfloat16 has units of its own from compute capability 8.0, float16 from 7.0, and on the P100
        (6.0); in between, and on older cards, float16 is far slower than float32 (NVIDIA, *CUDA C++
        Programming Guide*, throughput of native arithmetic instructions). Keras scales the loss
        under ``mixed_float16``.
        """
        if self.capability is None:
            return "float32"
        if self.capability >= (8, 0):
            return "mixed_bfloat16"
        fast = self.capability >= (7, 0) or self.capability == (6, 0)
        return "mixed_float16" if fast else "float32"


def gpu() -> Gpu | None:
    """Return the GPU that TensorFlow computes on in this environment, or None for the CPU."""
    if tensorflow := _imported():
        found = describe(tensorflow)
    else:
        found = _asked() if nvidia_cards() or _version(METAL) else None
    return found and Gpu(found["name"], found["capability"] and tuple(found["capability"]))


def device() -> str:
    """Return the name of the device that TensorFlow computes on: a GPU's, or ``"CPU"``."""
    found = gpu()
    return found.name if found else CPU


def describe(tensorflow: ModuleType) -> dict | None:
    """Return name and compute capability of TensorFlow's first GPU, or None where it has none."""
    visible = tensorflow.config.get_visible_devices("GPU")
    if not visible:
        return None
    details = tensorflow.config.experimental.get_device_details(visible[0])
    return {
        "name": details.get("device_name", visible[0].name),
        "capability": details.get("compute_capability"),
    }


def key() -> list[str]:
    """Return what makes the last bits of results differ: a GPU, the operations that are used.

    It belongs to the key of whatever is stored, so that a training begun on one device, or with
    one kind of operations, is not continued on another.
    """
    found = gpu() if _imported() else None
    parts = [
        found and found.name,
        has_onednn() and ONEDNN,
        not is_deterministic() and NONDETERMINISTIC,
    ]
    return [part for part in parts if part]


def has_onednn() -> bool:
    """Return whether TensorFlow uses the operations of oneDNN, or will, in a process of ours."""
    return (os.environ if _imported() else variables()).get(ONEDNN) == "1"


def is_deterministic() -> bool:
    """Return whether TensorFlow's operations are to give the same bits in every run."""
    return not os.environ.get(NONDETERMINISTIC)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Keep deterministic operations, or switch them off for this process and those it starts."""
    before = os.environ.get(NONDETERMINISTIC)
    if not wanted:
        os.environ[NONDETERMINISTIC] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(NONDETERMINISTIC, None)


def variables() -> dict[str, str]:
    """Return the environment variables with which a new process imports TensorFlow.

    A GPU's memory is taken as it is needed, oneDNN is used, all threads allocate from one arena, and
    errors are logged only where there is a card (else TensorFlow logs that there is none as an
    error), unless the user has set them.
    """
    level = "2" if nvidia_cards() else "3"
    defaults = {GROWTH: "true", ONEDNN: "1", ARENAS: "1", "TF_CPP_MIN_LOG_LEVEL": level}
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def quieten() -> None:
    """Hide what TensorFlow writes to stderr while it is imported, unless that raises an error.

    No setting does: its libraries say that oneDNN is used and that there is no graphics card before
    they read the level of their log, and notebooks show stderr in red.
    """
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow with a loader that keeps stderr, until it is imported."""

    asking = False  # the other finders

    def find_spec(self, name: str, path: object = None, target: object = None):
        if name != "tensorflow" or self.asking:
            return None
        self.asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self._load, spec.loader.exec_module)
        return spec

    def _load(self, load: Callable[[ModuleType], None], module: ModuleType) -> None:
        sys.meta_path.remove(self)
        with quiet_imports():
            load(module)


def prepare() -> None:
    """Prepare this process for computing: call it before TensorFlow's first operation.

    Memory of a GPU is taken as it is needed, not all at once, so that two notebooks can share one.
    Where TensorFlow has been imported, its operations become deterministic; without that, Keras
    would also compile models with XLA on a GPU (``jit_compile="auto"``), whose results differ in the
    last digits from those of the training loop.
    """
    os.environ[GROWTH] = variables()[GROWTH]
    if is_deterministic() and (tensorflow := _imported()):
        tensorflow.config.experimental.enable_op_determinism()


@functools.cache
def nvidia_cards() -> tuple[str, ...]:
    """Return the names of the NVIDIA cards here, none of them if CUDA_VISIBLE_DEVICES hides all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return ()
    lines = [
        line.split(":", 1)[1]
        for path in sorted(CARDS.glob("*/information"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("Model:")
    ]
    if not lines and shutil.which("nvidia-smi"):  # in WSL and on Windows there is no such folder
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        lines = _output(command, seconds=30).splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def advice() -> list[str]:
    """Return a line for each GPU that is there and not used, with what to do."""
    cards = nvidia_cards()
    if not cards or gpu() is not None:
        return []
    what = f"{cards[0]} is present, but TensorFlow computes on the CPU"
    if sys.platform == "win32":
        return [f"{what}: it uses no GPU on Windows; run this in WSL 2 ({DOCS})"]
    return [f"{what}: `uv run --extra gpu run_all.py` installs the CUDA libraries ({DOCS})"]


def broken() -> str | None:
    """Return why TensorFlow cannot be imported here and what to do, in one line, or None."""
    metal, tensorflow = _version(METAL), _version("tensorflow")
    if metal is None or tensorflow is None or metal > METAL_BREAKS or tensorflow < SINCE:
        return None
    return (
        f"{METAL} {metal} breaks the import of TensorFlow {tensorflow}: `uv pip uninstall {METAL}`, "
        f"and TensorFlow computes on the CPU ({DOCS})"
    )


def _imported() -> ModuleType | None:
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow if hasattr(tensorflow, "config") else None  # else its import goes on


@functools.cache
def _asked() -> dict | None:
    """Return what a process of its own says of TensorFlow's GPU; None too if it fails."""
    text = _output([sys.executable, "-c", _QUESTION], seconds=300)
    try:
        return json.loads(text)
    except ValueError:  # TensorFlow cannot be imported: the first notebook will say so
        return None


def _output(command: list[str], *, seconds: float) -> str:
    """Return the standard output of a command, empty if it fails or takes too long."""
    project = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def _version(package: str) -> Version | None:
    try:
        return Version(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None

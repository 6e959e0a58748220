"""GPUs and what to advise, on lists of devices that this machine does not have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from packaging.version import Version

from cxr_helpers.system import accelerators
from cxr_helpers.system.accelerators import Gpu

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def deterministic(monkeypatch):
    monkeypatch.delenv(accelerators.NONDETERMINISTIC, raising=False)


@pytest.fixture
def installed(monkeypatch):
    """Return a function that sets the versions of packages; those not named are missing."""

    def set_versions(**versions):
        found = {name.replace("_", "-"): Version(v) for name, v in versions.items()}
        monkeypatch.setattr(accelerators, "_version", found.get)

    return set_versions


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), "mixed_bfloat16"),  # H100
        ((8, 0), "mixed_bfloat16"),  # A100
        ((7, 5), "mixed_float16"),  # T4
        ((7, 0), "mixed_float16"),  # V100
        ((6, 1), "float32"),  # GTX 1080: its float16 runs at 1/64 of the speed
        ((6, 0), "mixed_float16"),  # P100
        ((5, 2), "float32"),
        (None, "float32"),  # Apple's
    ],
)
def test_precision_follows_the_compute_capability(capability, expected):
    assert Gpu("x", capability).precision == expected


# --- which device ---


def test_gpu_is_that_of_tensorflow_where_it_is_imported(tensorflow_gpu):
    tensorflow_gpu("NVIDIA L4", (8, 9))
    assert accelerators.gpu() == Gpu("NVIDIA L4", (8, 9))
    assert accelerators.device() == "NVIDIA L4"


def test_gpu_without_details_has_its_name(tensorflow_gpu, monkeypatch):
    tensorflow_gpu()
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {})
    assert accelerators.gpu() == Gpu("/physical_device:GPU:0")


def test_no_gpu_is_the_cpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    assert accelerators.gpu() is None and accelerators.device() == "CPU"


def test_runner_starts_no_tensorflow_where_there_is_no_card(before_import, no_card, monkeypatch):
    monkeypatch.setattr(accelerators, "_asked", lambda: pytest.fail("TensorFlow was started"))
    assert accelerators.gpu() is None


def test_runner_asks_a_process_of_its_own_once(before_import, card, monkeypatch):
    answer, asked = '{"name": "Tesla T4", "capability": [7, 5]}', []
    monkeypatch.setattr(accelerators, "_output", lambda *a, **k: asked.append(a) or answer)
    assert accelerators.gpu() == accelerators.gpu() == Gpu("Tesla T4", (7, 5))
    assert len(asked) == 1 and accelerators.advice() == []


def test_tensorflow_that_cannot_be_imported_has_no_gpu(before_import, card, monkeypatch):
    monkeypatch.setattr(accelerators, "_QUESTION", "raise ImportError")
    assert accelerators.gpu() is None


@pytest.mark.slow
def test_process_of_its_own_answers(before_import, card, monkeypatch, tmp_path):
    """The real TensorFlow, in a process that lists a GPU."""
    (tmp_path / "sitecustomize.py").write_text(
        "import types\n"
        "from cxr_helpers.system import accelerators\n"
        "accelerators.describe = lambda tf: {'name': tf.__name__, 'capability': (9, 0)}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert accelerators.gpu() == Gpu("tensorflow", (9, 0))


# --- cards that are not used ---


def test_unused_card_is_named_with_what_to_do(before_import, card, monkeypatch):
    monkeypatch.setattr(accelerators, "_output", lambda *a, **k: "null")
    monkeypatch.setattr(accelerators.sys, "platform", "linux")
    (line,) = accelerators.advice()
    assert line.startswith("Tesla T4 is present, but TensorFlow computes on the CPU")
    assert "uv run --extra gpu run_all.py" in line
    monkeypatch.setattr(accelerators.sys, "platform", "win32")
    (line,) = accelerators.advice()
    assert "WSL 2" in line and "--extra" not in line


def test_no_card_needs_no_advice(no_card):
    assert accelerators.advice() == []


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_cards_are_not_wanted(card, monkeypatch, hidden):
    assert accelerators.nvidia_cards() == ("Tesla T4",)
    accelerators.nvidia_cards.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert accelerators.nvidia_cards() == () and accelerators.advice() == []


@pytest.mark.parametrize(("code", "expected"), [(0, ("Tesla T4", "NVIDIA L4")), (9, ())])
def test_cards_are_those_of_nvidia_smi_where_no_folder_lists_them(
    no_card, monkeypatch, tmp_path, code, expected
):
    """As in WSL and on Windows; without a driver, nvidia-smi fails."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf 'Tesla T4\\nNVIDIA L4\\n'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(accelerators.shutil, "which", lambda program: program)
    assert accelerators.nvidia_cards() == expected


@pytest.mark.parametrize(
    ("metal", "tensorflow", "breaks"),
    [
        ("1.2.0", "2.20.0", True),
        ("1.1.0", "2.21.0", True),
        ("1.2.0", "2.19.1", False),
        ("1.3.0", "2.21.0", False),  # a later release may fit
    ],
)
def test_metal_that_breaks_tensorflow_is_named(installed, metal, tensorflow, breaks):
    installed(tensorflow_metal=metal, tensorflow=tensorflow)
    reason = accelerators.broken()
    assert (reason is not None) == breaks
    if breaks:
        assert f"tensorflow-metal {metal}" in reason and "uv pip uninstall" in reason
        assert "\n" not in reason


@pytest.mark.parametrize("versions", [{}, {"tensorflow": "2.21"}, {"tensorflow_metal": "1.2"}])
def test_nothing_breaks_where_one_of_them_is_missing(installed, versions):
    installed(**versions)
    assert accelerators.broken() is None


# --- keys, determinism, memory ---


def test_key_names_what_differs_from_the_plain_cpu(tensorflow_gpu, monkeypatch):
    monkeypatch.setenv(accelerators.ONEDNN, "0")
    keys = [accelerators.key()]
    for name in ("Tesla T4", "NVIDIA L4"):
        tensorflow_gpu(name)
        keys.append(accelerators.key())
    for variable in (accelerators.NONDETERMINISTIC, accelerators.ONEDNN):
        monkeypatch.setenv(variable, "1")
        keys.append(accelerators.key())
    assert keys == [
        [],
        ["Tesla T4"],
        ["NVIDIA L4"],
        ["NVIDIA L4", accelerators.NONDETERMINISTIC],
        ["NVIDIA L4", accelerators.ONEDNN, accelerators.NONDETERMINISTIC],
    ]


@pytest.mark.parametrize(
    ("value", "before", "after"), [(None, True, False), ("0", False, False), ("1", True, True)]
)
def test_onednn_is_on_where_a_process_of_ours_will_or_did_ask_for_it(
    monkeypatch, value, before, after
):
    """TensorFlow reads the variable when it is imported: a notebook may have been too late."""
    monkeypatch.delenv(accelerators.ONEDNN, raising=False)
    if value:
        monkeypatch.setenv(accelerators.ONEDNN, value)
    for imported, expected in ((None, before), (accelerators, after)):
        monkeypatch.setattr(accelerators, "_imported", lambda found=imported: found)
        assert accelerators.has_onednn() == expected


def test_a_new_process_keeps_what_the_user_has_decided(monkeypatch):
    for name, default in accelerators.variables().items():
        monkeypatch.setenv(name, "user's")
        assert accelerators.variables()[name] == "user's"
        monkeypatch.delenv(name)
        assert accelerators.variables()[name] != "user's" and default


def test_key_does_not_start_tensorflow(before_import, card, monkeypatch):
    monkeypatch.setattr(accelerators, "_asked", lambda: pytest.fail("TensorFlow was started"))
    monkeypatch.setenv(accelerators.ONEDNN, "0")
    assert accelerators.key() == []


@pytest.mark.parametrize("before", [None, "1"])
def test_determinism_is_switched_off_for_a_block_and_what_it_starts(monkeypatch, before):
    if before:
        monkeypatch.setenv(accelerators.NONDETERMINISTIC, before)
    with accelerators.determinism(True):
        assert accelerators.is_deterministic() == (before is None)
    with accelerators.determinism(False):
        assert not accelerators.is_deterministic()
        assert os.environ[accelerators.NONDETERMINISTIC]
    assert os.environ.get(accelerators.NONDETERMINISTIC) == before


def test_memory_of_a_gpu_is_taken_as_needed_unless_the_user_decides(before_import, monkeypatch):
    monkeypatch.setenv(accelerators.GROWTH, "false")
    accelerators.prepare()
    assert os.environ[accelerators.GROWTH] == "false"
    monkeypatch.delenv(accelerators.GROWTH)
    accelerators.prepare()
    assert os.environ[accelerators.GROWTH] == "true"


def test_models_are_compiled_with_xla_on_a_gpu_only_without_determinism(monkeypatch):
    """Keras decides for each model, also for one that is only applied."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework import config

    gpu = type("Device", (), {"device_type": "GPU", "name": "GPU:0"})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu])
    was_deterministic, compiled = config.is_op_determinism_enabled(), []
    try:
        for wanted in (False, True):
            config.disable_op_determinism()
            with accelerators.determinism(wanted):
                accelerators.prepare()
                model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
                compiled.append(model.jit_compile)
    finally:
        (config.enable_op_determinism if was_deterministic else config.disable_op_determinism)()
    assert compiled == [True, False]


@pytest.mark.parametrize("fails", [False, True])
def test_what_tensorflow_logs_at_its_import_is_shown_only_if_it_fails(tmp_path, fails):
    (tmp_path / "tensorflow.py").write_text(
        "import os; os.write(2, b'no card');" + (" raise ImportError('broken')" if fails else "")
    )
    code = "from cxr_helpers.system import accelerators; accelerators.quieten(); import os, sys\n"
    code += "import importlib.util; importlib.util.find_spec('tensorflow')\n"  # as libraries ask
    code += "import tensorflow; os.write(2, b'later'); print(sys.modules['tensorflow'].__file__)"
    place = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | place, capture_output=True, text=True
    )
    if fails:
        assert done.returncode and done.stderr.startswith("no card") and "broken" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "later")
        assert done.stdout.strip() == str(tmp_path / "tensorflow.py")

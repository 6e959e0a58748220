"""Devices that this machine does not have, as TensorFlow and the system would list them."""

from types import SimpleNamespace

import pytest

from cxr_helpers.system import accelerators


@pytest.fixture
def tensorflow_gpu(monkeypatch):
    """Return a function that lets TensorFlow list a GPU; operations still run on the CPU."""
    import tensorflow as tf

    def add(name="Tesla T4", capability=(7, 5)):
        details = {"device_name": name, "compute_capability": capability}
        device = SimpleNamespace(name="/physical_device:GPU:0", device_type="GPU")
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [device])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)

    return add


@pytest.fixture
def no_card(monkeypatch, tmp_path):
    """Hide this machine's own cards; return the folder in which the driver would list them."""
    folder = tmp_path / "gpus"
    monkeypatch.setattr(accelerators, "CARDS", folder)
    monkeypatch.setattr(accelerators.shutil, "which", lambda program: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    accelerators.nvidia_cards.cache_clear()
    yield folder
    accelerators.nvidia_cards.cache_clear()


@pytest.fixture
def card(no_card):
    """Let the driver list one card; TensorFlow does not see it."""
    (no_card / "0000:00:1e.0").mkdir(parents=True)
    information = "Model: \t\t Tesla T4\nIRQ:   \t\t 10\n"
    (no_card / "0000:00:1e.0" / "information").write_text(information, encoding="utf-8")


@pytest.fixture
def before_import(monkeypatch):
    """Let accelerators find that TensorFlow is not imported, as in the runner."""
    monkeypatch.setattr(accelerators, "_imported", lambda: None)
    asked = accelerators._asked
    asked.cache_clear()
    yield
    asked.cache_clear()


@pytest.fixture
def float16():
    """Train with loss scaling, as on a GPU without bfloat16."""
    import keras

    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy(before)

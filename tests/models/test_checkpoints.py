"""PRC-01: an interrupted training, even by kill -9, resumes bit for bit."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from cxr_helpers.models import checkpoints, training
from cxr_helpers.models.augmentation import Augmentation
from cxr_helpers.pipeline import store
from cxr_helpers.system import accelerators, digests

ROOT = Path(training.__file__).parents[2]
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8), dtype=np.uint8)
LABELS = (IMAGES[:, :, :4].mean(axis=(1, 2)) > 127).astype("float32")[:, None]


class Interrupted(Exception):
    pass


IN_USE, RETURNED = [], []  # networks of this test, and those of earlier ones


@pytest.fixture(autouse=True)
def _networks_are_returned():
    """To compile a network takes longer than to train it."""
    yield
    RETURNED.extend(IN_USE)
    IN_USE.clear()


def network():
    """Return a model with every kind of state, not trained: no other one of this test."""
    if keras.config.dtype_policy().name != "float32":
        return new_network()
    model = RETURNED.pop() if RETURNED else new_network()
    IN_USE.append(model)
    training.restart(model, like=new_network())
    return model


def new_network():
    """Return such a model: with dropout, batch norm, a schedule, momentum."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(1, "sigmoid"),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.01, 40)
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.05)
    model.compile(keras.optimizers.AdamW(rate), loss, metrics=["accuracy"])
    return model


def train(model, *, stop_after=None, epochs=5, **options):
    def log(line):
        if stop_after is not None and line.startswith(f"epoch {stop_after}/"):
            raise Interrupted

    return training.fit(
        model,
        IMAGES,
        LABELS,
        **{"epochs": epochs, "batch_size": 8, "seed": 3, "log": log}
        | {"augmentation": Augmentation(), "validation": (IMAGES[:20], LABELS[:20])}
        | options,
    )


def at(path):
    """Return a ``checkpoint`` callable that ignores the key."""
    return lambda key: path


def state(model):
    return [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)]


@pytest.fixture(scope="module")
def uninterrupted():
    model = new_network()
    return model, train(model)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_interrupted_training_resumes_bit_for_bit(tmp_path, uninterrupted, epoch):
    path = tmp_path / "x.npz"
    with pytest.raises(Interrupted):
        train(network(), stop_after=epoch, checkpoint=at(path))
    model, lines = new_network(), []  # as in another process
    history = train(model, checkpoint=at(path), log=lines.append)
    assert lines[0] == f"resumes after epoch {epoch}/5 of an interrupted run"
    assert len(lines) == 1 + 5 - epoch
    assert history.equals(uninterrupted[1])
    assert same(state(model), state(uninterrupted[0]))


@pytest.mark.parametrize("options", [{}, {"validation": None}, {"average": 0.9}])
def test_finished_training_is_not_repeated(tmp_path, monkeypatch, options):
    """Weights, optimizer and curves are restored without a single training step."""
    path, model = tmp_path / "x.npz", network()
    history = train(model, checkpoint=at(path), **options)
    monkeypatch.setattr(training, "_pass", None)
    again, lines = network(), []
    restored = train(again, checkpoint=at(path), log=lines.append, **options)
    assert restored.equals(history) and same(state(again), state(model))
    assert lines == ["already trained: 5 epochs read from the store"]


def test_checkpoint_path_depends_on_key(tmp_path):
    keys = []
    checkpoint = lambda key: keys.append(key) or tmp_path / f"{key}.npz"  # noqa: E731
    for seed in (3, 4, 3):
        train(network(), checkpoint=checkpoint, seed=seed, epochs=1)
    assert keys[0] == keys[2] != keys[1] and len(list(tmp_path.iterdir())) == 2


def test_training_without_validation_resumes_bit_for_bit(tmp_path):
    model, path = network(), tmp_path / "x.npz"
    history = train(model, validation=None)
    with pytest.raises(Interrupted):
        train(network(), stop_after=2, checkpoint=at(path), validation=None)
    again = network()
    assert train(again, checkpoint=at(path), validation=None).equals(history)
    assert same(state(again), state(model))


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"batch_size": 4}, {"augmentation": None}, {"epochs": 6}]
)
def test_changed_training_ignores_checkpoint(tmp_path, change):
    path, lines = tmp_path / "x.npz", []
    with pytest.raises(Interrupted):
        train(network(), stop_after=3, checkpoint=at(path))
    train(network(), checkpoint=at(path), log=lines.append, **change)
    assert lines[0].startswith("epoch 1/")


def test_key_depends_on_model_data_and_settings():
    model = network()
    model.optimizer.build(model.trainable_variables)
    key = checkpoints.key(model, IMAGES, LABELS, seed=0)
    assert key == checkpoints.key(model, IMAGES.copy(), LABELS, seed=0)
    assert key != checkpoints.key(model, IMAGES, 1 - LABELS, seed=0)
    assert key != checkpoints.key(model, IMAGES, LABELS, seed=1)
    changed = IMAGES.copy()
    changed[-1, -1, -1] ^= 1
    assert key != checkpoints.key(model, changed, LABELS, seed=0)
    model.set_weights([w + 1 for w in model.get_weights()])
    assert key != checkpoints.key(model, IMAGES, LABELS, seed=0)


OWN = """
import keras
class Scaled(keras.Layer):
    def call(self, x):
        return {factor} * x
def squashed(x):
    return keras.ops.tanh({factor} * x)
"""


@pytest.mark.parametrize(
    "last",
    [
        "[Scaled(name='own'), Dense(1, 'sigmoid', name='last')]",
        "[Derived(name='own'), Dense(1, 'sigmoid', name='last')]",
        "[Dense(1, activation=squashed, name='last')]",
    ],
)
def test_keys_depend_on_the_code_of_own_layers_and_activations(tmp_path, monkeypatch, last):
    """In the text of the architecture they are names, whatever they compute."""
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for factor in (2, 30, 2):
        (tmp_path / "own_layers.py").write_text(OWN.format(factor=factor), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "own_layers", raising=False)
        importlib.invalidate_caches()
        keras.utils.set_random_seed(0)
        names = vars(importlib.import_module("own_layers")) | {"Dense": layers.Dense}
        names["Derived"] = type("Derived", (names["Scaled"],), {})
        first = [keras.Input((8, 8, 1), name="image"), layers.Flatten(name="flat")]
        model = keras.Sequential([*first, *eval(last, names)], name="all")
        model.compile("adam", "binary_crossentropy")
        model.optimizer.build(model.trainable_variables)
        keys.append((checkpoints.key(model, IMAGES), b"".join(store._described(model))))
    assert keys[0] == keys[2]
    assert keys[0][0] != keys[1][0] and keys[0][1] != keys[1][1]
    assert digests.own_code(network()) == []


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "missing", "method", "name"])
def test_damaged_checkpoint_is_ignored(tmp_path, damage):
    model, path = network(), tmp_path / "x.npz"
    model.optimizer.build(model.trainable_variables)
    checkpoints.save(path, model, key="k", progress={"x": 0.1}, extra={"best": [IMAGES]})
    progress, extra = checkpoints.restore(path, model, key="k")
    assert progress == {"x": 0.1} and np.array_equal(extra["best"][0], IMAGES)
    assert checkpoints.restore(path, model, key="other") is None
    whole = path.read_bytes()
    content = {"truncated": whole[:-200], "noise": b"\x93" * 500, "empty": b""}
    at = whole.rindex(b"PK\1\2")  # the last entry of the directory; its method is unknown
    content["method"] = whole[: at + 10] + b"\x7f" + whole[at + 11 :]
    content["name"] = whole.replace(b"model-1.npy", b"model-x.npy")  # an array is missing
    path.unlink() if damage == "missing" else path.write_bytes(content[damage])
    changed = model.get_weights()[0] + 1
    model.weights[0].assign(changed)
    assert checkpoints.restore(path, model, key="k") is None
    assert np.array_equal(model.get_weights()[0], changed)


def test_pickled_objects_are_not_loaded(tmp_path):
    """SEC-03"""

    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "PWNED",)

    model, path = network(), tmp_path / "x.npz"
    model.optimizer.build(model.trainable_variables)
    checkpoints.save(path, model, key="k", progress={}, extra={})
    before = state(model)
    for name in ("key", "progress", "model-0"):
        arrays = dict(np.load(path)) | {name: np.array([Malicious()], dtype=object)}
        np.savez(tmp_path / "malicious.npz", allow_pickle=True, **arrays)
        assert checkpoints.restore(tmp_path / "malicious.npz", model, key="k") is None
        assert not (tmp_path / "PWNED").exists() and same(state(model), before)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import numpy as np
import test_checkpoints as t
model = t.network()
history = t.train(model, epochs=12, checkpoint=t.at(Path("x.npz")), log=lambda s: print(s, flush=True))
np.savez("end.npz", *t.state(model))
Path("history.json").write_text(history.to_json(double_precision=15))
"""


@pytest.mark.slow
def test_training_survives_repeated_sigkill(tmp_path):
    """Start, kill -9 during training or saving, and start again until it finishes."""
    code = SCRIPT.format(paths=[str(ROOT), str(Path(__file__).parent)])

    def start():
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    lines = []
    for stop_at, wait in ((2, 0), (7, 0.005)):
        child = start()
        for line in child.stdout:
            lines.append(line)
            if line.startswith(f"epoch {stop_at}/"):
                time.sleep(wait)
                break
        child.kill()
        child.wait()
        child.stdout.close()
    last = start()
    lines += last.stdout.readlines()
    last.stdout.close()
    assert last.wait(120) == 0
    assert sum(line.startswith("resumes after epoch") for line in lines) == 2
    model = network()
    history = train(model, epochs=12)
    end = np.load(tmp_path / "end.npz")
    assert same([end[name] for name in end.files], state(model))
    written = (tmp_path / "history.json").read_text()
    assert json.loads(written) == json.loads(history.to_json(double_precision=15))


def test_averaging_and_sampling_weights_resume_bit_for_bit(tmp_path):
    """The settings of the residual network in 03_categorical."""
    path = tmp_path / "x.npz"
    options = {"average": 0.9, "sampling_weights": np.linspace(1, 2, len(IMAGES))}
    model = network()
    history = train(model, **options)
    with pytest.raises(Interrupted):
        train(network(), stop_after=3, checkpoint=at(path), **options)
    again = network()
    assert train(again, checkpoint=at(path), **options).equals(history)
    assert same(state(again), state(model))


# --- other devices ---


def test_training_begun_on_the_cpu_is_not_continued_on_a_gpu(tmp_path, tensorflow_gpu):
    """Nor is a finished one taken for its result: the bits differ."""
    checkpoint, lines = (lambda key: tmp_path / f"{key}.npz"), []
    with pytest.raises(Interrupted):
        train(network(), stop_after=2, checkpoint=checkpoint)
    tensorflow_gpu()
    train(network(), checkpoint=checkpoint, log=lines.append)
    assert lines[0].startswith("epoch 1/5") and len(list(tmp_path.iterdir())) == 2


def test_key_depends_on_determinism(monkeypatch):
    model, keys = network(), []
    model.optimizer.build(model.trainable_variables)
    for value in ("", "1", ""):
        monkeypatch.setenv(accelerators.NONDETERMINISTIC, value)
        keys.append(checkpoints.key(model, IMAGES))
    assert keys[0] == keys[2] != keys[1]


def test_input_prepared_ahead_gives_the_same_bits(uninterrupted, tensorflow_gpu):
    """On a GPU, the next batch is drawn and augmented in another thread."""
    tensorflow_gpu()
    model = network()
    assert train(model).equals(uninterrupted[1])
    assert same(state(model), state(uninterrupted[0]))


def test_error_in_input_prepared_ahead_ends_the_training(tensorflow_gpu):
    class Broken:
        def draw(self, seed):
            return lambda *batch: 1 / 0

    tensorflow_gpu()
    with pytest.raises(ZeroDivisionError):
        train(network(), augmentation=Broken())


def test_scaled_loss_resumes_bit_for_bit(tmp_path, float16):
    """An optimizer made before gets another automatic name inside the one that scales the loss."""
    path, keys = tmp_path / "x.npz", []
    checkpoint = lambda key: keys.append(key) or path  # noqa: E731
    model = network()
    history = train(model)
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    with pytest.raises(Interrupted):
        train(network(), stop_after=2, checkpoint=checkpoint)
    keras.optimizers.AdamW()
    again = network()
    assert train(again, checkpoint=checkpoint).equals(history)
    assert same(state(again), state(model)) and keys[0] == keys[1]

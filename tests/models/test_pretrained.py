"""All weights are random and made here: accuracy with ImageNet weights is not tested."""

import dataclasses
import socket

import h5py
import keras
import numpy as np
import pytest
from keras.applications import densenet, efficientnet_v2, mobilenet_v2

from cxr_helpers.explain import gradcam
from cxr_helpers.models import embeddings, pretrained
from cxr_helpers.system.errors import DataError

PREPROCESS = {
    "mobilenet_v2": mobilenet_v2.preprocess_input,
    "densenet121": densenet.preprocess_input,
    "efficientnetv2_b0": efficientnet_v2.preprocess_input,
}
CACHED = "models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def grey(size, n=2):
    return np.random.default_rng(0).integers(0, 256, (n, size, size), dtype=np.uint8)


def floats(images):
    return images[..., None] / np.float32(255)


def feature_maps(model, images):
    return keras.Model(model.input, model.get_layer("feature_map").output)(floats(images)).numpy()


def as_published(backbone, path):
    """Save weights in the older format of the published files."""
    backbone.save(whole := path.with_name("whole.h5"))
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        target.attrs.update(source["model_weights"].attrs)
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
    return path


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(weights=None, include_top=False)


@pytest.fixture(scope="module")
def published(backbone, tmp_path_factory):
    return as_published(backbone, tmp_path_factory.mktemp("published") / "notop.h5")


@pytest.fixture(scope="module")
def model(published):
    return pretrained.build("mobilenet_v2", classes=3, weights=published)


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """Let Keras download into an empty folder."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))  # KERAS_HOME
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.fixture
def offline(monkeypatch, keras_home):
    """Let no host name be found."""

    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    return keras_home


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "mobilenet_v2" else pytest.mark.slow)
        for name in pretrained.BACKBONES
    ],
)
def test_feature_maps_match_keras_applications_and_have_positions(name, tmp_path):
    reference = pretrained.BACKBONES[name].application(weights=None, include_top=False)
    reference.save_weights(tmp_path / "notop.weights.h5")
    model = pretrained.build(name, classes=3, weights=str(tmp_path / "notop.weights.h5"))
    rgb = np.repeat(grey(96)[..., None], 3, axis=-1).astype("float32")
    expected = reference(PREPROCESS[name](rgb)).numpy()
    maps = feature_maps(model, grey(96))
    assert np.abs(maps - expected).max() < 1e-5 * np.abs(expected).max()
    rows, _ = gradcam.cell_centres(pretrained.at_size(model, 96), pretrained.FEATURE_MAP)
    assert len(rows) == 3 and np.allclose(np.diff(rows), 32)


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121"])
def test_levels_match_preprocess_input(name):
    image = keras.Input((None, None, 1))
    levels = keras.Model(image, pretrained._preprocessed(image, pretrained.BACKBONES[name]))
    every = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    expected = PREPROCESS[name](np.repeat(every, 3, axis=-1))
    assert np.allclose(levels(every / 255), expected, atol=1e-6)


def test_levels_of_efficientnet_match_its_own_layers():
    image = keras.Input((None, None, 1))
    backbone = pretrained.BACKBONES["efficientnetv2_b0"]
    levels = keras.Model(image, pretrained._preprocessed(image, backbone))
    rescaling = keras.layers.Rescaling(1 / 255)
    normalization = keras.layers.Normalization(
        mean=[0.485, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2]
    )
    every = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    expected = normalization(rescaling(np.repeat(every, 3, axis=-1)))
    assert np.allclose(levels(every / 255), expected, atol=1e-6)


def test_levels_are_exact_under_mixed_precision():
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        image = keras.Input((None, None, 1))
        levels = keras.Model(
            image, pretrained._preprocessed(image, pretrained.BACKBONES["densenet121"])
        )
    finally:
        keras.mixed_precision.set_global_policy(before)
    every = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1) / 255
    assert len(np.unique(levels(every).numpy()[..., 0])) == 256


def test_published_format_is_loaded(model, backbone):
    loaded = keras.Model(model.input, model.get_layer("feature_map").output).get_weights()
    expected = backbone.get_weights()
    assert len(loaded) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(loaded, expected, strict=True))


def test_images_of_several_sizes_are_classified(model):
    for size in (32, 96, 112):
        probabilities = model(floats(grey(size))).numpy()
        assert probabilities.shape == (2, 3)
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_model_is_flat_and_wholly_trainable(model):
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    assert all(layer.trainable for layer in model.layers)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.9}


def test_embedding_is_mean_of_feature_map(model):
    vectors = embeddings.embed(model, grey(96), layers=["embedding"])["embedding"]
    maps = feature_maps(model, grey(96))
    assert vectors.shape == (2, 1280)
    assert np.allclose(vectors, maps.mean(axis=(1, 2)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [96, 112])
def test_network_of_fixed_size_is_explained(model, size):
    fixed = pretrained.at_size(model, size)
    assert np.array_equal(fixed(floats(grey(size))), model(floats(grey(size))))
    rows, columns = gradcam.cell_centres(fixed, pretrained.FEATURE_MAP)
    # Five layers of stride 2, padded after the image only: from 0 to 1, 3, 7, 15, 31.
    assert rows.tolist() == columns.tolist() == [31, 63, 95]
    heat = [
        gradcam.gradcam(fixed, grey(size), layer=pretrained.FEATURE_MAP, class_index=k)
        for k in range(3)
    ]
    assert np.shape(heat) == (3, 2, size, size)
    assert np.isfinite(heat).all() and np.max(heat) > 0


def test_offline_network_is_unavailable_in_one_line(offline, capfd):
    with pytest.raises(pretrained.Unavailable) as caught:
        pretrained.build("mobilenet_v2", classes=3)
    assert str(caught.value) == (
        "pretrained=mobilenet_v2: its ImageNet weights could not be downloaded ([Errno -3] "
        "Temporary failure in name resolution); connect to the internet once, or give "
        "pretrained_weights=FILE"
    )
    assert capfd.readouterr().out == ""
    assert socket.getdefaulttimeout() is None
    assert list((offline / "models").iterdir()) == []


def test_downloaded_weights_need_no_network(offline, published, backbone):
    (offline / CACHED).write_bytes(published.read_bytes())
    model = pretrained.build("mobilenet_v2", classes=3)
    assert np.array_equal(model.get_layer("Conv1").kernel, backbone.get_layer("Conv1").kernel)


def test_damaged_download_is_unavailable(offline, published):
    (offline / CACHED).write_bytes(published.read_bytes()[:5000])
    with pytest.raises(pretrained.Unavailable) as caught:
        pretrained.build("mobilenet_v2", classes=3)
    assert "cannot be read (" in str(caught.value) and "delete them" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_missing_network(monkeypatch):
    def fail(**_):
        raise OSError(28, "No space left on device")

    full = dataclasses.replace(pretrained.BACKBONES["mobilenet_v2"], application=fail)
    monkeypatch.setitem(pretrained.BACKBONES, "mobilenet_v2", full)
    with pytest.raises(OSError, match="No space left"):
        pretrained.build("mobilenet_v2", classes=3)


@pytest.mark.parametrize(
    "file", ["missing.h5", "weights.txt", "text.h5", "other.h5", "other.weights.h5"]
)
def test_unsuitable_file_is_refused_by_name(tmp_path, file):
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    path = tmp_path / file
    if file == "other.h5":
        as_published(other, path)
    elif file == "other.weights.h5":
        other.save_weights(path)
    elif file != "missing.h5":
        path.write_text("no weights")
    with pytest.raises(DataError) as caught:
        pretrained.build("mobilenet_v2", classes=3, weights=str(path))
    message = str(caught.value)
    assert message.startswith(f"pretrained_weights={path}: expected") and "\n" not in message
    assert len(message) < len(str(path)) + 320


def test_unknown_network_is_refused_with_known_names():
    with pytest.raises(ValueError, match=r"'mobilenet': expected mobilenet_v2, dense.*did you"):
        pretrained.build("mobilenet", classes=3)

import keras
import numpy as np
import pytest

from cxr_helpers.models import architectures


def described(model):
    words = []
    for layer in model.layers:
        name = type(layer).__name__
        match name:
            case "Conv2D":
                name = f"Conv {layer.filters} {layer.kernel_size[0]}x{layer.kernel_size[1]} "
                name += f"{layer.padding} {layer.activation.__name__}"
            case "MaxPooling2D":
                name = f"MaxPool {layer.pool_size[0]}"
            case "UpSampling2D":
                name = f"UpSampling {layer.size[0]}"
            case "Dense":
                name = f"Dense {layer.units} {layer.activation.__name__}"
            case "Dropout":
                name = f"Dropout {layer.rate}"
        words.append(name)
    return words


def test_binary_layers_are_the_published_ones():
    assert described(architectures.binary_cnn(64)) == [
        "Conv 16 3x3 valid relu",
        "Conv 16 3x3 valid relu",
        "MaxPool 2",
        "Conv 32 3x3 valid relu",
        "MaxPool 2",
        "Conv 64 3x3 valid relu",
        "MaxPool 2",
        "Flatten",
        "Dense 64 relu",
        "Dropout 0.5",
        "Dense 1 sigmoid",
    ]


def test_categorical_layers_are_the_published_ones():
    assert described(architectures.categorical_cnn(64)) == [
        "Conv 16 3x3 valid relu",
        "Conv 16 3x3 valid relu",
        "MaxPool 2",
        "Conv 32 3x3 valid relu",
        "Conv 64 3x3 valid relu",
        "MaxPool 2",
        "Flatten",
        "Dense 64 relu",
        "Dropout 0.5",
        "Dense 3 softmax",
    ]


def test_autoencoder_layers_are_the_published_ones():
    assert described(architectures.autoencoder(64)) == [
        "Conv 32 3x3 same relu",
        "MaxPool 2",
        "Conv 16 3x3 same relu",
        "MaxPool 2",
        "Dropout 0.2",
        "Conv 16 3x3 same relu",
        "UpSampling 2",
        "Conv 32 3x3 same relu",
        "UpSampling 2",
        "Dropout 0.2",
        "Conv 1 3x3 same sigmoid",
    ]


def test_transferred_layers_are_copies():
    binary = architectures.binary_cnn(32)
    model = architectures.categorical_cnn(32, source=binary)
    for name in architectures.TRANSFERRED:
        ours, theirs = model.get_layer(name), binary.get_layer(name)
        assert ours is not theirs and ours.trainable
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            assert np.array_equal(a, b)
    before = binary.get_weights()
    model.compile("sgd", "categorical_crossentropy")
    draw = np.random.default_rng(0)
    model.fit(
        draw.random((8, 32, 32, 1)), keras.utils.to_categorical([0, 1, 2, 0] * 2, 3), verbose=0
    )
    assert not np.array_equal(model.get_layer("conv1").get_weights()[0], before[0])
    for old, new in zip(before, binary.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_autoencoder_gives_back_the_shape_it_got():
    model = architectures.autoencoder(32)
    assert model.output_shape == (None, 32, 32, 1)
    assert model.get_layer(architectures.CODE).output.shape == (None, 8, 8, 16)


def test_a_side_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(ValueError, match="image_size 30"):
        architectures.autoencoder(30)


def test_layers_are_described_in_order():
    table = architectures.describe(architectures.binary_cnn(32))
    assert table["layer"].tolist()[:2] == ["conv1", "conv2"]
    assert table["output"][0] == "30×30×16" and table["weights"][0] == 16 * 9 + 16


def test_the_residual_network_does_not_see_exposure():
    keras.utils.set_random_seed(0)
    model = architectures.residual_cnn(32, widths=(8, 16))
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype("float32")
    said = model.predict(images, verbose=0)
    assert said.shape == (3, 3) and np.allclose(said.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(model.predict(images * 0.5 + 0.2, verbose=0), said, atol=0.01)
    assert not np.allclose(model.predict(images[:, ::-1], verbose=0), said, atol=0.01)


def test_the_residual_network_has_a_block_a_width_and_halves_the_sides():
    model = architectures.residual_cnn(64, widths=(4, 8, 16), classes=2)
    shapes = [model.get_layer(f"block{i}").output.shape[1:] for i in (1, 2, 3)]
    assert shapes == [(32, 32, 4), (16, 16, 8), (8, 8, 16)]
    assert model.get_layer(architectures.EMBEDDING).output.shape[1:] == (16,)
    assert model.output.shape[1:] == (2,)


def test_the_trained_residual_network_is_rebuilt_in_code(tmp_path):
    model = architectures.residual_cnn(32, widths=(4, 8))
    model.save_weights(tmp_path / "ours.weights.h5")
    (tmp_path / "ours.json").write_text('{"widths": [4, 8]}')
    again = architectures.trained_residual_cnn(
        32, tmp_path / "ours.json", tmp_path / "ours.weights.h5"
    )
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)

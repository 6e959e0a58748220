import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_helpers.models import architectures


def layer_summary(model):
    summary = []
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
        summary.append(name)
    return summary


def test_binary_cnn_has_published_layers():
    assert layer_summary(architectures.binary_cnn(64)) == [
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


def test_categorical_cnn_has_published_layers():
    assert layer_summary(architectures.categorical_cnn(64)) == [
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


def test_autoencoder_has_published_layers():
    assert layer_summary(architectures.autoencoder(64)) == [
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


def test_training_leaves_transfer_source_unchanged():
    binary = architectures.binary_cnn(32)
    model = architectures.categorical_cnn(32, source=binary)
    for name in architectures.TRANSFERRED:
        copy, original = model.get_layer(name), binary.get_layer(name)
        assert copy is not original and copy.trainable
        for a, b in zip(copy.get_weights(), original.get_weights(), strict=True):
            assert np.array_equal(a, b)
    before = binary.get_weights()
    model.compile("sgd", "categorical_crossentropy")
    rng = np.random.default_rng(0)
    model.fit(
        rng.random((8, 32, 32, 1)), keras.utils.to_categorical([0, 1, 2, 0] * 2, 3), verbose=0
    )
    assert not np.array_equal(model.get_layer("conv1").get_weights()[0], before[0])
    for old, new in zip(before, binary.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_autoencoder_output_has_input_shape():
    model = architectures.autoencoder(32)
    assert model.output_shape == (None, 32, 32, 1)
    assert model.get_layer(architectures.CODE).output.shape == (None, 8, 8, 16)


def test_autoencoder_refuses_size_not_divisible_by_4():
    with pytest.raises(ValueError, match="image_size 30"):
        architectures.autoencoder(30)


def test_describe_lists_layers_in_order():
    table = architectures.describe(architectures.binary_cnn(32))
    assert table["layer"].tolist()[:2] == ["conv1", "conv2"]
    assert table["output"][0] == "30×30×16" and table["weights"][0] == 16 * 9 + 16


def test_residual_cnn_is_insensitive_to_exposure():
    keras.utils.set_random_seed(0)
    model = architectures.residual_cnn(32, widths=(8, 16))
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype("float32")
    y_prob = model.predict(images, verbose=0)
    assert y_prob.shape == (3, 3) and np.allclose(y_prob.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(model.predict(images * 0.5 + 0.2, verbose=0), y_prob, atol=0.01)
    assert not np.allclose(model.predict(images[:, ::-1], verbose=0), y_prob, atol=0.01)


def test_residual_cnn_has_one_block_per_width_and_halves_sides():
    model = architectures.residual_cnn(64, widths=(4, 8, 16), classes=2)
    shapes = [model.get_layer(f"block{i}").output.shape[1:] for i in (1, 2, 3)]
    assert shapes == [(32, 32, 4), (16, 16, 8), (8, 8, 16)]
    assert model.get_layer(architectures.EMBEDDING).output.shape[1:] == (16,)
    assert model.output.shape[1:] == (2,)


def test_trained_residual_cnn_restores_options_and_weights(tmp_path):
    model = architectures.residual_cnn(32, widths=(4, 8))
    model.save_weights(tmp_path / "ours.weights.h5")
    (tmp_path / "ours.json").write_text('{"widths": [4, 8], "image_size": 40, "crop_size": 24}')
    for for_crops, side in ((False, 40), (True, 24)):  # the weights fit any size
        restored = architectures.trained_residual_cnn(
            tmp_path / "ours.json", tmp_path / "ours.weights.h5", for_crops=for_crops
        )
        assert restored.input_shape == (None, side, side, 1)
        for expected, weights in zip(model.get_weights(), restored.get_weights(), strict=True):
            assert np.array_equal(expected, weights)


def test_residual_cnn_of_open_size_predicts_at_any_size():
    model = architectures.residual_cnn(None, widths=(4, 8))
    for size in (16, 24):
        assert model.predict_on_batch(np.zeros((2, size, size, 1), np.float32)).shape == (2, 3)


# --- batch normalisation ---


def outputs_and_gradients(layer, features, *, training):
    """Return what a layer makes of features, the gradients of its squares, and its weights."""
    values = tf.Variable(features)
    with tf.GradientTape() as tape:
        outputs = layer(tf.cast(values, layer.compute_dtype), training=training)
        score = tf.reduce_mean(tf.cast(outputs, "float32") ** 2 * np.arange(1, 5, dtype="float32"))
    weights = [weight.value for weight in layer.trainable_weights]
    assert outputs.dtype == layer.compute_dtype
    found = [outputs, *tape.gradient(score, [values, *weights]), *layer.weights]
    return [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in found]


def both_normalisations(policy, features, *, training):
    """Return the above of our layer and of Keras's, with equal weights that are not the initial ones."""
    pair = [
        kind(momentum=0.9, epsilon=1e-5, dtype=policy)
        for kind in (architectures.BatchNormalization, keras.layers.BatchNormalization)
    ]
    weights = np.random.default_rng(1).uniform(0.5, 2, (4, features.shape[-1]))
    for layer in pair:
        layer.build(features.shape)
        layer.set_weights(list(weights))
    return [outputs_and_gradients(layer, features, training=training) for layer in pair]


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("shape", [(5, 6, 7, 4), (1, 1, 1, 4)])
@pytest.mark.parametrize(
    ("policy", "rounding"),
    [("float32", 1e-4), ("mixed_bfloat16", 0.02), ("mixed_float16", 0.002)],
)
def test_batch_normalisation_is_that_of_keras(policy, rounding, shape, training):
    features = np.random.default_rng(0).normal(2, 3, shape).astype("float32")
    for ours, of_keras in zip(
        *both_normalisations(policy, features, training=training), strict=True
    ):
        np.testing.assert_allclose(ours, of_keras, rtol=rounding, atol=rounding)


def test_batch_normalisation_that_is_not_trained_keeps_its_statistics():
    layer = architectures.BatchNormalization()
    layer.build((None, None, None, 2))
    layer.trainable = False
    before = layer.get_weights()
    layer(np.ones((2, 3, 3, 2), np.float32), training=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


def test_batch_normalisation_is_left_to_keras_on_a_gpu(tensorflow_gpu):
    """To the last bit: its fused gradient is not deterministic there."""
    tensorflow_gpu()
    features = np.random.default_rng(0).normal(2, 3, (5, 6, 7, 4)).astype("float32")
    ours, of_keras = both_normalisations("float32", features, training=True)
    assert all(map(np.array_equal, ours, of_keras))


def test_weights_of_keras_normalisation_are_read(tmp_path, monkeypatch):
    """Runs of earlier versions have them."""
    with monkeypatch.context() as patch:
        patch.setattr(architectures, "BatchNormalization", keras.layers.BatchNormalization)
        earlier = architectures.residual_cnn(16, widths=(4, 8))
    earlier.set_weights([np.random.default_rng(0).random(w.shape) for w in earlier.get_weights()])
    earlier.save_weights(tmp_path / "ours.weights.h5")
    model = architectures.residual_cnn(16, widths=(4, 8))
    model.load_weights(tmp_path / "ours.weights.h5")
    images = np.random.default_rng(1).random((3, 16, 16, 1), dtype=np.float32)
    np.testing.assert_allclose(model(images), earlier(images), atol=1e-6)

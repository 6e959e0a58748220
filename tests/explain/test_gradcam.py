import keras
import numpy as np
import pytest
from keras import layers

from cxr_helpers.explain import gradcam
from cxr_helpers.models import architectures

FILTERS = np.array([1.0, -2.0])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 6, 6), dtype=np.uint8)


def head(outputs):
    activation = "sigmoid" if outputs == 1 else "softmax"
    return [layers.GlobalAveragePooling2D(), layers.Dense(outputs, activation=activation)]


def planted(model, weights):
    """Set the 1 × 1 convolution and the dense layer to known weights."""
    model.get_layer("conv").set_weights([FILTERS.reshape(1, 1, 1, 2)])
    model.layers[-1].set_weights([np.asarray(weights, "float32"), np.zeros(len(weights[0]))])
    return model


def convolution():
    return layers.Conv2D(2, 1, use_bias=False, name="conv")


def sequential(outputs):
    return keras.Sequential([keras.Input((6, 6, 1)), convolution(), *head(outputs)])


def functional(outputs):
    inputs = keras.Input((6, 6, 1))
    flow = convolution()(inputs)
    for layer in head(outputs):
        flow = layer(flow)
    return keras.Model(inputs, flow)


def analytic(images, weights):
    """Grad-CAM of mean(conv) @ weights: each channel's weight is its dense weight / 36."""
    features = images[..., None] / 255 * FILTERS
    return np.maximum(0, features @ (np.asarray(weights) / 36))


@pytest.mark.parametrize("build", [sequential, functional])
def test_linear_model_matches_analytic_map(build, images):
    model = planted(build(1), [[3.0], [1.0]])
    heat = gradcam.gradcam(model, images, layer="conv", class_index=1, upsample=False)
    assert heat.max() > 0
    assert np.allclose(heat, analytic(images, [3.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("build", [sequential, functional])
def test_softmax_classes_are_explained_by_logits(build, images):
    weights = np.array([[3.0, 0.0, -1.0], [1.0, -1.0, 2.0]])
    model = planted(build(3), weights)
    for k in range(3):
        heat = gradcam.gradcam(model, images, layer="conv", class_index=k, upsample=False)
        assert np.allclose(heat, analytic(images, weights[:, k]), atol=1e-6)


def test_class_0_of_sigmoid_is_negative_logit(images):
    model = planted(sequential(1), [[-3.0], [-1.0]])
    heat = gradcam.gradcam(model, images, layer="conv", class_index=0, upsample=False)
    assert np.allclose(heat, analytic(images, [3.0, 1.0]), atol=1e-6)


def test_saturated_sigmoid_is_explained_by_logit(images):
    model = planted(sequential(1), [[3.0], [1.0]])
    model.layers[-1].bias.assign([200.0])  # the sigmoid is 1 and its gradient 0
    heat = gradcam.gradcam(model, images, layer="conv", class_index=1, upsample=False)
    assert np.allclose(heat, analytic(images, [3.0, 1.0]), atol=1e-6)


def test_heat_lies_in_planted_region():
    image = np.zeros((1, 32, 32), np.uint8)
    image[0, 20:28, 4:12] = 255
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(1, 3, padding="same", use_bias=False, name="conv"),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dense(1, "sigmoid", kernel_initializer="ones"),
        ]
    )
    model.get_layer("conv").set_weights([np.full((3, 3, 1, 1), 1 / 9)])
    heat = gradcam.gradcam(model, image, layer="conv", class_index=1)[0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 20 <= row < 28 and 4 <= column < 12
    assert heat[:16].max() == 0


@pytest.mark.parametrize("corner", [(24, 60), (60, 24), (28, 28)])
@pytest.mark.parametrize("build", [architectures.binary_cnn, architectures.categorical_cnn])
def test_gradcam_registers_valid_padding(build, corner):
    model = build(96)
    for layer in model.layers:  # equal positive weights: every position contributes equally
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([np.full(kernel.shape, 1 / kernel.shape[-2]), np.zeros(bias.shape)])
    model.layers[-1].kernel[:, :-1].assign(np.zeros((64, model.layers[-1].units - 1)))
    (top, left), spot = corner, np.zeros((1, 96, 96), np.uint8)
    spot[0, top : top + 8, left : left + 8] = 255
    last = max(1, model.layers[-1].units - 1)
    heat = gradcam.gradcam(model, spot, layer="conv4", class_index=last)[0]
    centre = [(heat.sum(axis=axis) * np.arange(96)).sum() / heat.sum() for axis in (1, 0)]
    assert np.allclose(centre, (top + 3.5, left + 3.5), atol=1.0)


def geometry(size, *body):
    return keras.Sequential([keras.Input((size, size, 1)), *body, *head(1)])


@pytest.mark.parametrize(
    ("body", "centres"),
    [
        ([layers.Conv2D(1, 3, name="last")], [1, 2, 3, 4]),
        ([layers.Conv2D(1, 3), layers.MaxPooling2D(2, name="last")], [1.5, 3.5]),
        (
            [layers.Conv2D(1, 2), layers.AveragePooling2D(2, name="last")],
            [1, 3],
        ),  # the last cell is dropped
        ([layers.Conv2D(1, 3, dilation_rate=2, name="last")], [2, 3]),
        ([layers.Conv2D(1, 3, padding="same", name="last")], [0, 1, 2, 3, 4, 5]),
        ([layers.Conv2D(1, 3, strides=2, padding="same", name="last")], [1, 3, 5]),
        ([layers.Conv2D(1, 3), layers.BatchNormalization(name="last")], [1, 2, 3, 4]),
        ([layers.ZeroPadding2D(1), layers.Conv2D(1, 3, name="last")], [0, 1, 2, 3, 4, 5]),
        (
            [layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(1, 3, strides=2, name="last")],
            [1, 3, 5],
        ),  # equals padding="same"
        (
            [layers.Conv2D(1, 2, strides=2), layers.ZeroPadding2D(1, name="last")],
            [-1.5, 0.5, 2.5, 4.5, 6.5],
        ),
    ],
)
def test_cell_centres_are_receptive_field_centres(body, centres):
    rows, columns = gradcam.cell_centres(geometry(6, *body), "last")
    assert rows.tolist() == columns.tolist() == centres


@pytest.mark.parametrize(("classes", "first", "step"), [(2, 9.5, 4), (3, 6.5, 2)])
def test_cells_of_the_published_networks_lie_where_they_look(classes, first, step):
    """At 128 pixels, with convolutions without padding: not where plain resizing draws them."""
    build = architectures.binary_cnn if classes == 2 else architectures.categorical_cnn
    rows, columns = gradcam.cell_centres(build(128), "conv4")
    assert rows.tolist() == columns.tolist() == [first + step * i for i in range(len(rows))]


def test_merged_branches_have_mean_centres():
    rows, _ = gradcam.cell_centres(architectures.residual_cnn(32, widths=(4, 8)), "block2")
    # stem: 1, 3, 5 …; block 2: its convolutions from 3, its pooling from 2, in steps of 4
    assert rows.tolist() == [2.5 + 4 * i for i in range(8)]


def test_channel_factors_do_not_move_centres():
    images = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 3)(images)
    factors = layers.Dense(2)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="last")([x, factors])
    for layer in head(1):
        x = layer(x)
    rows, _ = gradcam.cell_centres(keras.Model(images, x), "last")
    assert rows.tolist() == [1, 2, 3, 4]


def test_layer_of_unknown_position_is_refused():
    model = geometry(6, layers.UpSampling2D(2), layers.Conv2D(1, 3, name="last"))
    with pytest.raises(ValueError, match="position of the feature maps of 'last'"):
        gradcam.gradcam(model, np.zeros((1, 6, 6), np.uint8), layer="last", class_index=1)


def test_model_is_unchanged(images):
    model = planted(sequential(1), [[3.0], [1.0]])
    before = model.predict(images[..., None] / 255, verbose=0)
    gradcam.gradcam(model, images, layer="conv", class_index=1)
    assert np.array_equal(model.predict(images[..., None] / 255, verbose=0), before)
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_upsampled_maps_have_image_size():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    heat = gradcam.gradcam(architectures.categorical_cnn(32), images, layer="conv4", class_index=2)
    assert heat.shape == images.shape and heat.dtype == np.float32 and heat.min() >= 0


def test_batch_matches_single_images(images):
    model = planted(sequential(1), [[3.0], [1.0]])
    together = gradcam.gradcam(model, images, layer="conv", class_index=1)
    alone = [gradcam.gradcam(model, f[None], layer="conv", class_index=1)[0] for f in images]
    assert np.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "class_index", "message"),
    [
        ("cnv", 1, "No such layer: cnv"),
        ("conv", 2, "class 2 of a model with 2 classes"),
        ("flat", 1, "has no feature maps"),
    ],
)
def test_unknown_layer_or_class_is_refused(images, layer, class_index, message):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            convolution(),
            layers.Flatten(name="flat"),
            layers.Dense(1, "sigmoid"),
        ]
    )
    with pytest.raises(ValueError, match=message):
        gradcam.gradcam(model, images, layer=layer, class_index=class_index)


def test_frozen_model_is_explained(images):
    model = planted(sequential(1), [[3.0], [1.0]])
    model.trainable = False
    heat = gradcam.gradcam(model, images, layer="conv", class_index=1, upsample=False)
    assert np.allclose(heat, analytic(images, [3.0, 1.0]), atol=1e-6)


def test_dense_layer_without_bias_is_explained(images):
    dense = layers.Dense(1, "sigmoid", use_bias=False)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), convolution(), layers.GlobalAveragePooling2D(), dense]
    )
    model.get_layer("conv").set_weights([FILTERS.reshape(1, 1, 1, 2)])
    dense.set_weights([np.array([[3.0], [1.0]])])
    heat = gradcam.gradcam(model, images, layer="conv", class_index=1, upsample=False)
    assert np.allclose(heat, analytic(images, [3.0, 1.0]), atol=1e-6)


def test_nested_model_is_refused(images):
    backbone = keras.Sequential([keras.Input((6, 6, 1)), convolution()], name="backbone")
    model = keras.Sequential([keras.Input((6, 6, 1)), backbone, *head(1)])
    with pytest.raises(ValueError, match=r"contains the models \['backbone'\]"):
        gradcam.gradcam(model, images, layer="conv", class_index=1)
    with pytest.raises(ValueError, match=r"contains the models \['backbone'\]"):
        gradcam.cell_centres(model, "conv")


def test_model_without_final_dense_layer_is_refused(images):
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), convolution(), layers.Flatten(), layers.Dense(3), layers.Softmax()]
    )
    with pytest.raises(ValueError, match="ends with Softmax: expected Dense"):
        gradcam.gradcam(model, images, layer="conv", class_index=1)


def test_map_by_position_keeps_each_gradient(images):
    """Flattened: the dense weights differ between positions, and only one position is used."""
    inputs = keras.Input((6, 6, 1))
    outputs = layers.Dense(1, activation="sigmoid")(layers.Flatten()(convolution()(inputs)))
    model = keras.Model(inputs, outputs)
    weights = np.zeros((72, 1))
    weights[2 * 7] = 3.0  # row 1, column 1, first channel
    model.get_layer("conv").set_weights([FILTERS.reshape(1, 1, 1, 2)])
    model.layers[-1].set_weights([weights, np.zeros(1)])
    options = {"layer": "conv", "class_index": 1, "upsample": False}
    heat = gradcam.gradcam(model, images, by_position=True, **options)
    expected = np.zeros((3, 6, 6))
    expected[:, 1, 1] = 3.0 * images[:, 1, 1] / 255
    assert np.allclose(heat, expected, atol=1e-6)
    assert (gradcam.gradcam(model, images, **options) > 0).sum() > 3

import numpy as np
import pytest
import small

from cxr_helpers.explain import measures

METHODS = list(measures.METHODS)


@pytest.fixture(scope="module")
def network():
    """Log-odds are the mean of the upper left corner, times 8."""
    return small.corner().model


@pytest.fixture(scope="module")
def images():
    """The corner is brighter than everything else."""
    images = small.images(n=6, size=12) // 8
    images[:, :4, :4] += 200
    return images


@pytest.fixture(scope="module")
def maps(network, images):
    return measures.attribution_maps(network, images, feature_map="conv", patch_share=1 / 3)


def test_every_method_has_a_map_of_each_image_and_a_time(maps):
    assert [*maps] == [*METHODS, "ms"]
    assert all(maps[method].shape == (6, 12, 12) for method in METHODS)
    assert maps["ms"].shape == (5,) and (maps["ms"] > 0).all()


def test_controls_are_maps_of_the_same_size(images, maps):
    controls = measures.control_maps(images, maps["occlusion"], patch_share=1 / 3, seed=0)
    assert len(controls) == 5 and {heat.shape for heat in controls.values()} == {(6, 12, 12)}


def test_true_maps_score_higher_than_controls(network, images, maps):
    controls = measures.control_maps(images, maps["occlusion"], patch_share=1 / 3, seed=0)
    corner = np.zeros((6, 12, 12), dtype=bool)
    corner[:, :4, :4] = True
    own = {name: maps[name] for name in ("occlusion", "int. gradients", "HiResCAM")}
    scores = measures.scores(
        network, images, own | controls, {"lesion": corner}, feature_map="conv"
    )
    means = scores.groupby("method").mean(numeric_only=True)
    true, rest = means.loc[list(own)], means.loc[["white noise", "smoothed noise", "centre"]]
    for column in (
        "lesion hit",
        "lesion heat",
        "lesion auprc",
        "SRG, blurred",
        "SRG, interpolated",
    ):
        assert true[column].min() > rest[column].max(), column
    assert true["lesion gain"].min() > 3
    np.testing.assert_allclose(means["lesion area"], 16 / 144)


def test_masks_are_resized_to_the_map(network):
    mask = np.zeros((1, 24, 24), dtype=bool)
    mask[:, :12, :12] = True
    assert measures.resized_masks(mask, 12).sum() == 36


def test_dependence_leaves_the_network_as_it_is_and_falls(network):
    trained = small.published().model
    weights = [w.copy() for w in trained.get_weights()]
    images = small.images(n=2, size=44)
    found = measures.dependence(
        trained, images, feature_map="conv4", patch_share=0.25, seed=3, draws=2
    )
    assert all(np.array_equal(a, b) for a, b in zip(weights, trained.get_weights(), strict=True))
    first = found[found["draw"] == 0]
    steps = ["other image", "pneumonia", "embedding", "conv4", "conv3", "conv2", "all"]
    assert list(first["step"].unique()) == steps
    assert list(found[found["draw"] == 1]["step"].unique()) == ["all"]
    assert found["similarity"].between(0, 1).all()
    gradient = first[first["method"] == "absolute gradient"].groupby("step")["similarity"].mean()
    assert gradient["all"] < 0.9


def test_stability_is_given_for_every_method(network, images):
    found = measures.stability(network, images[:2], feature_map="conv", patch_share=1 / 3, seed=0)
    assert list(found) == METHODS and all(len(values) == 2 for values in found.values())
    assert found["absolute gradient"].max() < 1e-6  # linear: the gradient is the same everywhere


def test_occlusion_maps_take_the_options_of_covering(network, images):
    heat = measures.occlusion_maps(
        network, images, feature_map="conv", patch=4, stride=4, fill="black", of="probability"
    )
    logit = 8 * images[:, :4, :4].mean(axis=(1, 2)) / 255
    expected = 1 / (1 + np.exp(-logit)) - 0.5
    np.testing.assert_allclose(heat[:, 0, 0], expected, rtol=1e-4)

import numpy as np
import pytest
import small

from cxr_helpers.explain import measures

METHODS = list(measures.METHODS)
PRIMARY = ["occlusion", *measures.GRADIENTS]


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
    maps, _ = measures.attribution_maps(network, images, feature_map="conv", patch_share=1 / 3)
    return maps


def test_every_method_has_a_map_of_each_image_and_a_time(network, images):
    maps, ms = measures.attribution_maps(
        network, images, feature_map="conv", patch_share=1 / 3, occluded=4
    )
    assert [*maps] == [*ms] == METHODS and min(ms.values()) > 0
    for method, heat in maps.items():
        assert heat.shape == (4 if method in measures.COVERS else 6, 12, 12)


def test_network_that_standardises_is_covered_by_its_mean_only():
    explained = small.residual()
    found = measures.methods(explained, patch_share=1 / 4)
    assert explained.standardises and list(found) == ["occlusion", *measures.GRADIENTS]


def test_fills_of_the_patch_differ(maps):
    black, around = maps["occlusion, black"], maps["occlusion, around"]
    # the corner is bright, its surroundings are dark: black takes most away
    assert (black[:, 0, 0] > around[:, 0, 0]).all() and (around[:, 0, 0] > 0).all()


def test_controls_are_maps_of_the_same_size(images, maps):
    controls = measures.control_maps(images, maps["occlusion"], patch_share=1 / 3, seed=0)
    assert len(controls) == 5 and {heat.shape for heat in controls.values()} == {(6, 12, 12)}


def test_true_maps_score_higher_than_controls(network, images, maps):
    controls = measures.control_maps(images, maps["occlusion"], patch_share=1 / 3, seed=0)
    corner = np.zeros((6, 12, 12), dtype=bool)
    corner[:, :4, :4] = True
    own = {name: maps[name] for name in ("occlusion", "int. gradients", "HiResCAM")}
    scores, _ = measures.scores(
        network, images, own | controls, {"lesion": corner}, feature_map="conv"
    )
    means = scores.groupby("method").mean(numeric_only=True)
    true, rest = means.loc[list(own)], means.loc[["white noise", "smoothed noise", "centre"]]
    for column in (
        "lesion hit",
        "lesion heat",
        "lesion rank",
        "lesion auprc",
        "SRG, blurred",
        "SRG, interpolated",
    ):
        assert true[column].min() > rest[column].max(), column
    assert true["lesion gain"].min() > 3
    np.testing.assert_allclose(scores["lesion gain"], scores["lesion heat"] * 144 / 16)
    np.testing.assert_allclose(means["lesion area"], 16 / 144)


def test_maps_of_fewer_images_and_curves_of_some(network, images, maps):
    own = {"occlusion": maps["occlusion"][:4], "HiResCAM": maps["HiResCAM"]}
    lung = np.ones((6, 12, 12), dtype=bool)
    scores, curves = measures.scores(
        network, images, own, {"lung": lung}, feature_map="conv", curved=3
    )
    assert scores.groupby("method")["image"].count().to_dict() == {"occlusion": 4, "HiResCAM": 6}
    gain = scores.set_index(["method", "image"])["SRG, interpolated"]
    assert gain.notna().groupby("method").sum().to_dict() == {"occlusion": 3, "HiResCAM": 3}
    one = curves.query("method == 'HiResCAM' and fill == 'interpolated' and image == 2")
    area = np.trapezoid(one["least"] - one["most"], one["share"])
    np.testing.assert_allclose(area, gain["HiResCAM", 2], rtol=1e-5)


def test_mean_map_of_others_where_fewer_images_are_occluded(images):
    occlusion = np.arange(3.0)[:, None, None] * np.ones((3, 12, 12))
    controls = measures.control_maps(images, occlusion, patch_share=1 / 3, seed=0)
    assert controls["mean of others"][:, 0, 0].tolist() == [1.5, 1, 0.5, 1, 1, 1]


def test_masks_are_resized_to_the_map(network):
    mask = np.zeros((1, 24, 24), dtype=bool)
    mask[:, :12, :12] = True
    assert measures.resized_masks(mask, 12).sum() == 36


def test_dependence_leaves_the_network_as_it_is_and_falls(network):
    trained = small.published().model
    weights = [w.copy() for w in trained.get_weights()]
    images = small.images(n=2, size=44)
    found, strip = measures.dependence(
        trained, images, feature_map="conv4", patch_share=0.25, seed=3, draws=2
    )
    assert all(np.array_equal(a, b) for a, b in zip(weights, trained.get_weights(), strict=True))
    first = found[found["draw"] == 0]
    steps = ["other image", "pneumonia", "embedding", "conv4", "conv3", "conv2", "all"]
    assert list(first["step"].unique()) == steps
    assert list(found[found["draw"] == 1]["step"].unique()) == ["all"]
    assert found["similarity"].dropna().between(0, 1).all()  # constant maps have none
    assert list(strip) == PRIMARY and {tuple(of_step) for of_step in strip.values()} == {
        ("trained", *steps[1:])
    }
    assert strip["Grad-CAM"]["all"].shape == (44, 44)
    gradient = first[first["method"] == "absolute gradient"].groupby("step")["similarity"].mean()
    assert gradient["all"] < 0.9


def test_stability_is_given_for_every_method(network, images):
    options = {"feature_map": "conv", "patch_share": 1 / 3, "seed": 0}
    found = measures.stability(network, images[:2], **options)
    assert list(found) == PRIMARY and all(len(values) == 2 for values in found.values())
    assert found["absolute gradient"].max() < 1e-6  # linear: the gradient is the same everywhere


def test_some_methods_only(network, images):
    options = {"feature_map": "conv", "patch_share": 1 / 3, "seed": 0}
    some = ["occlusion", "occlusion, black", "Grad-CAM"]  # the coarse maps have no covers in black
    assert list(measures.stability(network, images[:2], **options, only=some)) == some[::2]
    found, strip = measures.dependence(network, images[:2], **options, draws=1, only=some)
    assert list(strip) == list(found["method"].unique()) == some[::2]


def test_grey_levels_change_by_the_same_share_of_their_range_in_every_network(monkeypatch):
    """Also in one that standardises images, whatever range of grey levels they have."""
    scales = []
    monkeypatch.setattr(
        measures.sanity,
        "max_sensitivity",
        lambda *_, scale, **__: scales.append(scale) or np.zeros(2),
    )
    images = np.stack([small.images(n=1, size=32)[0] // k for k in (1, 4)])
    for explained in (small.residual(), small.published()):
        options = {"feature_map": explained.feature_map, "patch_share": 0.25, "seed": 0}
        measures.stability(explained.model, images, **options)
        per_level = explained.prepare(images)  # of the first grey level that differs by one
        steps = np.ptp(per_level, axis=(1, 2)) / np.ptp(images, axis=(1, 2)) * 255
        np.testing.assert_allclose(scales[-1].ravel(), steps, rtol=1e-5)


def test_occlusion_maps_take_the_options_of_covering(network, images):
    heat = measures.occlusion_maps(
        network, images, feature_map="conv", patch=4, stride=4, fill="black", of="probability"
    )
    logit = 8 * images[:, :4, :4].mean(axis=(1, 2)) / 255
    expected = 1 / (1 + np.exp(-logit)) - 0.5
    np.testing.assert_allclose(heat[:, 0, 0], expected, rtol=1e-4)


def test_repeatability_is_1_for_equal_trainings_and_lower_for_others():
    images = small.images(n=3, size=44)
    options = {"feature_map": "conv4", "patch_share": 0.25}
    one, other = small.published().model, small.published(seed=1).model
    same = measures.repeatability([one, small.published().model], images, **options)
    assert list(same["method"].unique()) == PRIMARY and len(same) == 15
    constant = same["method"] == "Grad-CAM"  # 0 everywhere, without training
    assert same.loc[constant, "similarity"].isna().all()
    np.testing.assert_allclose(same.loc[~constant, "similarity"], 1)
    different = measures.repeatability([one, other], images, **options)
    gradients = different[different["method"] == "absolute gradient"]
    assert gradients["similarity"].max() < 0.9 and different["other"].dropna().between(0, 1).all()

import keras
import numpy as np
import pandas as pd
import pytest
import small

from cxr_helpers.explain import attributions, sanity


def test_layers_lose_their_training_from_the_last_on():
    trained = small.published().model
    kept = [w.copy() for w in trained.get_weights()]
    names = []
    for name in sanity.randomised(trained):
        names.append(name)
        first = trained.get_layer("conv1").get_weights()[0]
        assert np.array_equal(first, kept[0]) == (name != "conv1")
    assert names == ["pneumonia", "embedding", "conv4", "conv3", "conv2", "conv1"]
    for before, after in zip(kept, trained.get_weights(), strict=True):
        assert after.shape == before.shape
        if before.ndim > 1:  # biases are 0 before and after
            assert not np.array_equal(before, after)


def test_new_weights_are_those_of_the_initialisers_and_of_the_seed():
    def drawn(seed):
        network = small.published().model
        keras.utils.set_random_seed(seed)
        for _ in sanity.randomised(network):
            pass
        return network.get_layer("embedding").get_weights()

    kernel, bias = drawn(3)
    limit = np.sqrt(6 / sum(kernel.shape))  # Glorot and Bengio (2010)
    assert 0.9 * limit < np.abs(kernel).max() <= limit and not bias.any()
    assert np.array_equal(kernel, drawn(3)[0]) and not np.array_equal(kernel, drawn(4)[0])


def test_blocks_of_a_residual_network_are_one_step():
    names = list(sanity.randomised(small.residual().model))
    assert names[:3] == ["category", "block2", "block1"]


def test_similarity_by_hand():
    maps = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    assert sanity.similarity(maps, maps**3)[0] == pytest.approx(1)
    assert sanity.similarity(maps, -maps)[0] == pytest.approx(1)  # absolute
    assert sanity.similarity(maps, np.array([[[2.0, 1.0], [3.0, 4.0]]]))[0] == pytest.approx(0.8)
    assert np.isnan(sanity.similarity(maps, np.zeros((1, 2, 2)))[0])  # a map that has vanished


def test_edges_pass_for_any_network_and_gradients_do_not():
    """Planted: a map of the image alone is the same after randomisation."""
    explained = small.published()
    prepared = explained.prepare(small.images(size=44))

    def image(explained, prepared):
        return prepared

    before = [m(explained, prepared) for m in (image, attributions.absolute_gradient)]
    for _ in sanity.randomised(explained.model):
        pass
    after = [m(explained, prepared) for m in (image, attributions.absolute_gradient)]
    of_image, of_gradient = (sanity.similarity(*pair) for pair in zip(before, after, strict=True))
    assert of_image.min() > 0.999 and of_gradient.max() < 0.9


def test_sensitivity_of_a_constant_map_is_0_and_of_the_image_small():
    explained = small.corner()
    prepared = explained.prepare(small.images(size=12))
    methods = {
        "constant": lambda _, x: np.ones_like(x),
        "image": lambda _, x: x,
        "nothing": lambda _, x: 0 * x,
    }
    found = sanity.max_sensitivity(explained, prepared, methods)
    assert found["constant"].tolist() == [0, 0, 0]
    assert (found["image"] > 0).all() and (found["image"] < 2 * sanity.RADIUS).all()
    assert np.isnan(found["nothing"]).all()


def test_sensitivity_by_hand(monkeypatch):
    """The map is the image; its changes are planted: 0.01 and 0.02 in each of four pixels of 0.5."""
    explained, prepared = small.corner(size=2, side=2), np.full((1, 2, 2), 0.5, np.float32)
    changes = np.stack([np.full((1, 2, 2), change) for change in (0.01, -0.02)])
    generator = type("Planted", (), {"uniform": lambda self, low, high, shape: changes})
    monkeypatch.setattr(sanity.np.random, "default_rng", lambda seed: generator())
    found = sanity.max_sensitivity(explained, prepared, {"image": lambda _, x: x}, draws=2)
    ratio = (2 * 0.02) / (2 * 0.5)  # ‖change‖ / ‖map‖
    assert found["image"] == pytest.approx([ratio])


def test_changes_that_move_the_call_do_not_count():
    model = small.corner().model
    keras.utils.set_random_seed(0)
    explained = small.Explained(model, feature_map="conv")
    prepared = np.zeros((1, 12, 12), np.float32)  # the log-odds are 0: any change may flip the call

    def jump(explained, x):
        flipped = explained.score(x) < 0
        return np.where(flipped[:, None, None], 1000.0, 1.0) * np.ones_like(x)

    assert sanity.max_sensitivity(explained, prepared, {"jump": jump})["jump"].tolist() == [0]


@pytest.mark.parametrize(
    ("anew", "depends"), [([0.35, 0.25], "yes"), ([0.35, 0.33], "no"), ([np.nan, np.nan], "–")]
)
def test_maps_depend_on_the_training_that_resemble_others_no_more_than_those_of_other_images(
    anew, depends
):
    lines = [("all", draw, image, x) for draw in (0, 1) for image, x in enumerate(anew)]
    lines += [("other image", 0, image, x) for image, x in enumerate((0.1, 0.36))]
    lines += [("last", 0, image, 1.0) for image in (0, 1)]
    table = pd.DataFrame(lines, columns=["step", "draw", "image", "similarity"])
    table = table.assign(network="ours", method="edges")
    changes = {"ours": {"edges": np.array([0.5, 0.7])}}
    of_images = sanity.by_image(table, changes)
    (line,) = sanity.verdicts(of_images, fewest=2).to_dict("records")
    assert line["depends"] == depends and line["sens."] == pytest.approx(0.6)
    assert sanity.verdicts(of_images, fewest=3)["depends"].tolist() == ["–"]
    of_both = 0.23 if np.isfinite(anew).all() else np.nan  # no image has both similarities
    assert line["other"] == pytest.approx(of_both, nan_ok=True)


def test_images_without_a_similarity_count_neither_for_the_verdict_nor_in_the_means():
    scores = pd.DataFrame(
        [(0.2, 0.1, 0.5), (np.nan, 0.9, 0.5), (0.4, np.nan, 0.5)], columns=list(sanity.SCORES)
    )
    scores = scores.assign(network="ours", method="edges", image=range(3))
    (line,) = sanity.verdicts(scores, fewest=1).to_dict("records")
    assert (line["anew"], line["other"], line["depends"]) == (0.2, 0.1, "yes")
    assert sanity.verdicts(scores, fewest=2)["depends"].tolist() == ["–"]


def test_scores_of_an_image_are_means_over_the_draws_and_missing_where_undefined():
    lines = [("all", 0, 0.2), ("all", 1, 0.4), ("other image", 0, 0.7), ("block", 0, 0.9)]
    table = pd.DataFrame(lines, columns=["step", "draw", "similarity"])
    table = table.assign(network="ours", method="edges", image=0)
    found = sanity.by_image(table, {"ours": {"edges": np.array([0.5, np.nan])}})
    assert found["image"].tolist() == [0, 1]
    first, second = found[list(sanity.SCORES)].to_numpy()
    np.testing.assert_allclose(first, [0.3, 0.7, 0.5])
    assert np.isnan(second).all()

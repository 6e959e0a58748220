import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cxr_helpers.explain import localization


def test_scores_match_hand_arithmetic():
    maps = np.array([[[3.0, 1.0], [0.0, -5.0]], [[0.0, 0.0], [0.0, 4.0]]])
    masks = np.array([[[True, False], [False, True]], [[True, True], [False, False]]])
    scores = localization.score_maps(maps, masks)
    assert scores["hit"].tolist() == [1, 0]
    assert scores["heat"].tolist() == [0.75, 0.0]
    assert scores["area"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_map_without_heat_has_no_scores(value):
    scores = localization.score_maps(np.full((1, 2, 2), value), np.eye(2, dtype=bool)[None])
    assert scores[["hit", "heat", "rank", "auprc"]].isna().all(axis=None)
    assert scores["area"][0] == 0.5


@pytest.mark.parametrize(("row", "column"), [(0, 2), (0, 3), (1, 2), (1, 3)])
def test_tied_maxima_share_the_hit(row, column):
    blocks = np.kron([[1.0, 4.0], [3.0, 2.0]], np.ones((2, 2)))
    mask = np.zeros((1, 4, 4), bool)
    mask[0, row, column] = True
    assert localization.score_maps(blocks[None], mask)["hit"].tolist() == [0.25]


def test_constant_map_scores_area():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 2:, 1:] = True
    scores = localization.score_maps(np.full((1, 4, 4), 0.3), mask)
    assert scores["hit"][0] == scores["area"][0] == 6 / 16


def test_random_map_scores_area_on_average():
    rng = np.random.default_rng(0)
    mask = np.zeros((2000, 6, 6), bool)
    mask[:, :2, :3] = True
    scores = localization.score_maps(rng.random((2000, 6, 6)), mask).mean()
    assert scores["hit"] == pytest.approx(1 / 6, abs=0.03)
    assert scores["heat"] == pytest.approx(1 / 6, abs=0.01)


def test_box_masks_exclude_right_and_bottom_edges():
    (mask,) = localization.box_masks([[1, 0, 3, 2]], 4)
    expected = np.zeros((4, 4), bool)
    expected[0:2, 1:3] = True
    assert np.array_equal(mask, expected)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="maps of shape"):
        localization.score_maps(np.zeros((1, 2, 2)), np.zeros((1, 3, 3), bool))


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_that_of_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    maps = rng.integers(0, levels, (5, 9, 9)).astype(float)
    masks = rng.random((5, 9, 9)) < 0.2
    expected = [
        average_precision_score(mask.ravel(), heat.ravel())
        for mask, heat in zip(masks, maps, strict=True)
    ]
    np.testing.assert_allclose(localization.score_maps(maps, masks)["auprc"], expected)


def test_rank_counts_a_share_of_the_tied_pixels():
    mask = np.array([[[True, True], [False, False]]])
    scores = localization.score_maps(np.array([[[9.0, 5.0], [5.0, 0.0]]]), mask)
    assert scores["rank"].tolist() == [0.75]  # the hottest pixel, and half of one of the two tied

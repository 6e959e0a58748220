import numpy as np
import pytest

from cxr_helpers.explain import localization


def test_scores_match_hand_arithmetic():
    maps = np.array([[[3.0, 1.0], [0.0, -5.0]], [[0.0, 0.0], [0.0, 4.0]]])
    masks = np.array([[[True, False], [False, True]], [[True, True], [False, False]]])
    scores = localization.score_maps(maps, masks)
    assert scores["hit"].tolist() == [1, 0]
    assert scores["heat"].tolist() == [0.75, 0.0]
    assert scores["area"].tolist() == [0.5, 0.5]


def test_zero_map_is_no_hit_and_has_nan_heat():
    scores = localization.score_maps(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool))
    assert scores["hit"][0] == 0 and np.isnan(scores["heat"][0])


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

import numpy as np
import pytest

from cxr_helpers.explain import localization


def test_hand_arithmetic_on_two_by_two():
    maps = np.array([[[3.0, 1.0], [0.0, -5.0]], [[0.0, 0.0], [0.0, 4.0]]])
    masks = np.array([[[True, False], [False, True]], [[True, True], [False, False]]])
    found = localization.score_maps(maps, masks)
    assert found["hit"].tolist() == [1, 0]
    assert found["heat"].tolist() == [0.75, 0.0]
    assert found["area"].tolist() == [0.5, 0.5]


def test_a_map_without_heat_is_no_hit_and_has_no_share():
    found = localization.score_maps(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool))
    assert found["hit"][0] == 0 and np.isnan(found["heat"][0])


@pytest.mark.parametrize(("row", "column"), [(0, 2), (0, 3), (1, 2), (1, 3)])
def test_each_pixel_of_the_hottest_block_counts_alike(row, column):
    blocks = np.kron([[1.0, 4.0], [3.0, 2.0]], np.ones((2, 2)))
    mask = np.zeros((1, 4, 4), bool)
    mask[0, row, column] = True
    assert localization.score_maps(blocks[None], mask)["hit"].tolist() == [0.25]


def test_a_level_map_scores_the_area():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 2:, 1:] = True
    found = localization.score_maps(np.full((1, 4, 4), 0.3), mask)
    assert found["hit"][0] == found["area"][0] == 6 / 16


def test_a_map_that_knows_nothing_scores_the_area():
    draw = np.random.default_rng(0)
    mask = np.zeros((2000, 6, 6), bool)
    mask[:, :2, :3] = True
    found = localization.score_maps(draw.random((2000, 6, 6)), mask).mean()
    assert found["hit"] == pytest.approx(1 / 6, abs=0.03)
    assert found["heat"] == pytest.approx(1 / 6, abs=0.01)


def test_boxes_are_half_open():
    (mask,) = localization.box_masks([[1, 0, 3, 2]], 4)
    wanted = np.zeros((4, 4), bool)
    wanted[0:2, 1:3] = True
    assert np.array_equal(mask, wanted)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="maps of shape"):
        localization.score_maps(np.zeros((1, 2, 2)), np.zeros((1, 3, 3), bool))

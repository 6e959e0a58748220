import numpy as np
import pytest

from cxr_helpers import localization


def test_hand_arithmetic_on_two_by_two():
    maps = np.array([[[3.0, 1.0], [0.0, -5.0]], [[0.0, 0.0], [0.0, 4.0]]])
    masks = np.array([[[True, False], [False, True]], [[True, True], [False, False]]])
    found = localization.score_maps(maps, masks)
    assert found["hit"].tolist() == [True, False]
    assert found["heat"].tolist() == [0.75, 0.0]
    assert found["area"].tolist() == [0.5, 0.5]


def test_a_map_without_heat_is_no_hit_and_has_no_share():
    found = localization.score_maps(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool))
    assert not found["hit"][0] and np.isnan(found["heat"][0])


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

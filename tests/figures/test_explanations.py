from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from cxr_helpers.figures import explanations


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_removal_curves_are_drawn_with_bands_in_a_panel_for_each_network():
    lines = [
        (network, method, method == "noise", order, share, value, value - 1, value + 1)
        for network in ("a", "b")
        for method in ("HiResCAM", "noise")
        for order, value in (("most", 1.0), ("least", 2.0))
        for share in (0.0, 1.0)
    ]
    names = ["network", "method", "control", "order", "share", "value", "low", "high"]
    fig = explanations.removal_curves(pd.DataFrame(lines, columns=names))
    fig.canvas.draw()
    assert [ax.get_title() for ax in fig.axes] == [f"{n}:\nHiResCAM\nagainst noise" for n in "ab"]
    for ax in fig.axes:
        grey = {line.get_color() for line in ax.lines if "control" in line.get_label()}
        assert grey == {explanations.CONTROL} and len(ax.collections) == 4
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert np.ptp(band) == 2


def test_similarity_is_drawn_by_step_with_a_cross_for_other_images():
    lines = [("a", "m", step, v) for step, v in (("other image", 0.4), ("last", 0.9), ("all", 0.1))]
    table = pd.DataFrame(lines, columns=["network", "method", "step", "similarity"])
    (ax,) = explanations.similarity_by_step(table, methods=["m"]).axes
    line, cross = ax.lines
    assert line.get_ydata().tolist() == [0.9, 0.1] and cross.get_ydata()[0] == 0.4
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["last", "all"]


def test_a_method_has_the_same_colour_in_both_figures():
    """Although the first one leaves a method out."""
    lines = [("a", m, s, 0.5) for m in "xz" for s in ("other image", "last")]
    similarity = pd.DataFrame(lines, columns=["network", "method", "step", "similarity"])
    lines = [("a", m, "lesion", 0.4, 2) for m in "xyz"]
    heat = pd.DataFrame(lines, columns=["network", "method", "part", "gain", "effect"])
    (first,) = explanations.similarity_by_step(similarity, methods=list("xyz")).axes
    (second,) = explanations.heat_and_effect(heat, methods=list("xyz")).axes
    colours = [
        {line.get_label(): line.get_color() for line in ax.lines if line.get_label() in ("x", "z")}
        for ax in (first, second)
    ]
    assert colours[0] == colours[1] and len(set(colours[0].values())) == 2


def test_effects_are_drawn_with_their_intervals_and_a_line_at_zero():
    table = pd.DataFrame(
        [("letter erased", n, v, v - 0.1, v + 0.2) for n, v in (("binary", -0.5), ("ours", 0.1))],
        columns=["intervention", "network", "value", "low", "high"],
    )
    (ax,) = explanations.effects(table).axes
    assert [c.lines[0].get_xdata()[0] for c in ax.containers] == [-0.5, 0.1]
    segments = [c.lines[2][0].get_segments()[0][:, 0].tolist() for c in ax.containers]
    np.testing.assert_allclose(segments, [[-0.6, -0.3], [0.0, 0.3]])
    assert 0 in ax.lines[-1].get_xdata()


def test_gain_is_drawn_against_the_effect_of_each_part():
    lines = [
        ("ours", m, p, h, e) for m in "xy" for p, h, e in (("lesion", 0.4, 2), ("marker", 0.1, 1))
    ]
    table = pd.DataFrame(lines, columns=["network", "method", "part", "gain", "effect"])
    (ax,) = explanations.heat_and_effect(table, methods=["x", "y"]).axes
    joined = [line for line in ax.lines if line.get_label() in ("x", "y")]
    assert [line.get_xydata().tolist() for line in joined] == [[[1, 0.1], [2, 0.4]]] * 2
    assert {line.get_label() for line in ax.lines} >= {"lesion", "marker"}


def test_labels_of_small_effects_do_not_overlap():
    lines = [
        (network, "x", part, 1.0, effect)
        for network in ("a", "b", "c")
        for part, effect in (("lesion", 0.00088), ("marker", 0.00097))
    ]
    table = pd.DataFrame(lines, columns=["network", "method", "part", "gain", "effect"])
    fig = explanations.heat_and_effect(table, methods=["x"])
    fig.draw_without_rendering()
    for ax in fig.axes:
        shown = [label for label in ax.get_xticklabels() if label.get_text()]
        boxes = [label.get_window_extent().extents for label in shown]
        assert len(boxes) > 1
        assert all(left[2] < right[0] for left, right in pairwise(boxes))


def test_panels_of_gains_share_an_axis_on_which_all_of_them_are_seen():
    lines = [
        (network, "x", part, gain * factor, 1.0)
        for network, factor in (("small", 1), ("large", 9))
        for part, gain in (("lesion", 0.4), ("marker", 1.2))
    ]
    table = pd.DataFrame(lines, columns=["network", "method", "part", "gain", "effect"])
    first, second = explanations.heat_and_effect(table, methods=["x"]).axes
    low, high = first.get_ylim()
    assert low == 0 and high > 9 * 1.2 and second.get_ylim() == (low, high)


def test_every_image_is_a_point_and_a_map_without_heat_counts_as_zero():
    table = pd.DataFrame(
        {
            "method": ["a", "a", "b", "b"],
            "network": ["relies", "does not"] * 2,
            "gain": [9, np.nan, 8, 1],
        }
    )
    (ax,) = explanations.twin_gains(table).axes
    heights = sorted(y for points in ax.collections for y in np.asarray(points.get_offsets())[:, 1])
    assert heights == [0, 1, 8, 9]


def test_scorecard_has_a_panel_for_each_score_and_a_line_where_chance_is_known():
    lines = [
        (network, method, score, v, v - 0.1, v + 0.1)
        for network, v in (("binary", 0.4), ("ours", 0.6))
        for method in ("Grad-CAM", "centre")
        for score in ("hit", "sensitivity")
        if (method, score) != ("centre", "sensitivity")
    ]
    table = pd.DataFrame(lines, columns=["network", "method", "score", "value", "low", "high"])
    chance = {"hit": 0.2, "not measured": 0.0, "sensitivity": None}
    fig = explanations.scorecard(table, chance, methods=["occlusion", "Grad-CAM", "centre"])
    fig.canvas.draw()
    hit, sensitivity, *rest = fig.axes
    assert [hit.get_title(), sensitivity.get_title()] == ["hit", "sensitivity"]
    assert not any(ax.axison for ax in rest)
    assert [tick.get_text() for tick in hit.get_yticklabels()] == ["Grad-CAM", "centre"]
    assert [c.lines[0].get_xdata().tolist() for c in hit.containers] == [[0.4, 0.4], [0.6, 0.6]]
    assert [len(c.lines[0].get_xdata()) for c in sensitivity.containers] == [1, 1]
    vertical = [line for line in hit.lines if list(line.get_xdata()) == [0.2, 0.2]]
    assert len(vertical) == 1 and len(sensitivity.lines) == len(hit.lines) - 1

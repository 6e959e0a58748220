"""Markers are found on phantoms, whose boxes are known."""

import numpy as np
from scipy import ndimage

from cxr_helpers.explain import localization, markers
from cxr_helpers.phantoms import rendering


def test_most_markers_of_phantoms_are_found_and_most_of_what_is_found_is_a_marker():
    drawn = rendering.render(n=60, size=128, seed=3)
    corners = ["marker_x0", "marker_y0", "marker_x1", "marker_y1"]
    true = localization.box_masks(drawn.index[corners].to_numpy(), 128)
    found = markers.find(drawn.images)
    recall = ((found & true).sum(axis=(1, 2)) >= 0.5 * true.sum(axis=(1, 2))).mean()
    regions, n = ndimage.label(
        found, structure=np.pad(np.ones((1, 3, 3)), ((1, 1), (0, 0), (0, 0)))
    )
    precision = (ndimage.maximum(true, regions, range(1, n + 1)) > 0).mean()
    assert recall >= 0.8 and precision >= 0.7, (recall, precision)


def test_images_without_a_letter_have_no_marker():
    assert not markers.find(np.full((2, 64, 64), 120, np.uint8)).any()
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (2, 64, 64))
    assert not markers.find(smooth).any()


def test_nothing_is_found_where_no_marker_can_be():
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 10:16, 4:8] = 255
    assert markers.find(image).any()
    assert not markers.find(image, outside=np.zeros((1, 64, 64), dtype=bool)).any()

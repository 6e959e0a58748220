"""Markers are found on phantoms, whose boxes are known."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cxr_helpers.explain import localization, markers
from cxr_helpers.phantoms import rendering


@pytest.mark.parametrize("size", [80, 128, 224])
def test_markers_of_phantoms_are_found_and_what_is_found_is_a_marker(size):
    drawn = rendering.render(n=60, size=size, seed=3)
    corners = ["marker_x0", "marker_y0", "marker_x1", "marker_y1"]
    true = localization.box_masks(drawn.index[corners].to_numpy(), size)
    found = markers.find(drawn.images)
    recall = ((found & true).sum(axis=(1, 2)) >= 0.5 * true.sum(axis=(1, 2))).mean()
    regions, n = ndimage.label(
        found, structure=np.pad(np.ones((1, 3, 3)), ((1, 1), (0, 0), (0, 0)))
    )
    precision = (ndimage.maximum(true, regions, range(1, n + 1)) > 0).mean()
    assert recall >= 0.95 and precision == 1, (recall, precision)


def test_images_without_a_letter_have_no_marker():
    assert not markers.find(np.full((2, 64, 64), 120, np.uint8)).any()
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (2, 64, 64))
    assert not markers.find(smooth).any()


def test_letter_of_another_size_and_place_is_found_and_another_letter_is_not():
    image = np.random.default_rng(0).integers(40, 60, (1, 128, 128), dtype=np.uint8)
    for text, expected in (("R", True), ("O", False)):
        drawn = Image.fromarray(image[0])
        ImageDraw.Draw(drawn).text((20, 90), text, fill=240, font=ImageFont.load_default(size=14))
        found = markers.find(np.asarray(drawn)[None])[0]
        assert found[92:106, 20:30].any() == expected, text


def test_letter_that_touches_the_edge_is_found():
    image = np.random.default_rng(0).integers(40, 60, (1, 128, 128), dtype=np.uint8)
    drawn = Image.fromarray(image[0])
    font = ImageFont.load_default(size=14)
    left, top, _, _ = font.getbbox("R")
    ImageDraw.Draw(drawn).text((-left, -top), "R", fill=240, font=font)
    found = markers.find(np.asarray(drawn)[None])[0]
    assert found[:10, :10].any() and found.sum() < 250


def test_what_is_as_bright_as_the_letter_is_found_if_it_is_no_single_pixel():
    image = np.full((1, 40, 40), 60, np.uint8)
    letter = np.zeros((1, 40, 40), dtype=bool)
    letter[:, 4:10, 4:8] = True
    image[:, 4:10, 5:7] = 230  # strokes
    image[:, 20:23, 20:23] = 230  # as bright
    image[:, 30, 30] = 255  # noise
    image[:, 34:38, 34:38] = 200  # bone
    spots = markers.as_bright(image, letter)[0]
    assert spots[20:23, 20:23].all() and spots[4:10, 5:7].all()
    assert not spots[30, 30] and not spots[34:38, 34:38].any()
    assert not markers.as_bright(image, np.zeros_like(letter)).any()

import numpy as np
import pytest

from cxr_helpers.explain import occlusion


def corner_score(images):
    """Return the mean of the bottom right 3 × 3 pixels."""
    return images[:, -3:, -3:].mean(axis=(1, 2))


@pytest.fixture
def images():
    return np.full((2, 17, 23), 0.8, np.float32)


def occlusion_maps(score, images, *, patch, stride, fill=0.0, batch_size=512):
    """Return how much a score falls where a patch of one grey level covers the images."""
    places = occlusion.corners(*images.shape[1:], patch=patch, stride=stride)
    levels = np.full((len(images), len(places)), fill)
    options = {"patch": patch, "batch_size": batch_size}
    covered = occlusion.covered_scores(score, images, levels, places, **options)
    falls = score(images)[:, None] - covered
    return occlusion.mean_fall(falls, places, patch=patch, shape=images.shape[1:])


def test_map_highlights_the_corner_that_the_score_reads(images):
    for heat in occlusion_maps(corner_score, images, patch=4, stride=2):
        assert np.unravel_index(heat.argmax(), heat.shape) == (16, 22)
        assert np.all(heat[:12, :] == 0) and np.all(heat[:, :18] == 0)
        # only one patch covers the last pixel, and it covers everything that the score reads
        assert heat[-1, -1] == pytest.approx(0.8, abs=1e-6)


def test_map_matches_hand_arithmetic():
    images = np.array([[[0, 1], [1, 1]], [[2, 0], [0, 3]]], np.float32)
    heat = occlusion_maps(lambda images: images.sum(axis=(1, 2)), images, patch=1, stride=1)
    assert heat == pytest.approx(images)


def test_each_image_has_grey_levels_of_its_own_by_place():
    images, places = np.zeros((2, 1, 2), np.float32), [(0, 0), (0, 1)]
    levels = np.array([[1.0, 2.0], [3.0, 4.0]])
    options = {"patch": 1, "batch_size": 3}
    score = occlusion.covered_scores(lambda x: x @ [1, 10] @ [1], images, levels, places, **options)
    assert score.tolist() == [[1, 20], [3, 40]]


@pytest.mark.parametrize(("patch", "stride"), [(1, 1), (4, 3), (5, 4), (5, 5), (17, 17)])
def test_every_pixel_is_covered(images, patch, stride):
    heat = occlusion_maps(corner_score, images, patch=patch, stride=stride)
    assert heat.shape == images.shape and np.isfinite(heat).all()


def test_last_patch_ends_at_last_pixel():
    assert occlusion.positions(10, patch=4, stride=4).tolist() == [0, 4, 6]
    assert occlusion.positions(8, patch=4, stride=2).tolist() == [0, 2, 4]


def test_content_that_lowers_the_score_is_negative(images):
    heat = occlusion_maps(lambda x: -corner_score(x), images, patch=3, stride=3)
    assert np.all(heat[:, -1, -1] < 0)


def test_copies_are_scored_in_batches(images):
    calls = []

    def counted(images):
        calls.append(len(images))
        return corner_score(images)

    single = occlusion_maps(counted, images, patch=4, stride=2)
    assert calls == [2 * 8 * 11, 2]  # the covered copies, and the images themselves
    batched = occlusion_maps(counted, images, patch=4, stride=2, batch_size=50)
    assert calls[2:] == [50, 50, 50, 26, 2]
    assert np.allclose(single, batched)


def test_images_are_unchanged(images):
    before = images.copy()
    occlusion_maps(corner_score, images, patch=4, stride=2)
    assert np.array_equal(images, before)


@pytest.mark.parametrize(("patch", "stride"), [(0, 1), (3, 4), (18, 1), (3, 0)])
def test_patches_that_do_not_fit_are_refused(images, patch, stride):
    with pytest.raises(ValueError, match="expected 1 <= stride <= patch <= side"):
        occlusion_maps(corner_score, images, patch=patch, stride=stride)

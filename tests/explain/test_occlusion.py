import numpy as np
import pytest

from cxr_helpers.explain import occlusion


def corner_score(images):
    """Return the mean of the bottom right 3 × 3 pixels."""
    return images[:, -3:, -3:, 0].mean(axis=(1, 2))


@pytest.fixture
def image():
    return np.full((17, 23), 200, np.uint8)


def test_map_highlights_the_corner_that_the_score_reads(image):
    heat = occlusion.occlusion_map(corner_score, image, patch=4, stride=2, fill=0.0)
    assert np.unravel_index(heat.argmax(), heat.shape) == (16, 22)
    assert np.all(heat[:12, :] == 0) and np.all(heat[:, :18] == 0)
    # only one patch covers the last pixel, and it covers everything that the score reads
    assert heat[-1, -1] == pytest.approx(200 / 255, abs=1e-6)


def test_map_matches_hand_arithmetic():
    image = np.array([[0, 255], [255, 255]], np.uint8)
    heat = occlusion.occlusion_map(
        lambda images: images.sum(axis=(1, 2, 3)), image, patch=1, stride=1, fill=0.0
    )
    assert heat == pytest.approx(np.array([[0, 1], [1, 1]]))


@pytest.mark.parametrize(("patch", "stride"), [(1, 1), (4, 3), (5, 4), (5, 5), (17, 17)])
def test_every_pixel_is_covered(image, patch, stride):
    heat = occlusion.occlusion_map(corner_score, image, patch=patch, stride=stride)
    assert heat.shape == image.shape and np.isfinite(heat).all()


def test_last_patch_ends_at_last_pixel():
    assert occlusion.positions(10, patch=4, stride=4).tolist() == [0, 4, 6]
    assert occlusion.positions(8, patch=4, stride=2).tolist() == [0, 2, 4]


def test_content_that_lowers_the_score_is_negative(image):
    heat = occlusion.occlusion_map(lambda x: -corner_score(x), image, patch=3, stride=3, fill=0.0)
    assert heat[-1, -1] < 0


def test_copies_are_scored_in_batches(image):
    calls = []

    def counted(images):
        calls.append(len(images))
        return corner_score(images)

    single = occlusion.occlusion_map(counted, image, patch=4, stride=2)
    assert len(calls) == 1
    batched = occlusion.occlusion_map(counted, image, patch=4, stride=2, batch_size=40)
    assert calls[1:] == [41, 41, 9]  # 8 × 11 occluded copies, and the image itself in each call
    assert np.allclose(single, batched)


def test_image_is_unchanged(image):
    before = image.copy()
    occlusion.occlusion_map(corner_score, image, patch=4, stride=2)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(("patch", "stride"), [(0, 1), (3, 4), (18, 1), (3, 0)])
def test_patches_that_do_not_fit_are_refused(image, patch, stride):
    with pytest.raises(ValueError, match="expected 1 <= stride <= patch <= side"):
        occlusion.occlusion_map(corner_score, image, patch=patch, stride=stride)


def test_image_stack_is_refused(image):
    with pytest.raises(ValueError, match="expected \\(height, width\\)"):
        occlusion.occlusion_map(corner_score, image[None], patch=3, stride=3)

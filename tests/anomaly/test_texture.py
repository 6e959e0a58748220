import numpy as np
import pytest
from scipy import ndimage

from cxr_helpers.anomaly import texture
from cxr_helpers.phantoms import rendering

MIDDLE = 4


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)


def stripes(size, period, *, across):
    wave = 128 + 100 * np.sin(2 * np.pi * np.arange(size) / period)
    return np.broadcast_to(wave if across else wave[:, None], (size, size)).astype(np.uint8)[None]


def regional(features):
    """Return the features of the middle placement by region, (rows, columns, features)."""
    return features[0, MIDDLE].reshape(texture.REGIONS, texture.REGIONS, -1)


def test_stripes_have_their_energy_in_the_band_of_their_period():
    fine, coarse = (
        regional(texture.band_energies(stripes(128, period, across=True))).mean(axis=(0, 1))
        for period in (4, 32)
    )
    assert fine.argmax() == 0 and coarse.argmax() == 3


def test_smooth_patch_lowers_the_fine_energy_of_its_region_only(images):
    covered = images.copy()
    covered[:, 26:38, 12:22] = 128
    change = regional(texture.band_energies(covered)) - regional(texture.band_energies(images))
    row, column = np.unravel_index(change[..., 0].argmin(), change.shape[:2])
    assert row in (2, 3) and column in (0, 1)
    assert change[..., 0].min() < -1
    assert np.abs(change[:, 3:, 0]).max() < 0.3


def test_margin_is_ignored(images):
    changed = images.copy()
    edge = round(texture.MARGIN * 64)
    changed[:, :edge] = changed[:, -edge:] = changed[:, :, :edge] = changed[:, :, -edge:] = 255
    assert np.array_equal(texture.band_energies(changed), texture.band_energies(images))


def test_features_are_nearly_invariant_to_exposure_and_contrast(images):
    soft = ndimage.gaussian_filter(images.astype(float), (0, 1, 1))
    soft = 20 + (soft - soft.min()) * 230 / np.ptp(soft)
    a, b = (texture.band_energies(np.round(x).astype(np.uint8)) for x in (soft, soft * 0.7 + 10))
    assert np.std(a - b) < 0.1 * a.std()


def test_shifted_image_matches_the_shifted_placement():
    """Content one shift lower falls in the grid that lies one shift lower."""
    shift = round(texture.SHIFT * 128)
    image = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((128, 128)), 3)
    image = np.round(128 + image * 60 / image.std()).clip(0, 255).astype(np.uint8)
    still = texture.band_energies(image[None])[0]
    moved = texture.band_energies(np.roll(image, shift, axis=0)[None])[0]
    distances = np.linalg.norm(moved - still[MIDDLE], axis=1)
    assert distances.argmin() == 7


@pytest.mark.parametrize("size", [32, 36, 44, 64, 100])
def test_feature_shape_is_independent_of_image_size(size):
    images = rendering.render(n=2, size=size).images
    assert texture.band_energies(images).shape == (2, 9, 144)
    assert np.isfinite(texture.band_energies(images)).all()


def test_batches_keep_the_order_and_input_is_unchanged():
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32), dtype=np.uint8)
    before = images.copy()
    all_at_once = texture.band_energies(images)
    assert np.array_equal(all_at_once[290], texture.band_energies(images[290:291])[0])
    assert np.array_equal(images, before)


def test_blank_image_has_finite_features():
    images = np.zeros((1, 32, 32), np.uint8)
    assert np.isfinite(texture.band_energies(images)).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 28, 28), np.uint8),
        np.zeros((1, 32, 32)),
        np.zeros((32, 32), np.uint8),
        np.zeros((1, 32, 36), np.uint8),
    ],
)
def test_invalid_images_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8"):
        texture.band_energies(images)

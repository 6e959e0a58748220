import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxr_helpers.anomaly import novelty, texture
from cxr_helpers.phantoms import rendering

FIT = [novelty.nearest_normals, novelty.mahalanobis]


@pytest.fixture
def normals():
    return np.random.default_rng(0).normal(size=(80, 5))


def test_nearest_normals_by_hand():
    """Mean 2, standard deviation √(8/3) of 0, 2, 4; the point 5 is 1, 3 and 5 away from them."""
    detector = novelty.nearest_normals(np.array([[0.0], [2.0], [4.0]]), neighbours=2)
    assert np.allclose(detector.distance(np.array([[5.0], [2.0]])), [2, 1] / np.sqrt(8 / 3))


def test_mahalanobis_by_hand():
    """Four points (±1, ±1) have unit covariance: the distance is Euclidean."""
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    detector = novelty.mahalanobis(square)
    assert np.allclose(detector.distance(np.array([[3.0, 4.0], [0.0, 2.0]])), [5, 2])


def test_mahalanobis_accounts_for_correlation():
    """Correlation 0.8: by hand d² = (x² - 2·0.8·xy + y²) / (1 - 0.8²)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000))
    detector = novelty.mahalanobis(np.stack([a, 0.8 * a + 0.6 * b], axis=1))
    along, across = detector.distance(np.array([[1.0, 1.0], [1.0, -1.0]]))
    assert np.isclose(along**2, 0.4 / 0.36, rtol=0.05)
    assert np.isclose(across**2, 3.6 / 0.36, rtol=0.05)


@pytest.mark.parametrize("fit", FIT)
def test_outlier_scores_above_all_normal_images(fit, normals):
    detector = fit(normals)
    normal_scores = detector.score(np.random.default_rng(1).normal(size=(200, 5)))
    assert detector.score(np.full((1, 5), 4.0))[0] > normal_scores.max()


@pytest.mark.parametrize("fit", FIT)
def test_scores_of_normal_images_are_standardised_and_unit_free(fit, normals):
    fresh = np.random.default_rng(1).normal(size=(200, 5))
    score = fit(normals).score(fresh)
    assert abs(score.mean()) < 0.6 and 0.7 < score.std() < 1.5
    assert np.allclose(fit(normals * 1000 + 7).score(fresh * 1000 + 7), score)


@pytest.mark.parametrize("fit", FIT)
def test_distance_is_the_minimum_over_placements(fit, normals):
    detector = fit(normals)
    far, near = np.full(5, 9.0), np.zeros(5)
    assert np.isclose(
        detector.distance(np.stack([far, near, far])[None])[0], detector.distance(near[None])[0]
    )


def test_middle_placement_is_fitted(normals):
    placements = np.stack([normals + 50, normals, normals - 50], axis=1)
    fresh = np.random.default_rng(1).normal(size=(9, 5))
    plain, middle = (novelty.nearest_normals(x) for x in (normals, placements))
    assert np.allclose(plain.score(fresh), middle.score(fresh))


def test_scale_leaves_the_image_itself_out(normals):
    detector = novelty.nearest_normals(normals, neighbours=1)
    assert detector.distance(normals).max() < 1e-6 < np.exp(detector.typical[0])
    assert np.isclose(detector.distance(normals[:1] + 1e-9)[0], 0, atol=1e-6)


@pytest.mark.parametrize("fit", FIT)
def test_scores_do_not_depend_on_the_images_compared_at_a_time(monkeypatch, fit):
    features = np.random.default_rng(0).normal(size=(50, 3, 5))
    expected = fit(features)
    monkeypatch.setattr(novelty, "AT_ONCE", 7)
    detector = fit(features)
    assert detector.typical == pytest.approx(expected.typical)
    assert np.allclose(detector.score(features), expected.score(features))


@pytest.mark.parametrize("fit", FIT)
def test_constant_features_give_finite_scores(fit, normals):
    constant = np.hstack([normals, np.full((80, 1), 3.0)])
    assert np.isfinite(fit(constant).score(constant)).all()
    assert np.isfinite(fit(np.ones((4, 2))).score(np.ones((4, 2)))).all()


@pytest.mark.parametrize("fit", FIT)
def test_scores_are_reproducible_and_input_is_unchanged(fit, normals):
    before = normals.copy()
    assert np.array_equal(fit(normals).score(normals), fit(normals).score(normals))
    assert np.array_equal(normals, before)


@pytest.mark.parametrize("fit", FIT)
def test_invalid_features_are_refused(fit, normals):
    with pytest.raises(ValueError, match="at least 3 images"):
        fit(normals[:2])
    with pytest.raises(ValueError, match="finite"):
        fit(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match=r"expected \(n, 5\)"):
        fit(normals).score(normals[:, :4])
    with pytest.raises(ValueError, match="neighbours is 0"):
        novelty.nearest_normals(normals, neighbours=0)


@pytest.mark.parametrize("fit", FIT)
def test_phantoms_with_strong_lesions_are_detected(fit):
    """Lesions of three times the usual contrast, 64 pixels; fitted on normal images."""
    phantoms = rendering.render(n=300, size=64, seed=1, lesion_contrast=3.0)
    train = (phantoms.index["split"] == "train").to_numpy()
    y_true = (phantoms.index["class_name"] != "normal").to_numpy()
    features = texture.band_energies(phantoms.images)
    y_score = fit(features[train & ~y_true]).score(features[~train])
    assert roc_auc_score(y_true[~train], y_score) > 0.9

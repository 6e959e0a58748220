import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxr_helpers.anomaly import novelty, texture
from cxr_helpers.phantoms import rendering

FIT = [novelty.nearest_normals, novelty.mahalanobis]


@pytest.fixture
def normals():
    return np.random.default_rng(0).normal(size=(80, 5))


def test_neighbours_by_hand():
    """Mean 2, standard deviation √(8/3) of 0, 2, 4; the point 5 is 1, 3 and 5 away from them."""
    detector = novelty.nearest_normals(np.array([[0.0], [2.0], [4.0]]), neighbours=2)
    assert np.allclose(detector.distance(np.array([[5.0], [2.0]])), [2, 1] / np.sqrt(8 / 3))


def test_mahalanobis_by_hand():
    """Four points (±1, ±1) have unit covariance: the distance is Euclid's."""
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    detector = novelty.mahalanobis(square)
    assert np.allclose(detector.distance(np.array([[3.0, 4.0], [0.0, 2.0]])), [5, 2])


def test_mahalanobis_counts_what_goes_together():
    """Correlation 0.8: by hand d² = (x² - 2·0.8·xy + y²) / (1 - 0.8²)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000))
    detector = novelty.mahalanobis(np.stack([a, 0.8 * a + 0.6 * b], axis=1))
    along, against = detector.distance(np.array([[1.0, 1.0], [1.0, -1.0]]))
    assert np.isclose(along**2, 0.4 / 0.36, rtol=0.05)
    assert np.isclose(against**2, 3.6 / 0.36, rtol=0.05)


@pytest.mark.parametrize("fit", FIT)
def test_an_outlier_scores_high(fit, normals):
    detector = fit(normals)
    usual = detector.score(np.random.default_rng(1).normal(size=(200, 5)))
    assert detector.score(np.full((1, 5), 4.0))[0] > usual.max()


@pytest.mark.parametrize("fit", FIT)
def test_normal_images_score_near_zero_whatever_the_unit(fit, normals):
    fresh = np.random.default_rng(1).normal(size=(200, 5))
    score = fit(normals).score(fresh)
    assert abs(score.mean()) < 0.6 and 0.7 < score.std() < 1.5
    assert np.allclose(fit(normals * 1000 + 7).score(fresh * 1000 + 7), score)


@pytest.mark.parametrize("fit", FIT)
def test_the_best_placement_counts(fit, normals):
    detector = fit(normals)
    far, near = np.full(5, 9.0), np.zeros(5)
    assert np.isclose(
        detector.distance(np.stack([far, near, far])[None])[0], detector.distance(near[None])[0]
    )


def test_with_placements_the_middle_one_is_fitted(normals):
    placed = np.stack([normals + 50, normals, normals - 50], axis=1)
    fresh = np.random.default_rng(1).normal(size=(9, 5))
    plain, middle = (novelty.nearest_normals(x) for x in (normals, placed))
    assert np.allclose(plain.score(fresh), middle.score(fresh))


def test_a_image_is_not_its_own_neighbour(normals):
    detector = novelty.nearest_normals(normals, neighbours=1)
    assert detector.distance(normals).max() < 1e-6 < np.exp(detector.typical[0])
    assert np.isclose(detector.distance(normals[:1] + 1e-9)[0], 0, atol=1e-6)


@pytest.mark.parametrize("fit", FIT)
def test_constant_features_do_no_harm(fit, normals):
    still = np.hstack([normals, np.full((80, 1), 3.0)])
    assert np.isfinite(fit(still).score(still)).all()
    assert np.isfinite(fit(np.ones((4, 2))).score(np.ones((4, 2)))).all()


@pytest.mark.parametrize("fit", FIT)
def test_same_images_same_scores_and_nothing_is_changed(fit, normals):
    before = normals.copy()
    assert np.array_equal(fit(normals).score(normals), fit(normals).score(normals))
    assert np.array_equal(normals, before)


@pytest.mark.parametrize("fit", FIT)
def test_wrong_features_are_refused(fit, normals):
    with pytest.raises(ValueError, match="at least 3 images"):
        fit(normals[:2])
    with pytest.raises(ValueError, match="finite"):
        fit(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match=r"expected \(n, 5\)"):
        fit(normals).score(normals[:, :4])
    with pytest.raises(ValueError, match="neighbours is 0"):
        novelty.nearest_normals(normals, neighbours=0)


@pytest.mark.parametrize("describe", [texture.band_energies, texture.edge_directions])
def test_phantoms_with_strong_lesions_are_found(describe):
    """Lesions three times the usual contrast, in images at 64 pixels; fitted on normal ones."""
    drawn = rendering.render(n=300, size=64, seed=1, lesion_contrast=3.0)
    train = (drawn.index["split"] == "train").to_numpy()
    ill = (drawn.index["class_name"] != "normal").to_numpy()
    features = describe(drawn.images)
    score = novelty.nearest_normals(features[train & ~ill]).score(features[~train])
    assert roc_auc_score(ill[~train], score) > 0.9

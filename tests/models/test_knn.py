import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cxr_helpers.models import knn

POINTS = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
LABELS = np.array([0, 0, 2, 2, -1])


def test_votes_match_hand_count():
    """The nearest to 1.2 are 1, 2 and 0: two votes for class 0, one for class 2."""
    neighbours = knn.classifier(POINTS, LABELS, k=3)
    assert neighbours.predict_proba([[1.2]]).tolist() == [[2 / 3, 1 / 3]]
    assert neighbours.classes_.tolist() == [0, 2]


def test_images_of_unknown_class_do_not_vote():
    assert knn.classifier(POINTS, LABELS, k=1).predict([[11.0]]).tolist() == [2]


@pytest.mark.parametrize("k", [4, 5, 1000])
def test_all_images_vote_if_fewer_than_k(k):
    neighbours = knn.classifier(POINTS, LABELS, k=k)
    assert neighbours.n_neighbors == 4
    assert neighbours.predict_proba([[0.0]]).tolist() == [[0.5, 0.5]]


def test_options_are_passed_to_scikit_learn():
    rng = np.random.default_rng(0)
    points, labels, queries = rng.normal(size=(50, 4)), rng.integers(0, 3, 50), np.eye(4)
    options = {"metric": "cosine", "weights": "distance"}
    expected = KNeighborsClassifier(7, **options).fit(points, labels).predict_proba(queries)
    neighbours = knn.classifier(points, labels, k=7, **options)
    assert np.array_equal(neighbours.predict_proba(queries), expected)


@pytest.mark.parametrize("options", [{}, {"metric": "cosine", "weights": "distance"}])
def test_accuracies_by_k_are_those_of_a_classifier_for_each_k(options):
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 3, 300)
    embedded = (rng.normal(size=(300, 8)) + 0.7 * y_true[:, None]).astype(np.float32)
    points, labels = embedded[:200], np.where(rng.random(200) < 0.1, -1, y_true[:200])
    queries = embedded[200:].copy()
    queries[0] = points[0]  # at distance 0
    found = knn.accuracy_by_k(points, labels, queries, y_true[200:], ks=[1, 4, 9, 500], **options)
    assert list(found) == [1, 4, 9, (labels >= 0).sum()]
    for k, accuracy in found.items():
        of_k = knn.classifier(points, labels, k=k, **options)
        assert accuracy == of_k.score(queries, y_true[200:])
    assert len(set(found.values())) > 2  # otherwise any k would do


@pytest.mark.parametrize(("labels", "k"), [([-1] * 5, 3), (LABELS, 0)])
def test_no_voting_image_is_refused(labels, k):
    with pytest.raises(ValueError, match=f"k = {k} among"):
        knn.classifier(POINTS, np.array(labels), k=k)

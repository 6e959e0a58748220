import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cxr_helpers.models import knn

POINTS = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
LABELS = np.array([0, 0, 2, 2, -1])


def test_neighbours_vote_by_hand():
    """Nearest of 1.2 are 1, 2 and 0: two votes for class 0, one for class 2."""
    vote = knn.classifier(POINTS, LABELS, k=3)
    assert vote.predict_proba([[1.2]]).tolist() == [[2 / 3, 1 / 3]]
    assert vote.classes_.tolist() == [0, 2]


def test_images_of_unknown_class_have_no_vote():
    assert knn.classifier(POINTS, LABELS, k=1).predict([[11.0]]).tolist() == [2]


@pytest.mark.parametrize("k", [4, 5, 1000])
def test_where_there_are_fewer_images_than_k_all_vote(k):
    vote = knn.classifier(POINTS, LABELS, k=k)
    assert vote.n_neighbors == 4
    assert vote.predict_proba([[0.0]]).tolist() == [[0.5, 0.5]]


def test_metric_and_weights_are_scikit_learns():
    draw = np.random.default_rng(0)
    points, labels, asked = draw.normal(size=(50, 4)), draw.integers(0, 3, 50), np.eye(4)
    how = {"metric": "cosine", "weights": "distance"}
    theirs = KNeighborsClassifier(7, **how).fit(points, labels).predict_proba(asked)
    assert np.array_equal(knn.classifier(points, labels, k=7, **how).predict_proba(asked), theirs)


@pytest.mark.parametrize(("labels", "k"), [([-1] * 5, 3), (LABELS, 0)])
def test_no_vote_at_all_is_refused(labels, k):
    with pytest.raises(ValueError, match=f"k = {k} among"):
        knn.classifier(POINTS, np.array(labels), k=k)

import numpy as np
import pytest
import small
from scipy import sparse
from scipy.sparse.linalg import spsolve

from cxr_helpers.explain import removal


def harmonic(image, removed):
    """Solve Laplace's equation on the removed pixels, without flow across the image's edge."""
    size = len(image)
    numbers = np.arange(size**2).reshape(size, size)
    rows, columns = [], []
    for a, b in ((numbers[:-1], numbers[1:]), (numbers[:, :-1], numbers[:, 1:])):
        rows += [a.ravel(), b.ravel()]
        columns += [b.ravel(), a.ravel()]
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    neighbours = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)))
    laplace = sparse.diags(np.asarray(neighbours.sum(axis=1)).ravel()) - neighbours
    unknown = removed.ravel()
    right = -laplace[unknown][:, ~unknown] @ image.ravel()[~unknown]
    result = image.ravel().copy()
    result[unknown] = spsolve(sparse.csc_matrix(laplace[unknown][:, unknown]), right)
    return result.reshape(size, size)


def test_ranks_of_a_map_by_hand():
    ranks = removal.ranks(np.array([[[4.0, 1.0], [3.0, 2.0]]]))
    assert ranks[0].tolist() == [[0.25, 1.0], [0.5, 0.75]]


def test_ties_are_in_the_same_order_in_every_map():
    ranks = removal.ranks(np.zeros((2, 5, 5)))
    assert np.array_equal(ranks[0], ranks[1])
    assert sorted(ranks[0].ravel()) == pytest.approx(np.arange(1, 26) / 25)
    assert not np.array_equal(ranks[0].ravel(), np.sort(ranks[0].ravel()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pull_push_is_close_to_the_harmonic_fill(share):
    """Of a smooth image: by far closer than its mean is, which is the other simple fill."""
    x = np.linspace(0, 3, 33)
    image = (np.sin(x)[:, None] + np.cos(2 * x)).astype(np.float32)
    removed = np.random.default_rng(0).random((33, 33)) < share
    removed[10:18, 5:16] = True
    found = removal.pull_push(image[None], removed[None])[0]
    expected = harmonic(image, removed)
    assert np.array_equal(found[~removed], image[~removed])

    def distance(x):
        return np.sqrt(((x - expected)[removed] ** 2).mean())

    assert distance(found) < 0.25 * distance(np.full_like(image, image.mean()))


def test_pull_push_of_a_constant_is_that_constant_and_without_pixels_the_mean():
    images = np.full((2, 9, 9), 3.0, np.float32)
    removed = np.random.default_rng(0).random((2, 9, 9)) < 0.7
    np.testing.assert_allclose(removal.pull_push(images, removed), 3.0, rtol=1e-5)
    images[0, 0] = 12.0
    everything = np.ones((2, 9, 9), dtype=bool)
    np.testing.assert_allclose(removal.pull_push(images, everything)[0], 4.0, rtol=1e-5)


def curves_of(explained, prepared, maps, *, fill):
    ends = removal.endpoints(explained, prepared, fill=fill)
    return removal.curves(explained, prepared, maps, fill=fill, ends=ends)


@pytest.mark.parametrize("fill", removal.FILLS)
def test_true_map_gains_reversed_map_loses_and_noise_neither(fill):
    """The log-odds are the mean of a corner that is brighter than all else."""
    explained = small.corner()
    images = small.images(n=24, size=12) // 8
    images[:, :4, :4] += 200
    prepared = explained.prepare(images)
    true = np.zeros(prepared.shape)
    true[:, :4, :4] = 1
    noise = np.random.default_rng(1).random(prepared.shape)
    gains = {
        name: removal.relevance_gain(*curves_of(explained, prepared, maps, fill=fill))
        for name, maps in (("true", true), ("reversed", -true), ("noise", noise))
    }
    assert (gains["true"] > 0.5).all() and (gains["reversed"] < -0.5).all()
    assert abs(gains["noise"].mean()) < 0.5 * gains["true"].mean()


def test_curves_begin_with_the_image_and_end_without_it():
    explained = small.corner()
    prepared = explained.prepare(small.images(size=12))
    maps = np.random.default_rng(0).random(prepared.shape)
    most, least = curves_of(explained, prepared, maps, fill="interpolated")
    assert most.shape == least.shape == (3, len(removal.SHARES))
    np.testing.assert_allclose(most[:, 0], explained.score(prepared), rtol=1e-5)
    np.testing.assert_allclose(most[:, -1], 8 * prepared.mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(least[:, [0, -1]], most[:, [0, -1]])


def test_gain_by_hand():
    shares = np.array(removal.SHARES)
    least, most = np.ones((1, len(shares))), (1 - shares)[None]
    assert removal.relevance_gain(most, least)[0] == pytest.approx(0.5)

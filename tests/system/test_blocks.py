import numpy as np
import pytest

from cxr_helpers.system import blocks


@pytest.mark.parametrize("n", [0, 1, 4, 5, 13])
def test_result_is_that_of_all_images_at_once_and_no_block_is_larger(n, monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", 4)
    seen = []

    def weighted(images, weights, *, factor):
        seen.append(len(images))
        return (factor * images * weights[:, None]).astype(np.float32)

    images, weights = np.arange(n * 3.0).reshape(n, 3), np.arange(n)
    found = blocks.blockwise(weighted)(images, weights, factor=2)
    assert max(seen) <= 4 and sum(seen) == n
    assert found.dtype == np.float32 and found.shape == (n, 3)
    np.testing.assert_array_equal(found, weighted(images, weights, factor=2))


def test_function_keeps_its_name_and_text():
    @blocks.blockwise
    def halved(images):
        """Return half."""
        return images / 2

    assert (halved.__name__, halved.__doc__) == ("halved", "Return half.")

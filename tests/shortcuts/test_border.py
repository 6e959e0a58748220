import numpy as np
import pytest

from cxr_helpers.shortcuts import border


def test_the_centre_is_black_and_the_frame_as_it_was():
    images = np.full((2, 100, 100), 7, np.uint8)
    blacked_out = border.black_out(images, 0.68)
    assert (blacked_out[:, 16:84, 16:84] == 0).all()
    assert blacked_out.astype(bool).sum() == 2 * (100**2 - 68**2)
    assert (images == 7).all()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=f"share {share}"):
        border.black_out(np.zeros((1, 8, 8), np.uint8), share)


def planted(n, *, where):
    """Return images whose class is the brightness of some rows, and noise elsewhere."""
    draw = np.random.default_rng(0)
    category = np.arange(n) % 3
    images = draw.integers(0, 60, (n, 64, 64), dtype=np.uint8)
    images[:, where, 12:52] = (category * 80 + 40)[:, None, None]
    return images, category, np.array([f"g {i // 2}" for i in range(n)])


@pytest.mark.slow
def test_a_mark_in_the_frame_is_found_and_one_in_the_centre_is_not():
    for where, classes, low, high in ((slice(0, 10), 3, 0.8, 1), (slice(12, 52), 2, 0, 0.75)):
        images, category, groups = planted(300, where=where)
        category = category.clip(max=classes - 1)
        own, networks = border.cross_fit(
            images, category, groups, classes=classes, share=0.68, epochs=8, seed=0, folds=2
        )
        assert own.shape == (300, classes) and np.allclose(own.sum(axis=1), 1, atol=1e-5)
        assert len(networks) == 2
        assert low <= (own.argmax(axis=1) == category).mean() <= high
        others = border.predict(networks, images[:10], share=0.68)
        assert others.shape == (10, classes)


def test_few_images_of_an_unknown_kind_do_not_make_fewer_networks(monkeypatch):
    learnt = []
    monkeypatch.setattr(
        border.training, "fit", lambda model, images, *_, **__: learnt.append(images)
    )
    monkeypatch.setattr(
        border.training,
        "predict",
        lambda model, images: np.full((len(images), 3), 1 / 3, np.float32),
    )
    category = np.array([0, 1, 2] * 8 + [-1])
    images = np.zeros((25, 64, 64), np.uint8)
    said, networks = border.cross_fit(
        images, category, np.arange(25), classes=3, share=0.68, epochs=1, seed=0, folds=4
    )
    assert len(networks) == 4 and np.allclose(said, 1 / 3)
    assert sum(map(len, learnt)) == 3 * 24  # each known one in three folds of four


def test_no_image_is_judged_as_no_image():
    networks = [border.network(2)]
    assert border.predict(networks, np.zeros((0, 64, 64), np.uint8), share=0.68).shape == (0, 2)

import shutil
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from cxr_helpers.models import architectures
from cxr_helpers.shortcuts import border


def test_black_out_sets_centre_to_zero_and_keeps_border():
    images = np.full((2, 100, 100), 7, np.uint8)
    blacked_out = border.black_out(images, 0.68)
    assert (blacked_out[:, 16:84, 16:84] == 0).all()
    assert blacked_out.astype(bool).sum() == 2 * (100**2 - 68**2)
    assert (images == 7).all()


@pytest.mark.parametrize("centre_share", [-0.1, 1.1])
def test_centre_share_out_of_range_is_refused(centre_share):
    with pytest.raises(ValueError, match=f"centre_share {centre_share}"):
        border.black_out(np.zeros((1, 8, 8), np.uint8), centre_share)


def planted(n, *, where):
    """Return noise images in which the brightness of the rows ``where`` encodes the class."""
    rng = np.random.default_rng(0)
    category = np.arange(n) % 3
    images = rng.integers(0, 60, (n, 64, 64), dtype=np.uint8)
    images[:, where, 12:52] = (category * 80 + 40)[:, None, None]
    return images, category, np.array([f"g {i // 2}" for i in range(n)])


@pytest.mark.slow
def test_border_network_sees_class_in_border_but_not_in_centre(monkeypatch):
    monkeypatch.setattr(border, "SIZE", 32)  # half of its side, for a shorter test
    small = partial(architectures.residual_cnn, 32, widths=(16,))
    monkeypatch.setattr(border, "network", lambda classes: small(classes=classes))
    for where, classes, low, high in ((slice(0, 10), 3, 0.8, 1), (slice(12, 52), 2, 0, 0.75)):
        images, category, groups = planted(300, where=where)
        category = category.clip(max=classes - 1)
        keras.utils.set_random_seed(2)  # with other initial weights, 8 epochs may be too few
        out_of_fold, networks = border.cross_fit(
            images, category, groups, classes=classes, centre_share=0.68, epochs=8, seed=0, folds=2
        )
        assert out_of_fold.shape == (300, classes) and np.allclose(
            out_of_fold.sum(axis=1), 1, atol=1e-5
        )
        assert len(networks) == 2
        assert low <= (out_of_fold.argmax(axis=1) == category).mean() <= high
        y_prob = border.predict(networks, images[:10], centre_share=0.68)
        assert y_prob.shape == (10, classes)


def test_number_of_folds_ignores_images_of_unknown_class(monkeypatch):
    training_sets = []
    monkeypatch.setattr(
        border.training, "fit", lambda model, images, *_, **__: training_sets.append(images)
    )
    monkeypatch.setattr(
        border.training,
        "predict",
        lambda model, images: np.full((len(images), 3), 1 / 3, np.float32),
    )
    category = np.array([0, 1, 2] * 8 + [-1])
    images = np.zeros((25, 64, 64), np.uint8)
    y_prob, networks = border.cross_fit(
        images, category, np.arange(25), classes=3, centre_share=0.68, epochs=1, seed=0, folds=4
    )
    assert len(networks) == 4 and np.allclose(y_prob, 1 / 3)
    assert sum(map(len, training_sets)) == 3 * 24  # each image of known class in three of four


def test_one_patient_of_a_class_leaves_two_folds_and_the_learning_rate_as_it_is(monkeypatch):
    seen, lines = [], []
    monkeypatch.setattr(
        border.training, "fit", lambda model, *_, **__: seen.append(model.optimizer)
    )
    monkeypatch.setattr(
        border.training,
        "predict",
        lambda model, images: np.full((len(images), 2), 0.5, np.float32),
    )
    category = np.repeat([0, 1], [30, 90])
    groups = np.where(category == 0, 0, np.arange(120))
    images = np.zeros((120, 64, 64), np.uint8)
    options = {"classes": 2, "centre_share": 0.68, "epochs": 4, "seed": 0, "log": lines.append}
    border.cross_fit(images, category, groups, **options)
    assert [line[-3:] for line in lines] == ["1/2", "2/2"]
    schedule = seen[0]._learning_rate
    assert float(schedule(4)) > 0.001  # of eight steps, two of them warm-up


def test_predict_of_no_images_is_empty():
    networks = [border.network(2)]
    assert border.predict(networks, np.zeros((0, 64, 64), np.uint8), centre_share=0.68).shape == (
        0,
        2,
    )


class Stage(SimpleNamespace):
    """Saves in a folder; copies from an earlier run's."""

    log = checkpoint = None

    def save(self, name, write):
        write(self.folder / name)

    def earlier_names(self, pattern):
        return sorted(path.name for path in self.earlier.glob(pattern))

    def copy_earlier(self, name):
        return shutil.copy(self.earlier / name, self.folder / name)


def test_networks_are_trained_and_saved_or_those_of_an_earlier_run(tmp_path):
    out_of_fold, trained = np.full((4, 2), 0.5), [border.network(2) for _ in range(2)]
    first = Stage(folder=tmp_path / "first", earlier=None)
    second = Stage(folder=tmp_path / "second", earlier=first.folder)
    for stage in (first, second):
        stage.folder.mkdir()
    found, networks = border.fit_or_load(
        first, lambda **_: (out_of_fold, trained), earlier=np.zeros((0, 2))
    )
    assert found is out_of_fold and networks == trained
    earlier, copies = border.fit_or_load(second, None, earlier=out_of_fold / 2)
    assert earlier.max() == 0.25 and len(copies) == 2
    for network, copy in zip(trained, copies, strict=True):
        assert all(map(np.array_equal, network.get_weights(), copy.get_weights()))
    assert len(list(second.folder.iterdir())) == 2

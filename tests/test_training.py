import keras
import numpy as np
import pytest
from keras import layers

from cxr_helpers import training


@pytest.fixture
def films():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture
def bright(films):
    """Label a film by its left half: a single convolution can learn it."""
    return (films[:, :, :4].mean(axis=(1, 2)) > 127).astype("float32")[:, None]


def network(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


def train(model, films, labels, **options):
    options = {"epochs": 3, "batch_size": 8, "seed": 0} | options
    return training.fit(model, films, labels, **options)


def test_batches_are_floats_in_the_unit_interval(films, bright):
    (pictures, labels), *rest = training.batches(films, bright, batch_size=16)
    assert pictures.shape == (16, 8, 8, 1) and len(rest) == 2
    assert np.allclose(pictures[..., 0], films[:16] / 255)
    assert np.array_equal(labels, bright[:16])


def test_batches_follow_the_order_asked_for(films, bright):
    order = np.array([5, 3, 39])
    ((pictures, labels),) = training.batches(films, bright, order=order)
    assert np.allclose(pictures[..., 0], films[order] / 255)
    assert np.array_equal(labels, bright[order])


def test_an_autoencoder_is_asked_for_its_input(films):
    ((pictures, wanted),) = training.batches(films)
    assert np.array_equal(pictures, wanted)


def test_same_seed_same_weights(films, bright):
    augmentation = training.Augmentation()
    one, two, other = network(), network(), network()
    train(one, films, bright, augmentation=augmentation)
    train(two, films, bright, augmentation=augmentation)
    train(other, films, bright, augmentation=augmentation, seed=1)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_the_best_validation_epoch_is_kept(films, bright):
    model = network()
    history = train(model, films, bright, epochs=6, validation=(films, 1 - bright))
    kept = history.loc[history["best"]]
    assert len(kept) == 1 and kept["val_loss"].item() == history["val_loss"].min()
    scored = model.evaluate(films[..., None] / 255, 1 - bright, verbose=0, return_dict=True)
    assert scored["loss"] == pytest.approx(kept["val_loss"].item(), rel=1e-5)
    # labels turned round: learning makes validation worse, so the first epoch was best
    assert kept["epoch"].item() == 1


def test_without_validation_the_last_epoch_stays(films, bright):
    history = train(network(), films, bright)
    assert history["best"].tolist() == [False, False, True]
    assert "val_loss" not in history


def test_curves_are_what_keras_itself_reports(films, bright):
    ours, keras_own = network(), network()
    history = train(ours, films, bright, epochs=1, batch_size=16)
    order = np.random.default_rng(np.random.SeedSequence([0, 0]).generate_state(2)[0])
    order = order.permutation(len(films))
    logs = keras_own.fit(
        films[order][..., None] / np.float32(255),
        bright[order],
        batch_size=16,
        shuffle=False,
        verbose=0,
    ).history
    assert history["loss"][0] == pytest.approx(logs["loss"][0], rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(logs["accuracy"][0])


def test_predictions_come_back_in_order(films):
    model = network()
    wanted = model.predict(films[..., None] / np.float32(255), verbose=0)
    assert np.allclose(training.predict(model, films, batch_size=16), wanted, atol=1e-6)


def test_training_learns(films, bright):
    history = train(network(), films, bright, epochs=30)
    assert history["accuracy"].iloc[-1] > 0.95


def test_images_are_left_as_they_were(films, bright):
    before = films.copy()
    train(network(), films, bright, augmentation=training.Augmentation())
    assert np.array_equal(films, before)


def test_augmentation_off_changes_nothing(films):
    layer = training.Augmentation(rotation=0, shift=0, flip=False).draw(0)
    pictures = films[..., None].astype("float32")
    assert np.array_equal(layer(pictures), pictures)


def test_flip_mirrors_left_and_right_only(films):
    pictures = films[..., None].astype("float32")
    flipped = np.asarray(training.Augmentation(rotation=0, shift=0).draw(0)(pictures))
    same = (flipped == pictures).all(axis=(1, 2, 3))
    mirrored = (flipped == pictures[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all() and same.any() and mirrored.any()


def test_shift_stays_within_its_bound():
    dot = np.zeros((64, 20, 20, 1), "float32")
    dot[:, 10, 10] = 1
    moved = np.asarray(training.Augmentation(rotation=0, flip=False, shift=0.2).draw(0)(dot))
    rows, columns = np.nonzero(moved.max(axis=0)[..., 0])
    assert 5 <= rows.min() < 10 < rows.max() <= 15 and 5 <= columns.min() < 10 < columns.max() <= 15


def test_one_line_an_epoch_with_the_time_left(films, bright):
    lines = []
    train(network(), films, bright, report=lines.append)
    assert [line.split(" ")[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("loss" in line and "ETA" in line for line in lines)
    assert lines[-1].endswith("ETA 0:00")


def test_a_loss_that_is_no_number_stops_the_training(films, bright):
    with pytest.raises(FloatingPointError, match="loss of epoch 1 is nan"):
        train(network(), films, np.full_like(bright, np.nan))


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}])
def test_nothing_to_do_is_refused(films, bright, options):
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        train(network(), films, bright, **options)

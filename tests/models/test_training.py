import gc
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from machine import resident_of_files

from cxr_helpers.models import tracing, training
from cxr_helpers.models.augmentation import Augmentation
from cxr_helpers.system import array_files


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture
def bright(images):
    """Label an image by the brightness of its left half, which a linear model can learn."""
    return (images[:, :, :4].mean(axis=(1, 2)) > 127).astype("float32")[:, None]


def network(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


def train(model, images, labels, **options):
    options = {"epochs": 3, "batch_size": 8, "seed": 0} | options
    return training.fit(model, images, labels, **options)


def test_batches_are_scaled_to_unit_interval(images, bright):
    (batch, labels), *rest = training.batches(images, bright, batch_size=16)
    assert batch.shape == (16, 8, 8, 1) and len(rest) == 2
    assert np.allclose(batch[..., 0], images[:16] / 255)
    assert np.array_equal(labels, bright[:16])


def test_batches_follow_given_order(images, bright):
    order = np.array([5, 3, 39])
    ((batch, labels),) = training.batches(images, bright, order=order)
    assert np.allclose(batch[..., 0], images[order] / 255)
    assert np.array_equal(labels, bright[order])


def test_batches_without_targets_yield_their_input(images):
    ((batch, targets),) = training.batches(images, batch_size=40)
    assert np.array_equal(batch, targets)


def test_batches_that_were_read_take_no_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((64, 1024, 1024), np.uint8))
    images = np.load(tmp_path / "a.npy", mmap_mode="r")[:60, ::-1]
    before = resident_of_files()
    for batch, _ in training.batches(images, batch_size=8):
        assert batch.min() > 0
        assert resident_of_files() - before < 2 * array_files.PART


def test_steps_are_compiled_once_although_the_last_batch_is_smaller(images, bright, monkeypatch):
    """TensorFlow runs the Python code of a step while it compiles it."""
    model, calls = network(), []
    for name in ("train_step", "test_step"):
        step = getattr(model, name)
        count = lambda batch, name=name, step=step: (calls.append(name), step(batch))[1]  # noqa: E731
        monkeypatch.setattr(model, name, count)
    train(model, images[:13], bright[:13], validation=(images[:5], bright[:5]))
    assert calls == ["train_step", "test_step"]


def test_restarted_model_trains_like_a_new_one_with_the_step_compiled_before(
    images, bright, monkeypatch
):
    new, again = network(seed=2), network(seed=1)
    curves = train(new, images, bright)
    train(again, images, bright, epochs=1)
    monkeypatch.setattr(training.tracing, "traced", None)
    training.restart(again, like=network(seed=2))
    pd.testing.assert_frame_equal(train(again, images, bright), curves)
    for one, other in zip(new.variables, again.variables, strict=True):
        assert np.array_equal(one, other)


def test_restarted_model_scales_its_loss_like_a_new_one(images, bright, float16):
    """Under mixed_float16, a scale of 0 would make every gradient vanish or overflow."""
    new, again = network(), network()
    curves = train(new, images, bright)
    train(again, images, bright, epochs=1)
    training.restart(again, like=network())
    assert float(again.optimizer.dynamic_scale) == again.optimizer.initial_scale > 1
    pd.testing.assert_frame_equal(train(again, images, bright), curves)


def test_labels_are_learned_with_a_scaled_loss(images, bright, float16):
    history = train(network(), images, bright, epochs=30)
    assert history["accuracy"].iloc[-1] > 0.95


def test_restarted_model_keeps_its_learning_rate(images, bright):
    model = network()
    model.optimizer.learning_rate = 0.5
    training.restart(model, like=network())
    assert float(model.optimizer.learning_rate) == 0.5


def test_model_that_is_compiled_again_is_trained_by_the_new_optimizer(images, bright):
    model = network()
    train(model, images, bright)
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
    train(model, images, bright)
    for one, other in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_model_is_freed_although_its_compiled_steps_are_kept(images, bright):
    model = network()
    train(model, images, bright)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_training_depends_only_on_seed(images, bright):
    augmentation = Augmentation()
    one, two, other = network(), network(), network()
    train(one, images, bright, augmentation=augmentation)
    train(two, images, bright, augmentation=augmentation)
    train(other, images, bright, augmentation=augmentation, seed=1)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_weights_of_best_validation_epoch_are_restored(images, bright):
    model = network()
    history = train(model, images, bright, epochs=6, validation=(images, 1 - bright))
    best = history.loc[history["best"]]
    assert len(best) == 1 and best["val_loss"].item() == history["val_loss"].min()
    scored = model.evaluate(images[..., None] / 255, 1 - bright, verbose=0, return_dict=True)
    assert scored["loss"] == pytest.approx(best["val_loss"].item(), rel=1e-5)
    # validation labels are inverted: training increases their loss, so the first epoch is best
    assert best["epoch"].item() == 1


def test_of_epochs_with_equal_validation_loss_the_first_is_best(images, bright):
    model = network()
    model.optimizer.learning_rate = 0.0
    history = train(model, images, bright, epochs=3, validation=(images, bright))
    assert history["val_loss"].nunique() == 1 and history["best"].tolist() == [True, False, False]


def test_without_validation_last_epoch_is_kept(images, bright):
    history = train(network(), images, bright)
    assert history["best"].tolist() == [False, False, True]
    assert "val_loss" not in history


def test_curves_match_keras_fit(images, bright):
    ours, reference = network(), network()
    history = train(ours, images, bright, epochs=1, batch_size=16)
    order = np.random.default_rng(np.random.SeedSequence([0, 0]).generate_state(2)[0])
    order = order.permutation(len(images))
    logs = reference.fit(
        images[order][..., None] / np.float32(255),
        bright[order],
        batch_size=16,
        shuffle=False,
        verbose=0,
    ).history
    assert history["loss"][0] == pytest.approx(logs["loss"][0], rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(logs["accuracy"][0])


def test_predictions_keep_image_order(images, monkeypatch):
    model = network()
    expected = model.predict(images[..., None] / np.float32(255), verbose=0)
    monkeypatch.setattr(tracing, "MOST", 16)  # several batches, the last one smaller
    assert len(images) > 16 and len(images) % 16
    assert np.allclose(training.predict(model, images), expected, atol=1e-6)


def test_training_fits_learnable_labels(images, bright):
    history = train(network(), images, bright, epochs=30)
    assert history["accuracy"].iloc[-1] > 0.95


def test_training_leaves_images_unchanged(images, bright):
    before = images.copy()
    train(network(), images, bright, augmentation=Augmentation())
    assert np.array_equal(images, before)


def test_sampling_weights_set_draw_frequency():
    rng = np.random.default_rng(0)
    order = training._order(8, np.array([4, 4, 0, 0, 0, 0, 4, 4.0]), rng=rng)
    assert sorted(order) == [0, 0, 1, 1, 6, 6, 7, 7]
    assert sorted(training._order(8, None, rng=rng)) == list(range(8))


def test_averaged_weights_are_validated_and_kept(images, bright):
    model = network()
    history = train(model, images, bright, average=0.5, validation=(images, bright))
    scored = model.evaluate(images[..., None] / 255, bright, verbose=0, return_dict=True)
    assert scored["loss"] == pytest.approx(history["val_loss"].iloc[-1], rel=1e-5)
    assert history["best"].tolist() == [False, False, True]
    plain = network()
    train(plain, images, bright)
    assert not np.array_equal(model.get_weights()[0], plain.get_weights()[0])


def test_averaging_with_zero_decay_keeps_last_weights(images, bright):
    one, two = network(), network()
    train(one, images, bright, average=1e-9)
    train(two, images, bright)
    assert np.allclose(one.get_weights()[0], two.get_weights()[0], atol=1e-6)


def test_learning_rate_warms_up_and_decays():
    rate = training.adamw(steps=100, warmup=10, learning_rate=0.5, weight_decay=0.1)._learning_rate
    assert float(rate(0)) == 0 and float(rate(10)) == pytest.approx(0.5)
    assert float(rate(100)) == pytest.approx(0.005)


def test_log_has_one_line_per_epoch_with_time_left(images, bright):
    lines = []
    train(network(), images, bright, log=lines.append)
    assert [line.split(" ")[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("loss" in line and "ETA" in line for line in lines)
    assert lines[-1].endswith("ETA 0:00")


def test_non_finite_loss_stops_training(images, bright):
    with pytest.raises(FloatingPointError, match="loss of epoch 1 is nan"):
        train(network(), images, np.full_like(bright, np.nan))


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}])
def test_zero_epochs_or_batch_size_is_refused(images, bright, options):
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        train(network(), images, bright, **options)

import os
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from cxr_helpers.data import duplicates
from cxr_helpers.explain import occlusion
from cxr_helpers.pipeline import store
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import accelerators, array_files, files

POINTS = np.random.default_rng(0).normal(size=(20, 5))


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of a helper that returns the positions of patches along a side."""
    seen, positions = [], occlusion.positions

    def counted(length, *, patch, stride):
        seen.append(length)
        return positions(length, patch=patch, stride=stride)

    counted.__module__, counted.__qualname__ = positions.__module__, positions.__qualname__
    monkeypatch.setattr(occlusion, "positions", counted)
    return seen


def positions_of(results, length=6, patch=2):
    return results.call(occlusion.positions, length, patch=patch, stride=2).tolist()


def test_same_call_is_computed_once(results, calls):
    assert positions_of(results) == positions_of(results) == [0, 2, 4]
    assert positions_of(Store(results.folder)) == [0, 2, 4]  # another process
    assert calls == [6]


def test_other_arguments_or_code_are_computed_again(results, calls, monkeypatch):
    positions_of(results), positions_of(results, 8), positions_of(results, 8, patch=4)
    assert calls == [6, 8, 8]
    monkeypatch.setattr(
        store.dependencies, "digest_each", lambda modules: {"explain.occlusion": "changed"}
    )
    positions_of(results)
    assert calls == [6, 8, 8, 6]


def test_other_version_of_a_library_is_computed_again(results, calls, monkeypatch):
    positions_of(results)
    monkeypatch.setattr(store.environment, "versions", lambda: {"numpy": "0"})
    positions_of(results)
    assert calls == [6, 6]


def test_other_device_is_computed_again(results, calls, tensorflow_gpu, monkeypatch):
    positions_of(results)
    tensorflow_gpu()
    positions_of(results)
    monkeypatch.setenv(accelerators.NONDETERMINISTIC, "1")
    positions_of(results)
    assert calls == [6, 6, 6]


def test_without_reuse_results_are_computed_and_stored_again(results, calls):
    positions_of(results)
    again = Store(results.folder, reuse=False)
    positions_of(again), positions_of(again)
    assert calls == [6, 6] and len(list(results.folder.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"\x93noise", b"PK\x03\x04"])
def test_damaged_result_is_computed_again(results, calls, content):
    positions_of(results)
    (path,) = results.folder.iterdir()
    path.write_bytes(content)
    assert positions_of(results) == [0, 2, 4] == positions_of(Store(results.folder)) and calls == [
        6,
        6,
    ]


def test_estimator_is_identified_by_its_parameters(results):
    one, two = (results.call(PCA(n).fit_transform, POINTS) for n in (2, 3))
    assert one.shape == (20, 2) and two.shape == (20, 3)
    assert np.array_equal(one, PCA(2).fit_transform(POINTS))
    assert len(set(results.used)) == 2


def test_array_is_identified_by_its_content(results):
    for points in (POINTS, POINTS.copy(), POINTS + np.eye(20, 5) * 1e-12, POINTS[::-1]):
        results.call(np.sum, points)
    assert len(set(results.used)) == 3


def model(weight=1.0, name="dense"):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name=name)])
    network.set_weights([np.full((2, 1), weight), np.zeros(1)])
    return network


@pytest.mark.parametrize("part", [1, 100, 10**9])
def test_view_is_identified_by_its_content(results, monkeypatch, part):
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 6), dtype=np.uint8)
    expected = results._key(np.mean, (images[:, :, ::-1].copy(),), {})
    monkeypatch.setattr(array_files, "PART", part)
    for view in (images[:, :, ::-1], np.asfortranarray(images[:, :, ::-1])):
        assert results._key(np.mean, (view,), {}) == expected
    assert results._key(np.mean, (images,), {}) != expected


def test_network_is_identified_by_architecture_and_weights():
    def described(network):
        return b"".join(bytes(part) for part in store._described(network))

    assert described(model()) == described(model())  # the second input layer has another name
    assert described(model()) != described(model(2.0))
    assert described(model()) != described(model(name="other"))


@dataclass(frozen=True)
class Options:
    share: float


def test_values_of_different_types_are_distinguished():
    values = [
        *(None, 1, 1.0, True, "1", [1], (1, 1), {"a": 1}, {"a": 2}, {"b": 1}),
        *(np.ones(1), np.ones(1, int), np.ones((1, 1)), Options(1.0), Options(2.0)),
        *(np.sum, np.mean, partial(np.sum, axis=0), partial(np.sum, axis=1), PCA(1), PCA(2)),
        *(pd.DataFrame({"a": [1]}), pd.DataFrame({"a": ["1"]}), [["a"], "b"], ["a", ["b"]]),
    ]
    seen = {b"".join(bytes(part) for part in store._described(value)) for value in values}
    assert len(seen) == len(values)


@pytest.mark.parametrize("value", [object(), lambda: 0, {1}])
def test_argument_that_cannot_be_identified_is_refused(results, value):
    if callable(value):
        value.__module__ = "__main__"  # as in a notebook
    with pytest.raises(TypeError, match="cannot be part of a key"):
        results.call(np.sum, value)


def table():
    """Return results of all types at once."""
    frame = pd.DataFrame({"x": [1.5, np.nan], "name": ["a", "ü"], "n": [1, 2], "t": [True, False]})
    return {"frame": frame, "tuple": (1, 2.5, np.arange(3)), "list": [np.eye(2, dtype="f4"), "s"]}


def test_results_are_returned_unchanged(results):
    fresh, again = results.call(table), Store(results.folder).call(table)
    for found in (fresh, again):
        pd.testing.assert_frame_equal(found["frame"], table()["frame"])
        assert found["tuple"][:2] == (1, 2.5) and found["tuple"][2].tolist() == [0, 1, 2]
        assert found["list"][0].dtype == np.float32 and found["list"][1] == "s"


def opaque():
    return {"x": object()}


def test_result_that_would_need_a_pickle_is_refused(results):
    with pytest.raises(TypeError, match="cannot be stored"):
        results.call(opaque)
    assert list(results.folder.iterdir()) == []


@pytest.mark.parametrize("column", [["a", np.nan], ["a", 1]])
def test_column_of_several_types_is_refused(results, column):
    """As text, its numbers would come back as text."""
    with pytest.raises(TypeError, match="cannot be stored"):
        results.call(pd.DataFrame, {"x": column})


def test_data_frame_of_duplicates_is_stored(results):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    images[3] = images[0]
    names = {"file": list("abcd"), "split": ["train"] * 4, "class_name": ["normal"] * 4}
    found = [results.call(duplicates.find, images, pd.DataFrame(names)) for _ in range(2)]
    assert found[0]["second"].tolist() == [3]
    pd.testing.assert_frame_equal(found[0], found[1])


def fill(results, name, *, age, size=4000):
    path = results.folder / f"{name}.npz"
    results.folder.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (age, age))
    return path


def test_least_recently_used_result_is_removed_first(tmp_path):
    results = Store(tmp_path, limit=10_000)
    old, older = fill(results, "old", age=2000), fill(results, "older", age=1000)
    results.call(np.zeros, 100)  # 800 bytes and the overhead of the file
    assert old.exists() and older.exists()
    results.call(np.ones, 100)
    assert old.exists() and not older.exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000


def test_half_written_result_of_a_killed_process_is_removed(tmp_path):
    left = tmp_path / f"{files.PARTIAL}999999999-x.npz"
    left.write_bytes(b"half")
    Store(tmp_path).call(np.full, 3, 1)
    assert not left.exists()


def test_result_in_use_stays_and_counts_as_recent(tmp_path):
    results = Store(tmp_path, limit=10_000)
    used, other = fill(results, "used", age=1000), fill(results, "other", age=2000)
    assert results.checkpoint("used") == used
    results.trim(room=4000)
    assert used.exists() and not other.exists()
    again = Store(tmp_path, limit=10_000)  # another notebook
    younger = fill(again, "younger", age=3000)
    again.trim(room=4000)
    assert used.exists() and not younger.exists()


def test_result_larger_than_a_quarter_of_the_limit_is_not_stored(tmp_path):
    results = Store(tmp_path, limit=10_000)
    assert len(results.call(np.zeros, 500)) == 500
    assert list(tmp_path.iterdir()) == []

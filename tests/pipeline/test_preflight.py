"""Checks before anything runs (OUT-01, OUT-02)."""

import importlib.util
import sys

import pytest
from machine import small_disk

from cxr_helpers.pipeline import preflight
from cxr_helpers.system.errors import Refused

ENOUGH = {"n_images": 10, "image_size": 32, "pdf": True}


def test_usable_folder_is_created_and_left_empty(tmp_path):
    assert preflight.check(tmp_path / "new" / "run", **ENOUGH) == []
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_small_disk_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", 1_000_000) as disk, pytest.raises(Refused) as error:
        preflight.check(disk / "run", **ENOUGH)
    assert error.value.code == 6
    assert "MiB of disk space are free, but about 150 MiB are needed" in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 2),
        ({"cores": 1}, 1),
        ({"free": 3 * 10**9}, 1),
        ({"platform": "win32"}, 1),
        ({"gpu": "a card"}, 1),
        ({"n_images": 5856, "image_size": 192}, 2),
        ({"n_images": 5856, "image_size": 512}, 1),
        ({"n_images": 112_120}, 1),
    ],
)
def test_two_stages_run_at_once_where_cores_memory_and_system_allow(change, expected, monkeypatch):
    case = {"cores": 2, "free": 5 * 10**9, "platform": "linux", "gpu": None}
    images = {"n_images": 500, "image_size": 128}
    images |= {name: value for name, value in change.items() if name in images}
    case |= change
    monkeypatch.setattr(preflight.environment, "cores", lambda: case["cores"])
    monkeypatch.setattr(preflight.environment, "free_memory", lambda: case["free"])
    monkeypatch.setattr(preflight.sys, "platform", case["platform"])
    monkeypatch.setattr(preflight.accelerators, "gpu", lambda: case["gpu"])
    assert preflight.jobs(**images) == expected


@pytest.mark.parametrize(
    ("n_images", "image_size", "limit", "expected"),
    [
        (200, 48, "", 1),
        (500, 80, "", 1),
        (500, 80, "3", None),
        (5856, 64, "", None),
        (100, 128, "", None),
    ],
)
def test_small_run_has_one_thread_unless_the_user_decides(
    n_images, image_size, limit, expected, monkeypatch
):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", limit)
    assert preflight.threads(n_images=n_images, image_size=image_size) == expected


def test_full_disk_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", 65536) as disk:
        (disk / "run").mkdir()
        with pytest.raises(OSError, match="No space left"):
            (disk / "large").write_bytes(bytes(200_000))
        with pytest.raises(Refused) as error:
            preflight.check(disk / "run", **ENOUGH)
    assert error.value.code == 6


def test_number_of_images_decides_how_much_disk_is_needed(tmp_path):
    with pytest.raises(Refused, match="smaller image_size"):
        preflight.check(tmp_path, n_images=10**9, image_size=512, pdf=True)


@pytest.mark.parametrize("package", ["typst", "keras", "pypandoc"])
def test_missing_package_is_named(tmp_path, monkeypatch, package):
    """Without typst there is no PDF; without one of the others no report, so nothing runs."""
    monkeypatch.setitem(sys.modules, package, None)
    assert importlib.util.find_spec(package) is None
    if package == "typst":
        (line,) = preflight.check(tmp_path, **ENOUGH)
        assert "pip install typst" in line
        assert preflight.check(tmp_path, **ENOUGH | {"pdf": False}) == []
    else:
        with pytest.raises(Refused, match=f"not installed: {package}; `uv sync`") as error:
            preflight.check(tmp_path, **ENOUGH)
        assert error.value.code == 6


def test_plug_in_that_breaks_tensorflow_is_refused(monkeypatch):
    monkeypatch.setattr(preflight.accelerators, "broken", lambda: "tensorflow-metal breaks it")
    with pytest.raises(Refused, match="tensorflow-metal breaks it") as error:
        preflight.check_device()
    assert error.value.code == 6


def test_card_that_is_not_used_is_only_noted(monkeypatch):
    monkeypatch.setattr(preflight.accelerators, "advice", lambda: ["a card"])
    assert preflight.check_device() == ["a card"]

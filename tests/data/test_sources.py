import shutil
import socket
from pathlib import Path

import pytest
from folders import make

from cxr_helpers.data import downloads, layouts, sources
from cxr_helpers.system.errors import DataError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))


@pytest.mark.parametrize("data", ["kaggle", "mendeley"])
def test_what_is_not_here_is_found_without_asking_for_it(tmp_path, data):
    origin = sources.find(data, cache_dir=tmp_path / "cache")
    assert (origin.name, origin.location, origin.located) == (data, data, None)
    assert origin.pending.startswith("download ") and origin.disk_space[1] > 2e9
    assert list(tmp_path.iterdir()) == []


def test_kaggles_cached_copy_is_here(tmp_path):
    """Where kagglehub itself looks for it."""
    kagglehub = pytest.importorskip("kagglehub")
    folder = downloads.kaggle_cache() / "datasets" / "paultimothymooney" / "chest-xray-pneumonia"
    (folder / "versions" / "2").mkdir(parents=True)
    assert sources.find("kaggle", cache_dir=tmp_path).located is None  # a download that was cut
    (folder / "2.complete").touch()
    origin = sources.find("kaggle", cache_dir=tmp_path)
    assert origin.located == kagglehub.dataset_download(downloads.KAGGLE_HANDLE) == origin.path


def test_where_kaggles_copy_is_mounted_no_disk_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert sources.find("kaggle", cache_dir=tmp_path).disk_space is None


def test_mendeleys_archive_keeps_the_name_of_its_source(tmp_path, monkeypatch):
    make(tmp_path / "images")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "images")
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    archive = shutil.move(packed, tmp_path / "cache" / "downloads" / downloads.ARCHIVE)
    monkeypatch.setattr(
        downloads.mendeley_cached, "__kwdefaults__", {"size": archive.stat().st_size}
    )
    origin = sources.find("mendeley", cache_dir=tmp_path / "cache")
    assert (origin.name, origin.located) == ("mendeley", None)
    assert origin.pending == "unpack ChestXRay2017.zip"


def test_an_archive_is_unpacked_once_and_named(tmp_path):
    make(tmp_path / "images")
    packed = shutil.make_archive(str(tmp_path / "my images"), "gztar", tmp_path / "images")
    cache = tmp_path / "cache"
    origin = sources.find(packed, cache_dir=cache)
    assert (origin.name, origin.located) == ("my images", None)
    assert origin.pending == "unpack my images.tar.gz" and not cache.exists()
    fetched = sources.fetch(packed, cache_dir=cache)
    assert layouts.find(Path(fetched.located))[0].name == "my images"
    assert sources.find(packed, cache_dir=cache) == fetched
    assert fetched.path == packed


def test_a_folder_is_named_by_the_root_of_its_images(tmp_path):
    root = make(tmp_path / "above" / "chest_xray")
    (tmp_path / "link").symlink_to(root)
    for data in (root, root.parent, tmp_path / "link"):
        origin = sources.find(str(data), cache_dir=tmp_path)
        assert origin == sources.Source("chest_xray", str(root), str(root))


def test_a_misspelt_source_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="did you mean 'mendeley'"):
        sources.find("mendelay", cache_dir=tmp_path)

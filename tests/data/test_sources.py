import os
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
def test_remote_source_is_found_without_network(tmp_path, data):
    source = sources.find(data, cache_dir=tmp_path / "cache")
    assert (source.name, source.location, source.located) == (data, data, None)
    assert source.pending.startswith("download ") and source.disk_space[1] > 2e9
    assert list(tmp_path.iterdir()) == []


def test_cached_kaggle_copy_is_located(tmp_path):
    """In the folder where kagglehub looks for it."""
    kagglehub = pytest.importorskip("kagglehub")
    folder = downloads.kaggle_cache() / "datasets" / "paultimothymooney" / "chest-xray-pneumonia"
    (folder / "versions" / "2").mkdir(parents=True)
    assert sources.find("kaggle", cache_dir=tmp_path).located is None  # an interrupted download
    (folder / "2.complete").touch()
    source = sources.find("kaggle", cache_dir=tmp_path)
    assert source.located == kagglehub.dataset_download(downloads.KAGGLE_HANDLE) == source.path


@pytest.mark.parametrize(
    "place", ["datasets/paultimothymooney/chest-xray-pneumonia", "chest-xray-pneumonia"]
)
def test_input_of_a_kaggle_notebook_is_located(place, tmp_path, monkeypatch):
    """In both layouts, whether kagglehub knows it or not."""
    monkeypatch.setattr(downloads, "KAGGLE_INPUT", tmp_path / "input")
    assert sources.find("kaggle", cache_dir=tmp_path).located is None
    folder = tmp_path / "input" / place
    folder.mkdir(parents=True)
    assert sources.find("kaggle", cache_dir=tmp_path).located == str(folder)


def test_mounted_kaggle_copy_needs_no_disk_space(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert sources.find("kaggle", cache_dir=tmp_path).disk_space is None


def test_downloaded_mendeley_archive_keeps_its_source_name(tmp_path, monkeypatch):
    make(tmp_path / "images")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "images")
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    archive = shutil.move(packed, tmp_path / "cache" / "downloads" / downloads.ARCHIVE)
    monkeypatch.setattr(
        downloads.mendeley_cached, "__kwdefaults__", {"size": archive.stat().st_size}
    )
    source = sources.find("mendeley", cache_dir=tmp_path / "cache")
    assert (source.name, source.located) == ("mendeley", None)
    assert source.pending == "unpack ChestXRay2017.zip"


def test_damaged_mendeley_archive_is_removed_so_that_it_is_downloaded_again(tmp_path, monkeypatch):
    make(tmp_path / "images")
    archive = tmp_path / "cache" / "downloads" / downloads.ARCHIVE
    archive.parent.mkdir(parents=True)
    shutil.move(shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path / "images"), archive)
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 16] ^= 0xFF  # the checksum of the last file
    archive.write_bytes(content)
    monkeypatch.setattr(downloads.mendeley_cached, "__kwdefaults__", {"size": len(content)})
    monkeypatch.setattr(downloads, "mendeley", lambda **_: archive)
    with pytest.raises(DataError, match=r"the same command downloads it again$"):
        sources.fetch("mendeley", cache_dir=tmp_path / "cache")
    assert not archive.exists()


def test_archive_is_unpacked_once_under_its_name(tmp_path):
    make(tmp_path / "images")
    packed = shutil.make_archive(str(tmp_path / "my images"), "gztar", tmp_path / "images")
    cache = tmp_path / "cache"
    source = sources.find(packed, cache_dir=cache)
    assert (source.name, source.located) == ("my images", None)
    assert source.pending == "unpack my images.tar.gz" and not cache.exists()
    fetched = sources.fetch(packed, cache_dir=cache)
    assert layouts.find(Path(fetched.located))[0].name == "my images"
    assert sources.find(packed, cache_dir=cache) == fetched
    assert fetched.path == packed


def test_folder_has_the_name_of_its_root(tmp_path):
    root = make(tmp_path / "above" / "chest_xray")
    (tmp_path / "link").symlink_to(root)
    for data in (root, root.parent, tmp_path / "link"):
        source = sources.find(str(data), cache_dir=tmp_path)
        assert source == sources.Source("chest_xray", str(root), str(root))


def test_misspelt_source_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(DataError, match="did you mean 'mendeley'"):
        sources.find("mendelay", cache_dir=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_loop_of_links_is_refused_in_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="does not exist"):
        sources.find(str(tmp_path / "a"), cache_dir=tmp_path)

import stat
import zipfile

import pytest
from test_folder import LAYOUT, make

from cxr_helpers import archives, folder
from cxr_helpers.folder import DataError


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture
def films(tmp_path):
    """Return a zip of films with Kaggle's nested second copy and macOS's clutter."""
    members = [
        (f"{above}{place}/{name}", b"x")
        for above in ("chest_xray/", "chest_xray/chest_xray/", "__MACOSX/chest_xray/")
        for place, names in LAYOUT.items()
        for name in names
    ]
    return packed(tmp_path / "films.zip", [*members, ("chest_xray/read me.txt", b"x")])


def test_every_film_counts_once(films, tmp_path):
    found = folder.scan(archives.unpack(films, cache_dir=tmp_path / "c"))
    assert len(found.files) == sum(map(len, LAYOUT.values()))


def test_only_images_are_unpacked(films, tmp_path):
    root = archives.unpack(films, cache_dir=tmp_path / "c")
    assert {p.suffix for p in root.rglob("*") if p.is_file()} == {".jpeg"}
    assert not (root / "__MACOSX").exists()


def test_second_time_it_is_found(films, tmp_path, monkeypatch):
    first = archives.unpack(films, cache_dir=tmp_path / "c")
    monkeypatch.setattr(archives, "_safe_parts", None)
    assert archives.unpack(films, cache_dir=tmp_path / "c") == first


@pytest.mark.parametrize(
    "name", ["../x.jpeg", "a/../../x.jpeg", "/x.jpeg", "C:\\x.jpeg", "a\\..\\x"]
)
def test_paths_that_lead_outside_are_refused(tmp_path, name):
    archive = packed(tmp_path / "evil.zip", [("train/a.jpeg", b"x"), (name, b"x")])
    with pytest.raises(DataError, match=r"evil\.zip holds .* leads outside"):
        archives.unpack(archive, cache_dir=tmp_path / "c" / "d")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["evil.zip"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("train/a.jpeg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = packed(tmp_path / "evil.zip", [(link, "/etc/passwd")])
    with pytest.raises(DataError, match="holds the link"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    archive = packed(tmp_path / "bomb.zip", [("train/a.jpeg", b"\0" * 50_000_000)])
    with pytest.raises(DataError, match="times its size"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


def test_entries_and_bytes_are_capped(tmp_path, monkeypatch):
    archive = packed(tmp_path / "many.zip", [(f"{i}.jpeg", b"x") for i in range(20)])
    monkeypatch.setattr(archives, "MAXIMUM_ENTRIES", 10)
    with pytest.raises(DataError, match="20 entries"):
        archives.unpack(archive, cache_dir=tmp_path / "c")
    monkeypatch.setattr(archives, "MAXIMUM_ENTRIES", 100)
    monkeypatch.setattr(archives, "MAXIMUM_BYTES", 10)
    with pytest.raises(DataError, match="at most"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    archive = packed(tmp_path / "a.zip", [("train/a.jpeg", b"abc" * 1000)])
    content = bytearray(archive.read_bytes())
    start = content.rindex(b"PK\1\2")
    content[start + 24 : start + 28] = (5).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        archives.unpack(archive, cache_dir=tmp_path / "c")
    assert list((tmp_path / "c" / "unpacked").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x1f\x8b tar"])
def test_what_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "films.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"films\.tar\.gz is not a zip archive"):
        archives.unpack(path, cache_dir=tmp_path / "c")


def test_a_damaged_zip_leaves_nothing(films, tmp_path):
    content = bytearray(films.read_bytes())
    content[60] ^= 0xFF
    films.write_bytes(content)
    with pytest.raises(DataError, match="get it again"):
        archives.unpack(films, cache_dir=tmp_path / "c")
    assert list((tmp_path / "c" / "unpacked").iterdir()) == []


def test_a_zip_of_a_folder_reads_like_the_folder(tmp_path):
    import shutil

    make(tmp_path / "a" / "chest_xray")
    zipped = shutil.make_archive(str(tmp_path / "films"), "zip", tmp_path / "a")
    unpacked = archives.unpack(tmp_path / zipped, cache_dir=tmp_path / "c")
    assert folder.scan(unpacked).files.equals(folder.scan(tmp_path / "a").files)

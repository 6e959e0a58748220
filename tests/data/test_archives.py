import gzip
import io
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from folders import LAYOUT, make

from cxr_helpers.data import archives, layouts
from cxr_helpers.system import files
from cxr_helpers.system.errors import DataError


def packed(path, members):
    """Write an archive of the type of its suffix."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


KINDS = ["images.zip", "images.tar", "images.tar.gz", "images.tgz"]


@pytest.fixture(params=KINDS)
def images(request, tmp_path):
    """Return an archive of images with a nested second copy, as Kaggle's, and clutter of macOS."""
    members = [
        (f"{above}{place}/{name}", b"x")
        for above in ("chest_xray/", "chest_xray/chest_xray/", "__MACOSX/chest_xray/")
        for place, names in LAYOUT.items()
        for name in names
    ]
    return packed(tmp_path / request.param, [*members, ("chest_xray/read me.txt", b"x")])


def test_nested_copy_is_ignored_after_unpacking(images, tmp_path):
    found = layouts.scan(archives.unpack(images, cache_dir=tmp_path / "c"))
    assert len(found.files) == sum(map(len, LAYOUT.values()))


def test_only_images_are_unpacked(images, tmp_path):
    root = archives.unpack(images, cache_dir=tmp_path / "c")
    assert {p.suffix for p in root.rglob("*") if p.is_file()} == {".jpeg"}
    assert not (root / "__MACOSX").exists()


def test_unpacked_folder_is_reused(images, tmp_path, monkeypatch):
    first = archives.unpack(images, cache_dir=tmp_path / "c")
    monkeypatch.setattr(archives, "_safe_parts", None)
    assert archives.unpack(images, cache_dir=tmp_path / "c") == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["../x.jpeg", "a/../../x.jpeg", "/x.jpeg", "C:\\x.jpeg", "a\\..\\x"]
)
def test_path_traversal_is_refused(tmp_path, kind, name):
    archive = packed(tmp_path / kind, [("train/a.jpeg", b"x"), (name, b"x")])
    with pytest.raises(DataError, match=rf"{kind} holds .* leads outside"):
        archives.unpack(archive, cache_dir=tmp_path / "c" / "d")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [kind]


def test_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("train/a.jpeg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = packed(tmp_path / "evil.zip", [(link, "/etc/passwd")])
    with pytest.raises(DataError, match="holds the link"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


@pytest.mark.parametrize("kind", ["images.tar", "images.tgz"])
@pytest.mark.parametrize(
    "what", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_link_or_device_in_a_tar_is_refused(tmp_path, kind, what):
    with tarfile.open(tmp_path / kind, "w:" if kind == "images.tar" else "w:gz") as archive:
        member = tarfile.TarInfo("train/a.jpeg")
        member.type, member.linkname = what, "../../../etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="holds the link or device 'train"):
        archives.unpack(tmp_path / kind, cache_dir=tmp_path / "c")
    assert list((tmp_path / "c" / "unpacked").iterdir()) == []


@pytest.mark.parametrize("kind", ["images.zip", "images.tgz"])
def test_bomb_is_refused_before_unpacking(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "_copy", None)
    archive = packed(tmp_path / kind, [("train/a.jpeg", b"\0" * 50_000_000)])
    with pytest.raises(DataError, match="more than 100 times its size"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


def test_oversized_tar_header_is_refused(tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w:") as archive:
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, archives.MAXIMUM_HEADER + 1
        archive.addfile(header, io.BytesIO(bytes(header.size)))
    with pytest.raises(DataError, match="a header of 1,048,577 bytes"):
        archives.unpack(tmp_path / "images.tar", cache_dir=tmp_path / "c")


def test_bytes_after_the_end_of_a_tar_are_limited(tmp_path):
    plain = packed(tmp_path / "images.tar", [("train/a.jpeg", b"x")]).read_bytes()
    with gzip.open(tmp_path / "images.tgz", "wb") as file:
        file.write(plain + bytes(20_000_000))
    with pytest.raises(DataError, match="more than 100 times its size"):
        archives.unpack(tmp_path / "images.tgz", cache_dir=tmp_path / "c")


@pytest.mark.parametrize("kind", KINDS)
def test_number_of_entries_and_bytes_are_limited(tmp_path, monkeypatch, kind):
    archive = packed(tmp_path / kind, [(f"{i}.jpeg", b"x") for i in range(20)])
    monkeypatch.setattr(archives, "MAXIMUM_ENTRIES", 10)
    with pytest.raises(DataError, match="more than 10 entries"):
        archives.unpack(archive, cache_dir=tmp_path / "c")
    monkeypatch.setattr(archives, "MAXIMUM_ENTRIES", 20)
    monkeypatch.setattr(archives, "MAXIMUM_BYTES", 10)
    with pytest.raises(DataError, match="more than 20 entries or 0 GiB"):
        archives.unpack(archive, cache_dir=tmp_path / "c")
    monkeypatch.setattr(archives, "MAXIMUM_BYTES", 20)
    assert len(list(archives.unpack(archive, cache_dir=tmp_path / "c").iterdir())) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_name_of_a_file_and_a_folder_is_refused(tmp_path, kind):
    archive = packed(tmp_path / kind, [("a.jpeg", b"x"), ("a.jpeg/b.jpeg", b"x")])
    with pytest.raises(DataError, match="as a file and as a folder"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


def test_encrypted_zip_is_refused_with_advice_to_unpack(tmp_path):
    archive = packed(tmp_path / "a.zip", [("train/a.jpeg", b"abc")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"encrypted.*: unpack it, and give the folder"):
        archives.unpack(archive, cache_dir=tmp_path / "c")


def test_member_with_a_false_size_is_refused(tmp_path):
    archive = packed(tmp_path / "a.zip", [("train/a.jpeg", b"abc" * 1000)])
    content = bytearray(archive.read_bytes())
    start = content.rindex(b"PK\1\2")
    content[start + 24 : start + 28] = (5).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        archives.unpack(archive, cache_dir=tmp_path / "c")
    assert list((tmp_path / "c" / "unpacked").iterdir()) == []


def test_damaged_archive_is_refused_and_leaves_no_files(images, tmp_path):
    if images.suffix == ".tar":
        pytest.skip("a tar has no checksum of its files")
    content = bytearray(images.read_bytes())
    content[60] ^= 0xFF
    images.write_bytes(content)
    with pytest.raises(DataError, match="download it again"):
        archives.unpack(images, cache_dir=tmp_path / "c")
    assert not list((tmp_path / "c").glob("unpacked/*"))


@pytest.mark.parametrize("fault", ["name", "long name", "bzip2"])
def test_damaged_or_foreign_zip_is_refused(tmp_path, fault):
    path = tmp_path / "images.zip"
    name = "n" * 300 if fault == "long name" else "é"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(f"{name}.png", bytes(1000))
    content = path.read_bytes()
    if fault == "name":
        content = content.replace("é".encode(), b"\xc3\xc3")
    elif fault == "bzip2":
        content = content.replace(b"BZh9", b"BZh0")
    path.write_bytes(content)
    kind = DataError if fault == "long name" else archives.Damaged
    with pytest.raises(DataError, match=r"^images\.zip cannot be unpacked") as error:
        archives.unpack(path, cache_dir=tmp_path / "c")
    assert type(error.value) is kind


def test_truncated_archive_is_refused(images, tmp_path):
    """Also at the end of a member, where a tar looks complete."""
    content = images.read_bytes()
    half = len(content) // 2
    for length in (1, half, half // 512 * 512):
        images.write_bytes(content[:length])
        with pytest.raises(
            DataError, match=rf"^{images.name} .*download it again|^{images.name} is text"
        ):
            archives.unpack(images, cache_dir=tmp_path / "c")
    assert not list((tmp_path / "c").glob("unpacked/*"))


def test_unpacked_folder_has_the_name_of_the_archive(images, tmp_path):
    assert archives.unpack(images, cache_dir=tmp_path / "c").name == "images"


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a b.zip", "a b"), ("x.tar.GZ", "x"), ("x.y.tar", "x.y"), ("x", "x"), ("x.7", "x.7")],
)
def test_stem_drops_the_suffixes_of_archives(name, stem):
    assert archives.stem(Path(name)) == stem


def test_leftovers_of_dead_processes_are_removed(tmp_path, images):
    place = tmp_path / "c" / "unpacked"
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        names = [".unpacking-x", f"{files.PARTIAL}999999999-x", f"{files.PARTIAL}{alive.pid}-x"]
        for name in names:
            (place / name / "images").mkdir(parents=True)
        archives.unpack(images, cache_dir=tmp_path / "c")
        left = [path.name for path in place.iterdir() if path.name.startswith(".")]
        assert left == names[2:]
    finally:
        alive.communicate()


@pytest.mark.parametrize("system", ["here", "windows"])
def test_archive_with_its_folder_as_first_member_is_unpacked(tmp_path, request, system):
    """As by ``tar -czf images.tgz .``, whose first member is the folder itself."""
    if system == "windows":
        request.getfixturevalue("windows")
    make(tmp_path / "a")
    with tarfile.open(tmp_path / "images.tgz", "w:gz") as archive:
        archive.add(tmp_path / "a", arcname=".")
    unpacked = archives.unpack(tmp_path / "images.tgz", cache_dir=tmp_path / "c")
    assert layouts.scan(unpacked).files.equals(layouts.scan(tmp_path / "a").files)


def test_zip_of_a_folder_is_read_like_the_folder(tmp_path):
    import shutil

    make(tmp_path / "a" / "chest_xray")
    zipped = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "a")
    unpacked = archives.unpack(tmp_path / zipped, cache_dir=tmp_path / "c")
    assert layouts.scan(unpacked).files.equals(layouts.scan(tmp_path / "a").files)


@pytest.mark.usefixtures("windows")
def test_archive_is_unpacked_where_open_files_are_locked(images, tmp_path):
    root = archives.unpack(images, cache_dir=tmp_path / "c")
    assert len(layouts.scan(root).files) == sum(map(len, LAYOUT.values()))
    assert [path.name for path in (tmp_path / "c" / archives.UNPACKED).iterdir()] == [
        root.parent.name
    ]


@pytest.mark.parametrize("name", ["train/NORMAL/con.jpeg", "aux/a.png", "train/a?.png"])
def test_name_that_windows_cannot_store_is_refused_there(tmp_path, request, name):
    """Written there, con.jpeg would go to the console."""
    archive = packed(tmp_path / "x.zip", [(name, b"x"), ("aux.txt", b"x")])
    assert (archives.unpack(archive, cache_dir=tmp_path / "c") / name).is_file()
    request.getfixturevalue("windows")
    with pytest.raises(DataError, match="a name that Windows cannot store: unpack it elsewhere"):
        archives.unpack(archive, cache_dir=tmp_path / "d")

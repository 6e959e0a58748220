import gzip
import subprocess
import sys
import zipfile

import pytest
from machine import ROOT, powerless

from cxr_helpers.data import file_types
from cxr_helpers.system.errors import DataError

ADVICE = "give a folder of images, or a .zip, .tar or .tar.gz of one"


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b"", "is empty: download it again"),
        (b"PK\3\4" + bytes(100), "is a zip archive whose end is missing"),
        (b"\x1f\x8b tar", "is a file compressed by gzip whose end is missing"),
        (gzip.compress(b"a,b\n1,2\n" * 100, mtime=0), "is one file compressed by gzip, not a tar"),
        (gzip.compress(b"x" * 5000, mtime=0)[:-20], "is "),
        (b"7z\xbc\xaf\x27\x1c...", "is a 7z archive: unpack it, and give the folder"),
        (b"\xff\xd8\xff\xe0" + bytes(100), f"is a single JPEG image: {ADVICE}"),
        (b"\x89PNG\r\n", "is a single PNG image"),
        (bytes(128) + b"DICM", "is a single DICOM image"),
        (b"file,label\na.jpeg,normal\n", f"is text, such as a CSV table: {ADVICE}"),
        ("Größe;Maß\n".encode() * 100, "is text, such as a CSV table"),
        (b"  \n<!DOCTYPE html>", "is a web page or XML"),
        (b"\x00\x01\x02\x03" * 200, "is not an archive"),
        (bytes(1024), "is not an archive"),
    ],
)
def test_refusal_names_the_type_of_the_file(tmp_path, content, description):
    path = tmp_path / "images.zip"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        file_types.archive_kind(path)
    assert str(error.value).startswith(f"images.zip {description}")


def test_self_extracting_zip_is_a_zip(tmp_path):
    with open(tmp_path / "images.exe", "wb") as file:
        file.write(b"MZ" + bytes(1000))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("x", "y")
    assert file_types.archive_kind(tmp_path / "images.exe") == file_types.ZIP


def test_file_without_permission_is_refused_as_such(tmp_path):
    path = tmp_path / "images.zip"
    path.write_bytes(b"x")
    path.chmod(0)
    code = "import sys; from pathlib import Path; from cxr_helpers.data import file_types; "
    code += "file_types.archive_kind(Path(sys.argv[1]))"
    command = [*powerless(), sys.executable, "-c", code, path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "images.zip cannot be read: change its permissions" in done.stderr

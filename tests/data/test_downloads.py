"""Downloads from a local server, which fails on demand."""

import gc
import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from cxr_helpers.data import downloads
from cxr_helpers.system import files
from cxr_helpers.system.errors import DataError

# interrupted transfers leave sockets to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def zipped(size):
    """Return a zip of exactly ``size`` bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("chest_xray/train/NORMAL/IM-0001-0001.jpeg", b"x" * 100)
        archive.comment = b"."
    missing = size - len(content.getvalue())
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = b"." * (missing + 1)
    assert len(content.getvalue()) == size
    return content.getvalue()


CONTENT = zipped(60_000)


def zipped_masks():
    """Return a zip as GitHub writes it, with two masks among other files."""
    content, root = io.BytesIO(), f"covid-19-xray-dataset-{downloads.V7_COMMIT}"
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("1.png", "2.png"):
            archive.writestr(f"{root}/{downloads.V7_FOLDER}/{name}", f"mask {name}")
        archive.writestr(f"{root}/README.md", "not a mask")
        archive.writestr(f"{root}/images/1.png", "not a mask")
    return content.getvalue()


MASKS = zipped_masks()
MASK_DIGESTS = sorted(hashlib.sha256(f"mask {n}.png".encode()).hexdigest() for n in (1, 2))
FINGERPRINT = hashlib.sha256("\n".join(MASK_DIGESTS).encode()).hexdigest()


@pytest.fixture
def server():
    """Serve CONTENT at /good, faulty responses at other paths; record requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            body = {
                "/html": b"<html>please log in</html>",
                "/short": zipped(30_000),
                "/noise": b"x" * len(CONTENT),
                "/v7": MASKS,
            }.get(self.path, CONTENT)
            if self.path == "/error":
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path == "/cut":
                self.wfile.write(body[: len(body) // 2])
                return
            if self.path == "/stall":
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.server.stalled.set()
                time.sleep(30)
                return
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.stalled = [], threading.Event()
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    gc.collect()  # within this test, which expects the warnings of sockets


def fetch(server, cache, path="/good"):
    return downloads.mendeley(cache_dir=cache, url=server.url + path, size=len(CONTENT))


def names(cache):
    return sorted(p.name for p in (cache / "downloads").iterdir())


def test_download_is_cached(server, tmp_path):
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert fetch(server, tmp_path).name == "ChestXRay2017.zip"
    assert server.requests == ["/good"] and names(tmp_path) == ["ChestXRay2017.zip"]


@pytest.mark.parametrize("path", ["/cut", "/short", "/html", "/noise", "/error"])
def test_faulty_download_is_refused_and_removed(server, tmp_path, path):
    with pytest.raises(DataError) as error:
        fetch(server, tmp_path, path)
    message = str(error.value)
    assert "\n" not in message and "10.17632/rscbjbr9sj.2" in message and "by hand" in message
    assert names(tmp_path) == []
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_truncated_copy_on_disk_is_replaced(server, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "ChestXRay2017.zip").write_bytes(CONTENT[:100])
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_download_starts_again_after_a_kill(server, tmp_path):
    code = (
        "import sys; from cxr_helpers.data import downloads; "
        "downloads.mendeley(cache_dir=sys.argv[1], url=sys.argv[2], size=int(sys.argv[3]))"
    )
    arguments = [str(tmp_path), f"{server.url}/stall", str(len(CONTENT))]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(downloads.__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    assert server.stalled.wait(30)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert [name[:9] for name in names(tmp_path)] == [files.PARTIAL]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["ChestXRay2017.zip"]


def test_refusal_without_network_names_the_remedy(tmp_path):
    with pytest.raises(DataError) as error:
        downloads.mendeley(cache_dir=tmp_path, url="http://127.0.0.1:9/x", size=1)
    assert "--data phantom needs no network" in str(error.value)
    assert "Traceback" not in str(error.value) and "\n" not in str(error.value)


def test_kaggle_refusal_without_network_names_the_remedy(monkeypatch):
    kagglehub = pytest.importorskip("kagglehub")

    def refuse(handle):
        raise ConnectionError("Max retries exceeded\nwith url")

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(DataError) as error:
        downloads.kaggle()
    message = str(error.value)
    assert (
        "(Max retries exceeded)" in message and "by hand" in message and "--data phantom" in message
    )


def test_cached_kaggle_copy_is_found_without_network(tmp_path, monkeypatch):
    pytest.importorskip("kagglehub")
    handle = tmp_path / "datasets" / "paultimothymooney" / "chest-xray-pneumonia"
    (handle / "versions" / "2" / "chest_xray").mkdir(parents=True)
    (handle / "2.complete").touch()
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", None)
    assert downloads.kaggle() == handle / "versions" / "2"


def test_version_of_the_kaggle_dataset_is_pinned():
    assert downloads.KAGGLE_HANDLE.endswith("/versions/2")


def test_lung_masks_are_downloaded_once_and_nothing_else_is_kept(server, tmp_path):
    options = {"cache_dir": tmp_path, "url": f"{server.url}/v7", "fingerprint": FINGERPRINT}
    folder = downloads.v7_lung_masks(**options)
    assert sorted(path.name for path in folder.iterdir()) == ["1.png", "2.png"]
    assert downloads.v7_lung_masks(**options) == folder and len(server.requests) == 1
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/error", "lung_masks=v7 could not be downloaded"),
        ("/html", "lung_masks=v7 could not be downloaded"),
        ("/cut", "lung_masks=v7 could not be downloaded"),
        ("/v7", "holds 2 masks that are not the expected ones"),
    ],
)
def test_failed_download_of_lung_masks_leaves_nothing_and_says_what_to_do(
    server, tmp_path, path, message
):
    with pytest.raises(DataError, match=message) as error:
        downloads.v7_lung_masks(cache_dir=tmp_path, url=server.url + path)
    assert "\n" not in str(error.value) and downloads.V7_PAGE in str(error.value)
    assert list((tmp_path / "downloads").iterdir()) == []

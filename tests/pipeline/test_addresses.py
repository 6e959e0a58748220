"""Which schedulers are connected to, and how. No connection is made."""

import json
from pathlib import Path

import pytest

from cxr_helpers.pipeline import addresses
from cxr_helpers.system.errors import Refused


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("tls://node1:8786", "tls://node1:8786"),
        ("node1:8786", "tcp://node1:8786"),
        ("[::1]:8786", "tcp://[::1]:8786"),
    ],
)
def test_address_is_found(named, address):
    assert addresses.find(named) == address


def test_address_is_read_from_the_file_of_the_scheduler(tmp_path):
    path = tmp_path / "dask.json"
    path.write_text(json.dumps({"type": "Scheduler", "address": "tcp://127.0.0.1:9"}))
    assert addresses.find(str(path)) == "tcp://127.0.0.1:9"


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"address": 3}'])
def test_missing_or_damaged_scheduler_file_is_refused(tmp_path, content):
    path = tmp_path / "dask.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Refused, match="dask scheduler --scheduler-file") as error:
        addresses.find(str(path))
    assert error.value.code == 2


@pytest.mark.parametrize(
    "named", ["node1", "http://node1:80", "node1:port", "tcp://:8786", "tcp://"]
)
def test_text_that_is_no_address_is_refused(named):
    with pytest.raises(Refused, match="expected a scheduler file, or an address") as error:
        addresses.find(named)
    assert error.value.code == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_plain_tcp_on_the_loopback_is_allowed(host):
    assert addresses.security(f"tcp://{host}:8786", tls=(), plain_tcp=False) is None


@pytest.mark.parametrize("host", ["10.0.0.5", "node1", "0.0.0.0", "localhost.example.org"])
def test_plain_tcp_to_other_machines_needs_the_flag(host):
    with pytest.raises(Refused, match=r"is plain TCP, .* --plain-tcp") as error:
        addresses.security(f"tcp://{host}:8786", tls=(), plain_tcp=False)
    assert error.value.code == 2
    assert addresses.security(f"tcp://{host}:8786", tls=(), plain_tcp=True) is None


def test_tls_takes_three_files_that_exist(tmp_path):
    names = [str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    for name in names[:2]:
        Path(name).touch()
    with pytest.raises(Refused, match=r"--tls .*key\.pem: no such file"):
        addresses.security("tls://node1:8786", tls=names, plain_tcp=False)
    Path(names[2]).touch()
    found = addresses.security("tls://node1:8786", tls=names, plain_tcp=False)
    assert [found.tls_ca_file, found.tls_client_cert, found.tls_client_key] == names


def test_tls_without_files_is_refused():
    with pytest.raises(Refused, match="give --tls CA CERTIFICATE KEY"):
        addresses.security("tls://node1:8786", tls=(), plain_tcp=True)

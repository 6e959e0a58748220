"""The address of a Dask scheduler, and whether a connection to it is safe.

Dask's workers run what the scheduler sends them: without TLS, everyone who reaches the scheduler's
port can run programs as the user who started it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxr_helpers.system import files
from cxr_helpers.system.errors import Refused

if TYPE_CHECKING:
    import distributed

USAGE = 2  # exit code


def find(named: str) -> str:
    """Return the address that ``--cluster`` names, such as ``"tcp://127.0.0.1:8786"``.

    Parameters
    ----------
    named : str
        An address with or without ``tcp://`` or ``tls://``, or the path of a scheduler file.

    Raises
    ------
    Refused
        With exit code 2 where it is neither.
    """
    path = Path(named)
    if "://" not in named and (path.suffix == ".json" or path.exists()):
        address = (files.read_json(path) or {}).get("address") if path.is_file() else None
        if not isinstance(address, str):
            raise Refused(
                USAGE,
                f"--cluster {named}: no such scheduler file: start "
                f"`dask scheduler --scheduler-file {named}` first",
            )
        named = address
    address = named if "://" in named else f"tcp://{named}"
    parts = urlsplit(address)
    try:
        complete = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:  # the port is no number
        complete = False
    if not complete:
        raise Refused(
            USAGE,
            f"--cluster {named}: expected a scheduler file, or an address such as tls://node1:8786",
        )
    return address


def security(address: str, *, tls: Sequence[str], plain_tcp: bool) -> distributed.Security | None:
    """Return how to connect to an address; None for the loopback without TLS.

    Parameters
    ----------
    address : str
        From ``find``.
    tls : sequence of str
        Files of certificate authority, certificate and key; those of Dask's own configuration
        where it is empty.
    plain_tcp : bool
        Whether a connection to another machine may do without TLS.

    Raises
    ------
    Refused
        With exit code 2 where a file is missing, or the connection would not be safe.
    """
    import distributed

    for name in tls:
        if not Path(name).is_file():
            raise Refused(USAGE, f"--tls {name}: no such file")
    keys = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    own = distributed.Security(**dict(zip(keys, tls, strict=False)))
    if address.startswith("tls://"):
        if not own.tls_ca_file or not own.tls_client_cert:
            raise Refused(USAGE, f"--cluster {address}: give --tls CA CERTIFICATE KEY")
        return own
    if not plain_tcp and not _is_loopback(urlsplit(address).hostname):
        raise Refused(
            USAGE,
            f"--cluster {address} is plain TCP, through which others on the network could run "
            "programs as you: start scheduler and workers with TLS (docs/cluster.md), or give "
            "--plain-tcp",
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

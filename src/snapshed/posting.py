"""The one way out: posts a body to an address somebody gave us. Follows no redirect, uses no proxy, and reads no more of
an answer than its status.

A name is resolved once, each of its addresses is looked at, and the connection goes to the very address that was looked
at: a name that changes its mind in between reaches nothing it should not.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from snapshed.domain import webhooks

_SECONDS = 10.0
"""For everything together: a receiver that answers byte by byte is cut off as well."""


class Failed(Exception):
    """It was not taken; the word says why, and holds nothing the receiver said."""


def post(url: str, headers: Mapping[str, str], body: bytes, *, only_public: bool) -> None:
    """Post; raises Failed unless the receiver answers with a status of success."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with _connected(_address_of(host, port, only_public=only_public), port) as plain:
            cut = threading.Timer(_SECONDS, _end, [plain])
            cut.daemon = True
            cut.start()
            try:
                status = _exchange(plain, url, headers, body)
            finally:
                cut.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed("late" if isinstance(error, TimeoutError) else "unreachable") from None
    if not 200 <= status < 300:
        raise Failed(f"status {status}")


def _address_of(host: str, port: int, *, only_public: bool) -> str:
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    allowed = [one for one in found if not only_public or webhooks.is_public(one)]
    if not allowed:
        raise Failed("address not public")
    return allowed[0]


def _connected(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=_SECONDS)


def _end(plain: socket.socket) -> None:
    try:
        plain.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already


def _exchange(plain: socket.socket, url: str, headers: Mapping[str, str], body: bytes) -> int:
    parts = urlsplit(url)
    host = parts.hostname or ""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_secure = parts.scheme == "https"
    connection = http.client.HTTPConnection(host, timeout=_SECONDS)
    # Given its socket, it neither resolves nor connects again.
    connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if is_secure else plain
    connection.request("POST", target, body, {"host": parts.netloc, **headers, "connection": "close"})
    return connection.getresponse().status

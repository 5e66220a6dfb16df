"""Webhooks: what is told, how it is signed, and which network addresses may be told. Pure."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal
from urllib.parse import urlsplit

from snapshed.errors import Invalid

Event = Literal["comparison.finished", "review.decided", "deletion.completed"]
EVENTS: tuple[Event, ...] = ("comparison.finished", "review.decided", "deletion.completed")

_MOST_URL = 2000
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""Addresses that a gateway turns into the IPv4 address in their last four bytes."""


def check_url(url: str) -> None:
    """Raise Invalid for an address nothing can be posted to. Whether it is public is asked each time it is posted to."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
        parts = urlsplit("")
    if not fits or not url.isascii() or not url.isprintable() or " " in url or len(url) > _MOST_URL:
        raise Invalid("A webhook needs an absolute address of printable ASCII, such as https://ci.example.com/hook.")
    if "@" in parts.netloc or parts.fragment:
        raise Invalid("A webhook's address carries no user, password or fragment; its secret signs what is sent.")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the whole internet: not private, loopback, link-local, multicast or reserved, and
    no wrapping of such a one.

    >>> [is_public(one) for one in ("93.184.216.34", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::7f00:1")]
    [True, False, False, False, False]
    """
    found = ip_address(address.partition("%")[0])
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in (found, *_inside(found)))


def _inside(found: IPv4Address | IPv6Address) -> list[IPv4Address]:
    if isinstance(found, IPv4Address):
        return []
    if found.ipv4_mapped is not None:
        return [found.ipv4_mapped]
    if found.sixtofour is not None:
        return [found.sixtofour]
    if found.teredo is not None:
        return list(found.teredo)
    return [IPv4Address(int(found) & 0xFFFFFFFF)] if found in _TRANSLATED else []


def signature(secret: str, at: datetime, body: bytes) -> str:
    """What stands in the header `snapshed-signature`: when it was signed, and an HMAC-SHA256 over that, a dot, and the
    body. A receiver that refuses old times cannot be told the same thing again by somebody who listened."""
    moment = str(int(at.timestamp()))
    mac = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={mac}"

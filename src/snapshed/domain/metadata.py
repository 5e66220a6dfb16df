"""The headers that describe an object: read when it is sent, shown when it is asked for. Pure.

Free texts are kept and shown exactly as they were sent; they are decoded only to name a file to save.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import quote, unquote

from snapshed.domain import durations
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid

Policy = Literal["ttl", "tti"]

MOST = 8192
"""Bytes of all headers that describe one object."""

DEFAULT_TYPE = "application/octet-stream"
CUSTOM = "x-snme-"
_EXPIRATION = "x-sn-expiration"
_FREE = ("x-sn-origin", "x-sn-filename")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  the grammar's word for a name
_PARAMETER = rf'\s*;\s*{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:{_PARAMETER})*\s*;?")
_NAME = re.compile(_TOKEN)

_SLACK = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Expiration:
    """`ttl`: a lifetime from the object's creation. `tti`: a lifetime from its last reading."""

    policy: Policy
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Described:
    """What a client said about an object: headers by lower-case name, and when it expires, if ever."""

    headers: dict[str, str]
    expiration: Expiration | None


def read(headers: Mapping[str, str]) -> Described:
    """Take out of a request's headers, named in lower case, what describes an object. Raises Invalid, naming the
    header."""
    kept: dict[str, str] = {}
    if (media_type := headers.get("content-type")) is not None:
        if len(media_type) > 255 or not _MEDIA_TYPE.fullmatch(media_type):
            raise Invalid("The header content-type needs a media type such as image/png.")
        kept["content-type"] = _text("content-type", media_type)
    if encoding := headers.get("content-encoding"):
        if encoding.lower() != "zstd":
            raise Invalid("The header content-encoding may only be zstd; leave it out for bytes as they are.")
        kept["content-encoding"] = "zstd"
    for name, value in headers.items():
        if name in _FREE or name.startswith(CUSTOM):
            if not _NAME.fullmatch(name) or name == CUSTOM:
                raise Invalid(f"The header {CUSTOM} needs a name after it, of letters, digits, - and _.")
            kept[name] = _text(name, value)
    sizes = {name: len(name) + len(value) for name, value in kept.items()}
    if sum(sizes.values()) > MOST:
        largest = max(sizes, key=lambda name: sizes[name])
        raise Invalid(
            f"The headers that describe the object are larger than {MOST} bytes together; the largest is {largest[:80]}."
        )
    return Described(kept, expiration(headers.get(_EXPIRATION, "manual")))


def _text(name: str, value: str) -> str:
    try:
        unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise Invalid(f"The header {name} is percent-encoded, but not as UTF-8.") from None
    if not all(" " <= letter <= "~" for letter in value):
        raise Invalid(f"The header {name} may hold visible ASCII only; percent-encode everything else.")
    return value


def expiration(text: str) -> Expiration | None:
    """`ttl:30d`, `tti:1h`, or None for `manual`. Raises Invalid."""
    policy, _, length = text.partition(":")
    if text == "manual":
        return None
    if policy not in ("ttl", "tti"):
        raise Invalid(f"The header {_EXPIRATION} needs to be manual, ttl:30d or tti:30d.")
    try:
        return Expiration("ttl" if policy == "ttl" else "tti", durations.parse(length))
    except ValueError as problem:
        raise Invalid(f"The length of time in {_EXPIRATION} needs to be {problem}.") from None


def shown(described: Described, size: int, created_at: datetime, expires_at: datetime | None) -> dict[str, str]:
    """The headers that tell of a stored object of `size` bytes."""
    headers = {"content-type": DEFAULT_TYPE, **described.headers}
    headers["x-sn-time-created"] = moment(created_at) or ""
    headers["x-sn-size"] = str(size)
    if described.expiration is not None:
        length = durations.written(described.expiration.lifetime)
        headers[_EXPIRATION] = f"{described.expiration.policy}:{length}"
        headers["x-sn-time-expires"] = moment(expires_at) or ""
    return headers


def disposition(described: Described) -> str | None:
    """How a browser is told to save the object under its name; None if it has none."""
    sent = described.headers.get("x-sn-filename")
    if sent is None:
        return None
    name = "".join("-" if letter in "/\\" or not letter.isprintable() else letter for letter in unquote(sent))
    if not name.strip("."):
        name = "-" * len(name)
    plain = "".join(letter if letter.isascii() else "_" for letter in name).replace('"', r"\"")
    extended = "" if name.isascii() else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def is_worth_extending(lifetime: timedelta, expires_at: datetime, now: datetime) -> bool:
    """Whether a reading pushes the end of a `tti` object: not more often than each quarter of its lifetime or day,
    whichever is shorter, so that popular objects are not written to at every reading."""
    return expires_at < now + lifetime - min(lifetime / 4, _SLACK)

"""Every setting there is: its variable, its default and a sentence of help, read once at start.

Nothing else reads the environment, and no module holds settings as a global.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from snapshed.errors import Invalid

SESSION_MOST = timedelta(hours=6)
"""An upload session never lives longer than this in all, however busy it is."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_STORE_SCHEMES = ("file", "s3", "gs", "az")


class Secret(str):
    """Text that never shows itself in a log, an error or a `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _setting(variable: str, read: Callable[[str], object], default: object, help: str) -> Any:  # noqa: ANN401
    # `Any` is what lets one helper stand behind fields of several types, as `dataclasses.field` itself does.
    return field(default=default, metadata={"variable": variable, "read": read, "help": help})


def duration(text: str) -> timedelta:
    """`300s`, `1h`, `1.5m`, `2d`: a positive, finite length of time. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError("needs a number and a unit, such as 300s, 5m or 1h")
    seconds = float(match[1]) * _UNITS[match[2]]
    if not math.isfinite(seconds) or not 0 < seconds <= 366 * 86400:
        raise ValueError("must be longer than nothing and at most 366d")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """`256 MiB`, `1GB`, `1048576`: a positive number of bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].upper() not in _SIZES or int(match[1]) == 0:
        raise ValueError("needs a whole number and a unit, such as 256 MiB")
    return int(match[1]) * _SIZES[match[2].upper()]


def _session_ttl(text: str) -> timedelta:
    ttl = duration(text)
    if ttl > SESSION_MOST:
        raise ValueError("may be at most 6h, the longest an upload session lives")
    return ttl


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("needs an absolute address, such as https://snapshots.example.com")
    return text.rstrip("/")


def _database_url(text: str) -> Secret:
    if not re.match(r"postgres(ql)?://", text):
        raise ValueError("needs postgresql://user@host/database")
    return Secret(text)


def _store_url(text: str) -> str:
    if urlsplit(text).scheme not in _STORE_SCHEMES:
        raise ValueError("needs file:///…, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
    return text.rstrip("/")


def _webhook_targets(text: str) -> str:
    if text not in ("public", "any"):
        raise ValueError("must be public or any")
    return text


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decides. All durations are `timedelta`, all sizes are bytes."""

    data: Path = _setting(
        "SNAPSHED_DATA", Path, Path("snapshed-data"), "Folder of the embedded database, objects and scratch space."
    )
    database_url: Secret | None = _setting(
        "SNAPSHED_DATABASE_URL", _database_url, None, "PostgreSQL 15 or newer; without it one is embedded under DIR."
    )
    store_url: str | None = _setting(
        "SNAPSHED_STORE_URL", _store_url, None, "Where objects are kept; without it, DIR/objects."
    )
    store_endpoint: str | None = _setting(
        "SNAPSHED_STORE_ENDPOINT", _url, None, "Address of an S3-compatible server that is not Amazon's."
    )
    store_access_key_id: Secret | None = _setting(
        "SNAPSHED_STORE_ACCESS_KEY_ID", Secret, None, "Access key of the object store."
    )
    store_secret_access_key: Secret | None = _setting(
        "SNAPSHED_STORE_SECRET_ACCESS_KEY", Secret, None, "Secret key of the object store."
    )
    store_region: str | None = _setting("SNAPSHED_STORE_REGION", str, None, "Region of the object store.")
    url: str | None = _setting(
        "SNAPSHED_URL", _url, None, "Public base address; when set, requests for any other host are refused."
    )
    session_ttl: timedelta = _setting(
        "SNAPSHED_SESSION_TTL",
        _session_ttl,
        timedelta(hours=1),
        "An upload session ends this long after its last request.",
    )
    put_limit: timedelta = _setting(
        "SNAPSHED_PUT_LIMIT", duration, timedelta(seconds=300), "The longest one stored object may take to arrive."
    )
    max_file: int = _setting("SNAPSHED_MAX_FILE", size, 256 * 2**20, "The largest object, after decompression.")
    webhook_targets: str = _setting(
        "SNAPSHED_WEBHOOK_TARGETS",
        _webhook_targets,
        "public",
        "Webhooks go to `public` network addresses only, or to `any`, private and loopback ones too.",
    )
    failpoint: str | None = _setting("SNAPSHED_FAILPOINT", str, None, "Tests only: die, fail or wait at a named step.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, data: Path | None = None) -> Settings:
        """Read every variable. Raises Invalid with all problems in one sentence list, not only the first."""
        values: dict[str, object] = {}
        problems: list[str] = []
        for item in fields(cls):
            variable = cast("str", item.metadata["variable"])
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[item.name] = item.metadata["read"](text)
            except ValueError as problem:
                problems.append(f"{variable} {problem}")
        known = {cast("str", item.metadata["variable"]) for item in fields(cls)} | CLIENT_VARIABLES
        problems += [
            f"{name} is not a setting of this version"
            for name in sorted(environ)
            if name.startswith("SNAPSHED_") and name not in known
        ]
        if problems:
            raise Invalid("Settings are wrong: " + "; ".join(problems) + ".")
        if data is not None:
            values["data"] = data
        return cls(**values)  # pyright: ignore[reportArgumentType]  the readers return the fields' types


CLIENT_VARIABLES = frozenset({"SNAPSHED_TOKEN"})
"""Read by the client commands, and therefore no mistake in an operator's environment."""

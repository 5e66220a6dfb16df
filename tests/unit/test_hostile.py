"""Whatever comes in from outside either parses or is refused with a sentence; nothing else ever comes out of a parser."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshed import settings as operator
from snapshed.cli import shards as shard_flags
from snapshed.cli.http import token_facts
from snapshed.domain import build, durations, grants, key_tokens, metadata, namespaces, ranges, shards, webhooks
from snapshed.domain.key_tokens import RegisteredKey
from snapshed.errors import Invalid, SnapshedError

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PRIVATE, PUBLIC = grants.key_pair(Ed25519PrivateKey.generate())
KEY = RegisteredKey("k", PUBLIC, ["*"], ["object.read"])

TEXT = st.text() | st.from_regex(r"[0-9.]{0,25} ?[a-zµ]{0,6}") | st.from_regex(r"(https?|ftp)://[^ ]{0,40}")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _packed(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


TOKEN = (
    st.text()
    | st.tuples(JSON, JSON, st.binary(max_size=64)).map(
        lambda parts: f"{_packed(parts[0])}.{_packed(parts[1])}.{base64.urlsafe_b64encode(parts[2]).decode()}"
    )
    | JSON.map(lambda claims: f"sntrys_{base64.b64encode(json.dumps(claims).encode()).decode()}_secret")
)

PARSERS: dict[str, Callable[[str], object]] = {
    "duration of the blob API": durations.parse,
    "duration of a setting": operator.duration,
    "size of a setting": operator.size,
    "scopes": namespaces.parse_scopes,
    "pattern of scopes": namespaces.check_pattern,
    "use case": namespaces.check_use_case,
    "key": namespaces.check_key,
    "range": lambda text: ranges.parse(text, 100),
    "expiration": metadata.expiration,
    "metadata": lambda text: metadata.read({"content-type": text, "x-sn-expiration": text, f"x-snme-{text}": text}),
    "address of a webhook": webhooks.check_url,
    "group of shards": lambda text: shards.check_group(text, 1),
    "shard": lambda text: shard_flags.read(text, "key"),
    "public key": key_tokens.public_key,
    "pre-signed address": lambda text: key_tokens.read_signed("GET", text, f"os_sig={text}&{text}"),
    "facts of a build": lambda text: build.parse({"app_id": text, "file_name": text, "metadata": text}, 1, "a" * 64),
}


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS.keys())
@settings(max_examples=40, deadline=None)
@given(text=TEXT)
def test_any_text_parses_or_is_refused(parser: Callable[[str], object], text: str) -> None:
    try:
        parser(text)
    except SnapshedError:
        pass
    except ValueError as error:
        # What lengths and sizes are refused with; whoever calls them makes a sentence of it.
        if parser not in (durations.parse, operator.duration, operator.size) or type(error) is not ValueError:
            raise


@settings(max_examples=80, deadline=None)
@given(token=TOKEN)
def test_any_token_is_refused(token: str) -> None:
    """Nobody signed these; each door says no, and none of them breaks."""
    with suppress(SnapshedError):
        grants.kid_of(token)
    with pytest.raises(SnapshedError):
        grants.read_upload_token(token, PUBLIC, NOW)
    with pytest.raises(SnapshedError):
        key_tokens.read_token(token, KEY, NOW)
    with suppress(SnapshedError):  # only read for its address; the server judges the secret
        assert token_facts(token)["org"]


@settings(max_examples=60, deadline=None)
@given(first=JSON, second=JSON)
def test_any_two_parts_are_put_together_or_refused(first: Any, second: Any) -> None:
    """Each part has been parsed as a manifest by itself; what they say besides may be anything."""
    parts = {1: {"app_id": "a", "images": {}, "x": first}, 2: {"app_id": "a", "images": {}, "x": second}}
    with suppress(SnapshedError):
        whole = shards.merged({number: json.dumps(part).encode() for number, part in parts.items()})
        assert json.loads(whole)["app_id"] == "a"


def test_shards_that_are_too_much_together_are_refused() -> None:
    """No shard is too large by itself, and the whole is."""
    entry = {"content_hash": "a" * 64, "width": 8, "height": 8}
    parts = {
        shard: json.dumps(
            {"app_id": "a", "images": {f"{shard}/{number}.png": entry for number in range(25_001)}}
        ).encode()
        for shard in (1, 2)
    }
    assert shards.merged({1: parts[1]})
    with pytest.raises(Invalid, match="at most 50000"):
        shards.merged(parts)

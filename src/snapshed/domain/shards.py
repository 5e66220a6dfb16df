"""Shards: how many there are, what a group of them may be called, and how their parts of a manifest become one. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from snapshed.domain import manifest
from snapshed.errors import Conflict, Invalid

MOST = 1000
_MOST_KEY = 255


def check_group(key: str, shards: int) -> None:
    """Raise Invalid for a group that nobody may have."""
    if not 0 < len(key) <= _MOST_KEY or not key.isprintable():
        raise Invalid(f"The group must have 1 to {_MOST_KEY} printable characters.")
    if not 1 <= shards <= MOST:
        raise Invalid(f"A group has 1 to {MOST} shards.")


def check_number(number: int, shards: int) -> None:
    """Raise Invalid for a shard the group has not."""
    if not 1 <= number <= shards:
        raise Invalid(f"There is no shard {number}; this group has {shards}, counted from 1.")


def missing(arrived: Sequence[int], shards: int) -> list[int]:
    """The shards that have not arrived.

    >>> missing([1, 4], 5)
    [2, 3, 5]
    """
    return sorted(set(range(1, shards + 1)) - set(arrived))


def merged(parts: Mapping[int, bytes]) -> bytes:
    """One manifest of all the parts: their images together, and what all of them say alike about the rest. The same
    parts give the same bytes. Raises Conflict where they contradict each other, and Invalid when they are too much.

    | images of the same name         | refused, even if they are equal: a name belongs to one shard |
    | anything else that differs      | refused                                                      |
    """
    whole: dict[str, Any] | None = None
    images: dict[str, Any] = {}
    first, owner = 0, dict[str, int]()
    for number in sorted(parts):
        fields = cast("dict[str, Any]", json.loads(parts[number]))
        for name, entry in cast("dict[str, Any]", fields.pop("images")).items():
            if name in owner:
                raise Conflict(
                    f"The image {name[:80]!r} is in shard {owner[name]} and in shard {number}; take it in one."
                )
            owner[name], images[name] = number, entry
        if whole is None:
            whole, first = fields, number
        elif differing := sorted(key for key in {*whole, *fields} if whole.get(key) != fields.get(key)):
            raise Conflict(f"Shards {first} and {number} say different things about {differing[0]}; they must agree.")
    body = json.dumps({**(whole or {}), "images": images}, sort_keys=True).encode()
    manifest.parse(body)
    return body

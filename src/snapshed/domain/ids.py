"""Ids that say something: trace ids that are derived, ids of stored objects that tell their kind and time, and where
numbers begin.

The same artifact always has the same trace id, so that its trace rows can be found without remembering them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

_TRACES = UUID("6f9a6a3e-4c1b-5c0e-9d5e-2f3e51f6a0d1")
"""An arbitrary constant namespace; changing it would orphan every trace row written before."""

_KINDS = ("image", "manifest", "comparison", "mask", "thumbnail", "archive", "file")
"""Their places, from 1 on, stand in the ids of stored objects for ever: only ever add at the end."""

_VERSION_BITS, _VERSION = 0xF << 76, 8
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)


def of_kind(minted: UUID, kind: str) -> UUID:
    """The id of a stored object: as minted (UUIDv7), with its kind in the last byte, as a UUIDv8. It is part of the storage
    key, so the store can be read without a database; and since no client ever chooses one, nobody can pass an upload off
    as a manifest.

    >>> kind_of(of_kind(UUID("01890a5d-ac96-774b-bcce-b302099a8057"), "manifest"))
    'manifest'
    """
    number = (minted.int & ~_VERSION_BITS & ~0xFF) | _VERSION << 76 | _KINDS.index(kind) + 1
    return UUID(int=number)


def kind_of(blob_id: UUID) -> str | None:
    """The kind a stored object's id tells, or None for one of an earlier release, which tells none.

    >>> kind_of(UUID("01890a5d-ac96-774b-bcce-b302099a8057"))
    """
    code = blob_id.int & 0xFF
    return _KINDS[code - 1] if blob_id.version == _VERSION and 0 < code <= len(_KINDS) else None


def minted_at(minted: UUID) -> datetime:
    """When an id was minted, to the millisecond."""
    return _BEGIN + timedelta(milliseconds=minted.int >> 80)


def trace_id(artifact_id: UUID) -> UUID:
    """The id under which everything traced about an artifact is written."""
    return uuid5(_TRACES, str(artifact_id))


def first_number(epoch: int) -> int:
    """The first artifact number of an epoch: above every number an earlier epoch can have issued.

    >>> first_number(1), first_number(2)
    (1, 4294967297)
    """
    return (epoch - 1) * 2**32 + 1


def first_row(epoch: int) -> int:
    """The first id of an organization, project or token in an epoch: above those of every earlier one, and small enough
    for an advisory lock.

    >>> first_row(1), first_row(2)
    (1, 1048577)
    """
    return (epoch - 1) * 2**20 + 1

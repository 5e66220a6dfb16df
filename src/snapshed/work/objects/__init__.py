"""Objects of the general blob API: stored and replaced, read, extended and removed; whole or in parts.

An object is kept as it was received. Its bytes go at once when it is replaced or removed, and soon after it expires.
"""

from __future__ import annotations

from snapshed.work.objects.expiring import Until, expire, extend
from snapshed.work.objects.multipart import (
    MOST_PARTS,
    Completion,
    Problem,
    abort,
    begin,
    complete,
    put_part,
    stored_parts,
)
from snapshed.work.objects.reading import find, open_bytes, remove
from snapshed.work.objects.storing import NewObject, put

__all__ = [
    "MOST_PARTS",
    "Completion",
    "NewObject",
    "Problem",
    "Until",
    "abort",
    "begin",
    "complete",
    "expire",
    "extend",
    "find",
    "open_bytes",
    "put",
    "put_part",
    "remove",
    "stored_parts",
]

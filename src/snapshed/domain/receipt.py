"""Receipts: what they say, what a preview's plan is, and how they are signed and checked. Pure.

A receipt counts every object a deletion released in exactly one class, so released is always their sum.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

KINDS = ("image", "manifest", "comparison", "mask", "thumbnail", "archive")
"""The kinds every receipt counts; another kind appears in it when something of that kind was released."""

OUTCOMES: tuple[str, ...] = ("removed", "waiting", "kept_shared", "kept_pinned")

Keeps = Literal["nothing", "versions", "unknown"]
"""What a store was seen to keep of removed objects."""

_KEEPS: dict[Keeps, str] = {
    "nothing": "The store showed no sign of keeping versions of removed objects when it was last probed.",
    "versions": "The store keeps versions of removed objects (its bucket is versioned): until its own rules end them, "
    "whoever administers the bucket can bring the bytes back.",
    "unknown": "The store's own versions could not be asked about: if it keeps versions or soft-deleted objects, "
    "they are not spoken for.",
}


def meaning(keeps: Keeps) -> str:
    """What a store's habit means for what is removed, in one sentence."""
    return _KEEPS[keeps]


_RECOVERED = (
    "The database was lost while this deletion was under way, and it was taken from the store's journal: the objects "
    "counted are those that stood in its project then, and that nothing named, whichever deletion had let go of them."
)


def scope(keeps: Keeps, *, recovered: bool = False) -> list[str]:
    """What a receipt speaks for and what it does not, given what the store was seen to keep; `recovered` if the deletion
    was taken from the journal after the database was lost."""
    return [
        "Speaks for the object store, the database rows and the trace rows of this installation.",
        _KEEPS[keeps],
        "Does not speak for backups, replicas and write-ahead logs of the database, for copies made beneath the store, "
        "such as snapshots of its disk, nor for copies people downloaded.",
        *([_RECOVERED] if recovered else []),
    ]


class Counted(Protocol):
    """A number of objects of one kind in one class."""

    @property
    def kind(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def objects(self) -> int: ...
    @property
    def bytes(self) -> int: ...


def objects(tallies: Iterable[Counted]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """The `objects` and `bytes` parts of a receipt, every kind and class present."""
    counts: dict[str, dict[str, int]] = {kind: {"released": 0, **dict.fromkeys(OUTCOMES, 0)} for kind in KINDS}
    sums: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    for tally in tallies:
        counts.setdefault(tally.kind, {"released": 0, **dict.fromkeys(OUTCOMES, 0)})
        counts[tally.kind][tally.outcome] += tally.objects
        counts[tally.kind]["released"] += tally.objects
        sums[tally.outcome] += tally.bytes
    return counts, sums


def finished(counts: Mapping[str, Mapping[str, int]]) -> bool:
    """True if nothing that was released still stands without a live snapshot that names it."""
    return all(count["waiting"] == 0 and count["kept_pinned"] == 0 for count in counts.values())


def plan(artifacts: Iterable[UUID], going: Iterable[UUID]) -> str:
    """A hash of exactly what would go: the artifacts, and the blobs nothing else would keep."""
    lines = [*(f"artifact {item}" for item in sorted(artifacts)), *(f"blob {item}" for item in sorted(going))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def moment(at: datetime | None) -> str | None:
    """A time as receipts write it: RFC 3339 in UTC with `Z`."""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def canonical(receipt: Mapping[str, Any]) -> bytes:
    """The bytes a signature covers: the receipt without it, as JSON with sorted keys and no blanks (RFC 8785 for
    documents without floating-point numbers, which receipts are)."""
    signed = {key: value for key, value in receipt.items() if key != "signature"}
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(receipt: Mapping[str, Any], kid: str, private_pem: str) -> str:
    """`ed25519:{kid}:{signature in base64}`."""
    key = load_pem_private_key(private_pem.encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey)  # noqa: S101  we made it
    return f"ed25519:{kid}:{base64.b64encode(key.sign(canonical(receipt))).decode()}"


def kid_of(signature: str) -> str | None:
    """Which key a signature names, or None if it is not one of ours."""
    parts = signature.split(":")
    return parts[1] if len(parts) == 3 and parts[0] == "ed25519" else None


def is_signed_by(receipt: Mapping[str, Any], public_pem: str) -> bool:
    """True if the receipt's signature is that key's over exactly this receipt."""
    key = load_pem_public_key(public_pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        return False
    try:
        key.verify(base64.b64decode(str(receipt.get("signature", "")).rsplit(":", 1)[-1]), canonical(receipt))
    except (InvalidSignature, ValueError):
        return False
    return True

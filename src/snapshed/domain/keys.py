"""How stored objects are named. A key is minted for one upload and never issued again.

    {epoch}/{organization id}/{project id}/{sha256}.{uuid}

The prefix lets a project be listed and proven empty, the digest lets anyone check a file with `sha256sum`, and the
uuid makes a second upload of the same bytes another object, so that a late removal of one can never hit the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

SYSTEM = ".snapshed/"
"""Installation and journal live under this prefix: ids, never content."""

INSTALLATION = ".snapshed/installation.json"

MARK = ".snapshed/mark.json"
"""How far this installation has lived, as the database had it a moment before."""

RESERVE = ".snapshed/reserve"
"""On disk only: room that is given up for a journal entry when the disk is full, so that deletions can still free it."""

PROBE = ".snapshed/probe"
"""Put and removed at every start, to see whether the store keeps versions."""

JOURNAL, RECEIPTS, PROJECTS = (f"{SYSTEM}{folder}/" for folder in ("journal", "receipts", "projects"))
"""Where deletions, their signed receipts, and the names of organizations and projects are kept."""

RULES, HOLDS = (f"{SYSTEM}{folder}/" for folder in ("retention", "holds"))
"""Where the store is told of rules of projects and of holds of branches."""

_KEY = re.compile(r"(\d+)/(\d+)/(\d+)/([0-9a-f]{64})\.([0-9a-f-]{36})")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def storage_key(epoch: int, org_id: int, project_id: int, digest: str, blob_id: UUID) -> str:
    """The key of one upload.

    >>> storage_key(1, 2, 3, "ab" * 32, UUID(int=0))[:12]
    '1/2/3/ababab'
    """
    return f"{epoch}/{org_id}/{project_id}/{digest}.{blob_id}"


def digest_of(key: str) -> str | None:
    """The digest a storage key carries, or None if it is not one of our keys."""
    match = _KEY.fullmatch(key)
    return match[4] if match else None


def project_of(key: str) -> int | None:
    """The project id a storage key carries, or None if it is not one of our keys."""
    match = _KEY.fullmatch(key)
    return int(match[3]) if match else None


def epoch_of(key: str) -> int | None:
    """The epoch a storage key carries, or None if it is not one of our keys."""
    match = _KEY.fullmatch(key)
    return int(match[1]) if match else None


def org_of(key: str) -> int | None:
    """The organization id a storage key carries, or None if it is not one of our keys."""
    match = _KEY.fullmatch(key)
    return int(match[2]) if match else None


@dataclass(frozen=True, slots=True)
class Place:
    """What a storage key tells about its object."""

    epoch: int
    org_id: int
    project_id: int
    digest: str
    blob_id: UUID


def place_of(key: str) -> Place | None:
    """Everything a storage key tells, or None if it is not one of our keys."""
    match = _KEY.fullmatch(key)
    try:
        return Place(int(match[1]), int(match[2]), int(match[3]), match[4], UUID(match[5])) if match else None
    except ValueError:
        return None


def is_digest(text: str) -> bool:
    """True for 64 lower-case hexadecimal digits."""
    return bool(_DIGEST.fullmatch(text))


def journal_entry(deletion_id: UUID) -> str:
    """Where the journal says that a deletion was asked for."""
    return f"{JOURNAL}{deletion_id}.json"


def journal_receipt(deletion_id: UUID) -> str:
    """Where the journal keeps a deletion's signed receipt."""
    return f"{RECEIPTS}{deletion_id}.json"


def retention_note(project_id: int, version: int) -> str:
    """Where the store is told a version of a project's retention rule; the highest is the one that holds."""
    return f"{RULES}{project_id}/{version}.json"


def branch_hold_note(hold_id: UUID, *, is_released: bool) -> str:
    """Where the store is told that a branch is held, and where that it is held no longer."""
    return f"{HOLDS}{hold_id}.{'released' if is_released else 'placed'}.json"


def project_names(project_id: int) -> str:
    """Where the names of a project and its organization are kept."""
    return f"{PROJECTS}{project_id}.json"

"""What the store's journal says of a deletion: ids, never content, so that a database lost or restored forgets none. Pure.

An entry that was damaged still counts for every id that can be read in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from snapshed.domain import ids
from snapshed.domain.receipt import moment

UNKNOWN = "unknown"
"""Who asked for a deletion whose entry cannot be read."""

_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A deletion as journaled: whole artifacts, or pairs of artifact and digest for a withdrawn image. Organization and
    project are None in entries of earlier releases; the project also where there are several."""

    deletion_id: UUID
    artifacts: tuple[UUID, ...]
    images: tuple[tuple[UUID, str], ...]
    requested_at: datetime
    requested_by: str
    reason: str | None
    org_id: int | None
    project_id: int | None
    is_whole: bool = True


def written(entry: Entry, epoch: int) -> bytes:
    """An entry as the store keeps it."""
    document = {
        "deletion": str(entry.deletion_id),
        "artifacts": [str(artifact) for artifact in entry.artifacts],
        "images": [[str(artifact), digest] for artifact, digest in entry.images],
        "requested_at": moment(entry.requested_at),
        "requested_by": entry.requested_by,
        "reason": entry.reason,
        "org": entry.org_id,
        "project": entry.project_id,
        "epoch": epoch,
    }
    return json.dumps(document).encode()


def read(deletion_id: UUID, text: bytes) -> Entry:
    """An entry of the journal. One that is damaged is not whole, and names every id that can still be read in it: an
    artifact too many stays deleted rather than one too few."""
    try:
        fields = cast("dict[str, Any]", json.loads(text))
        org, project = fields.get("org"), fields.get("project")
        return Entry(
            deletion_id=deletion_id,
            artifacts=tuple(UUID(artifact) for artifact in fields["artifacts"]),
            images=tuple((UUID(artifact), str(digest)) for artifact, digest in fields["images"]),
            requested_at=datetime.fromisoformat(fields["requested_at"]),
            requested_by=str(fields["requested_by"]),
            reason=fields["reason"],
            org_id=org if isinstance(org, int) else None,
            project_id=project if isinstance(project, int) else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _damaged(deletion_id, text)


def _damaged(deletion_id: UUID, text: bytes) -> Entry:
    named = [UUID(found.decode()) for found in _UUID.findall(text)]
    return Entry(
        deletion_id=deletion_id,
        artifacts=tuple(dict.fromkeys(artifact for artifact in named if artifact != deletion_id)),
        images=(),
        requested_at=ids.minted_at(deletion_id),
        requested_by=UNKNOWN,
        reason=None,
        org_id=None,
        project_id=None,
        is_whole=False,
    )


def damaged_sentence(entry: Entry, readable: Sequence[UUID]) -> str:
    """What an entry that is damaged means for whoever reads about it."""
    return (
        f"the journal entry of deletion {entry.deletion_id}, asked for about {moment(entry.requested_at)}, is damaged: "
        f"{len(readable)} artifacts can be read in it and stay deleted; whatever else it named may be back. Look at what is "
        "older than that, and delete it again"
    )

"""Builds: one uploaded file with its metadata, an artifact like a snapshot is, and deleted the same way.

File and manifest are announced in an upload session of their own, so that what a crash leaves goes when that ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snapshed.db import access, blobs, builds, outbox, sessions, snapshots
from snapshed.db.access import Project
from snapshed.db.builds import Build
from snapshed.db.outbox import Due
from snapshed.db.pool import Tx
from snapshed.db.sessions import Session
from snapshed.domain import build, ids
from snapshed.domain.build import NewBuild
from snapshed.errors import NotFound, SessionOver, SnapshedError
from snapshed.ledger import Draft, ForSession, end_sessions, sha256, store
from snapshed.resources import Resources


def add(resources: Resources, project: Project, principal: str, wanted: NewBuild, data: bytes | memoryview) -> int:
    """Store a file as a new build and return its public number. Raises NotFound and Unavailable, with nothing made."""
    now = resources.now()
    session = Session(
        id=resources.new_id(),
        project_id=project.id,
        principal=principal,
        artifact_id=resources.new_id(),
        state="open",
        opened_at=now,
        ends_at=now + resources.settings.session_ttl,
    )

    def begin(tx: Tx) -> int:
        sessions.add(tx, session)
        return snapshots.next_number(tx)

    number = resources.database.run(begin)
    try:
        _commit_with(resources, project, wanted, session, number, data)
    except SnapshedError:
        _abandon(resources, session)
        raise
    return number


def _commit_with(
    resources: Resources, project: Project, wanted: NewBuild, session: Session, number: int, data: bytes | memoryview
) -> None:
    text = build.stored(wanted, session.artifact_id, number, session.opened_at, session.principal)
    drafts = [Draft("file", wanted.digest, data), Draft("manifest", sha256(text), text)]
    owner = ForSession(session.id, project.org_id, project.id)
    file, manifest = store(resources, owner, drafts, announced="upload.announced", stored="snapshot.stored")

    def commit(tx: Tx) -> None:
        if access.lock_project_shared(tx, project.id) != "active":
            raise NotFound("This project does not exist.")
        current = sessions.lock(tx, session.id)
        if current is None or current.state != "open":
            raise SessionOver("unknown" if current is None else current.state)
        if len(blobs.make_live(tx, [file.id, manifest.id])) != 2:
            raise SessionOver("over")
        now = resources.now()
        builds.add(tx, session.artifact_id, project.id, wanted, number, file.id, manifest.id, session.principal, now)
        sessions.commit(tx, session.id, f"build:{session.id}", number, now)
        end_sessions(resources, tx, [session.id])
        facts = {"project": project.slug, "app_id": wanted.app_id, "bytes": wanted.size, "head_sha": wanted.head_sha}
        trace = Due(resources.new_id(), ids.trace_id(session.artifact_id), "build", now, facts)
        outbox.announce(tx, session.artifact_id, trace)

    resources.database.run(commit)
    resources.failpoints.reach("snapshot.committed")


def _abandon(resources: Resources, session: Session) -> None:
    """End a session that nobody else knows of, so that nothing of it waits for its time to be over."""

    def end(tx: Tx) -> None:
        current = sessions.lock(tx, session.id)
        if current is not None and current.state == "open":
            sessions.cancel(tx, session.id)
            end_sessions(resources, tx, [session.id])

    resources.database.run(end)


@dataclass(frozen=True, slots=True)
class File:
    """A build's file: its name, size in bytes, and its bytes in pieces."""

    name: str
    size: int
    pieces: Iterator[bytes]


def find(resources: Resources, project_ids: Sequence[int], number: int) -> Build:
    """The build of that number within these projects. Raises NotFound, also when it is marked for deletion."""
    with resources.database.transaction() as tx:
        found = builds.find(tx, list(project_ids), number) if number < 2**63 else None
    if found is None:
        raise NotFound("Build not found")
    return found


def open_file(resources: Resources, project_ids: Sequence[int], number: int) -> File:
    """A build's file, to be read. Raises NotFound."""
    found = find(resources, project_ids, number)
    pieces = None if found.storage_key is None else resources.store.stream(found.storage_key)
    if pieces is None:
        raise NotFound("Build not found")
    return File(found.file_name, found.size, pieces)

"""How objects are stored: announced in a session of their own, put, and named in one transaction that also ends the
session. What a crash leaves goes when the session's time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snapshed.db import blobs, objects, sessions
from snapshed.db.blobs import NewBlob
from snapshed.db.objects import Named
from snapshed.db.pool import Tx
from snapshed.db.sessions import Session
from snapshed.domain.metadata import Described
from snapshed.domain.namespaces import OBJECTS_PROJECT, Place
from snapshed.errors import Busy, SessionOver, SnapshedError
from snapshed.ledger import Draft, ForObjects, end_sessions, store
from snapshed.resources import Resources


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object as it arrived: its key, what was said about it, its bytes and their SHA-256."""

    key: str
    described: Described
    digest: str
    data: bytes | memoryview


def put(resources: Resources, where: Place, principal: str, wanted: Sequence[NewObject]) -> None:
    """Store objects, all or none, each in place of what its key named before. Of several with one key the last stays.

    Raises Unavailable, with nothing changed and nothing left.
    """
    last = list({item.key: item for item in wanted}.values())
    session = new_session(resources, principal)
    resources.database.run(lambda tx: sessions.add(tx, session))
    try:
        _put(resources, where, session, last)
    except SessionOver:
        raise Busy("The object took too long to store, and nothing of it was kept; send it again.") from None
    except SnapshedError:
        abandon(resources, session)
        raise


def _put(resources: Resources, where: Place, session: Session, wanted: list[NewObject]) -> None:
    drafts = [Draft("file", item.digest, item.data) for item in wanted]
    rows = store(resources, ForObjects(session.id), drafts, announced="upload.announced", stored="upload.stored")
    named = [Named(item.key, row.id, item.described) for item, row in zip(wanted, rows, strict=True)]
    resources.database.run(lambda tx: name(resources, tx, session, where, rows, named))
    resources.failpoints.reach("upload.finalised")


def name(
    resources: Resources, tx: Tx, session: Session, where: Place, rows: Sequence[NewBlob], named: list[Named]
) -> None:
    """Make stored objects live, let their keys name them, and end the session they were stored in.

    Locks the session, the blobs, then the objects in the order of their keys. Raises SessionOver.
    """
    current = sessions.lock(tx, session.id)
    if current is None or current.state != "open" or len(blobs.make_live(tx, [row.id for row in rows])) != len(rows):
        raise SessionOver("unknown" if current is None else current.state)
    objects.place(tx, where, named, resources.now())
    end(resources, tx, session)


def end(resources: Resources, tx: Tx, session: Session) -> None:
    """End a session whose lock is held, and forget it: nothing will ever ask for it again."""
    end_sessions(resources, tx, [session.id])
    sessions.forget(tx, session.id)


def new_session(resources: Resources, principal: str) -> Session:
    """A session for objects, not yet written down."""
    now = resources.now()
    return Session(
        id=resources.new_id(),
        project_id=OBJECTS_PROJECT,
        principal=principal,
        artifact_id=resources.new_id(),
        state="open",
        opened_at=now,
        ends_at=now + resources.settings.session_ttl,
    )


def abandon(resources: Resources, session: Session) -> None:
    """End a session that nobody else knows of, so that nothing of it waits for its time to be over."""

    def give_up(tx: Tx) -> None:
        current = sessions.lock(tx, session.id)
        if current is not None and current.state == "open":
            end(resources, tx, session)

    resources.database.run(give_up)

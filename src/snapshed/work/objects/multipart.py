"""Objects uploaded in parts. An upload is a session: it ends a while after its last request, and its parts with it.

Parts are stored as they come and are put together when the upload is completed; only then does the object exist.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal, cast
from uuid import UUID

from snapshed.blobs.mapped import SMALL, mapped
from snapshed.db import blobs, multiparts, sessions
from snapshed.db.multiparts import Multipart, Part
from snapshed.db.objects import Named
from snapshed.db.pool import Tx
from snapshed.db.sessions import Session
from snapshed.domain.metadata import Described
from snapshed.domain.namespaces import Place
from snapshed.errors import NotFound, SessionOver, StoreUnavailable
from snapshed.ledger import Draft, ForObjects, store
from snapshed.resources import Resources
from snapshed.settings import SESSION_MOST
from snapshed.work.objects.storing import end, name, new_session

MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Completion:
    """A part as the client names it when it completes: its number and the tag it was given."""

    number: int
    etag: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an upload could not be completed; it stays as it is, to be mended and completed again."""

    code: Literal["InvalidPart", "InvalidPartOrder", "EntityTooLarge"]
    message: str


def begin(resources: Resources, where: Place, key: str, described: Described, principal: str) -> UUID:
    """Begin an upload; its id."""
    session = new_session(resources, principal)

    def write(tx: Tx) -> None:
        sessions.add(tx, session)
        multiparts.add(tx, session.id, where, key, described)

    resources.database.run(write)
    return session.id


def put_part(
    resources: Resources, where: Place, key: str, upload_id: UUID, number: int, digest: str, data: bytes | memoryview
) -> str:
    """Store a part, in place of one with the same number; its tag. Raises NotFound and Unavailable."""
    session, _ = _keep_open(resources, where, key, upload_id)
    owner = ForObjects(session.id)
    try:
        (row,) = store(
            resources, owner, [Draft("file", digest, data)], announced="upload.announced", stored="upload.stored"
        )
        resources.database.run(lambda tx: _pin(resources, tx, session, number, row.id))
    except SessionOver:
        raise _unknown() from None
    resources.failpoints.reach("upload.finalised")
    return digest


def _pin(resources: Resources, tx: Tx, session: Session, number: int, blob_id: UUID) -> None:
    current = sessions.lock(tx, session.id)
    if current is None or current.state != "open" or not blobs.make_live(tx, [blob_id]):
        raise SessionOver("over")
    multiparts.put_part(tx, session.id, number, blob_id)
    resources.queue.wake(tx)


def stored_parts(
    resources: Resources, where: Place, key: str, upload_id: UUID, after: int, limit: int
) -> tuple[list[Part], bool]:
    """At most `limit` parts numbered above `after`, and whether there are more. Raises NotFound."""
    session, _ = _keep_open(resources, where, key, upload_id)
    with resources.database.transaction() as tx:
        found = multiparts.parts(tx, session.id, after, limit + 1)
    return found[:limit], len(found) > limit


def complete(
    resources: Resources, where: Place, key: str, upload_id: UUID, named: Sequence[Completion]
) -> Problem | None:
    """Put the named parts together as the object, which replaces what its key named before, and end the upload.

    Returns what is wrong with the parts, with nothing changed. Raises NotFound and Unavailable.
    """
    session, upload = _keep_open(resources, where, key, upload_id)
    with resources.database.transaction() as tx:
        stored = {part.number: part for part in multiparts.parts(tx, session.id, 0, MOST_PARTS)}
    if problem := _problem_of(named, stored, resources.settings.max_file):
        return problem
    chosen = [stored[part.number] for part in named]
    scratch = resources.settings.data / "scratch"
    scratch.mkdir(exist_ok=True)
    # Unlinked from the start, so that no crash leaves it behind.
    with tempfile.SpooledTemporaryFile(max_size=SMALL, dir=str(scratch)) as file:
        digest = _put_together(resources, chosen, cast("IO[bytes]", file))
        if digest is None:
            return Problem("InvalidPart", "A part is no longer stored; send it again.")
        with mapped(cast("IO[bytes]", file), sum(part.size for part in chosen)) as data:
            try:
                _finish(resources, session, upload, Draft("file", digest, data))
            except SessionOver:
                raise _unknown() from None
    return None


def _problem_of(named: Sequence[Completion], stored: dict[int, Part], most: int) -> Problem | None:
    numbers = [part.number for part in named]
    if numbers != sorted(set(numbers)):
        return Problem("InvalidPartOrder", "The parts need to be named once each, in the order of their numbers.")
    if not named:
        return Problem("InvalidPart", "No part is named; an object needs at least one.")
    for part in named:
        if part.number not in stored or stored[part.number].digest != part.etag:
            return Problem("InvalidPart", f"Part {part.number} is not stored with that etag; list the parts.")
    if sum(stored[number].size for number in numbers) > most:
        return Problem("EntityTooLarge", f"The parts together are larger than {most} bytes (SNAPSHED_MAX_FILE).")
    return None


def _put_together(resources: Resources, parts: Sequence[Part], file: IO[bytes]) -> str | None:
    """Write the bytes of all parts to a file; their digest, or None if one is gone."""
    digest = hashlib.sha256()
    try:
        for part in parts:
            pieces = resources.store.stream(part.storage_key)
            if pieces is None:
                return None
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
    except OSError:
        raise StoreUnavailable("There is no room to put the parts together. Nothing was lost; try again.") from None
    return digest.hexdigest()


def _finish(resources: Resources, session: Session, upload: Multipart, draft: Draft) -> None:
    rows = store(resources, ForObjects(session.id), [draft], announced="upload.announced", stored="upload.stored")
    named = [Named(upload.key, rows[0].id, upload.described)]

    def commit(tx: Tx) -> None:
        sessions.lock(tx, session.id)
        multiparts.forget(tx, session.id)
        name(resources, tx, session, upload.place, rows, named)

    resources.database.run(commit)
    resources.failpoints.reach("upload.finalised")


def abort(resources: Resources, where: Place, key: str, upload_id: UUID) -> None:
    """End an upload without a result; its parts go at once. Raises NotFound."""
    session, _ = _keep_open(resources, where, key, upload_id)

    def give_up(tx: Tx) -> None:
        current = sessions.lock(tx, session.id)
        if current is not None and current.state == "open":
            multiparts.forget(tx, session.id)
            end(resources, tx, session)

    resources.database.run(give_up)


def _keep_open(resources: Resources, where: Place, key: str, upload_id: UUID) -> tuple[Session, Multipart]:
    """The upload of that id, if it is for this very object, its end pushed as that of every session."""
    now = resources.now()
    ttl = resources.settings.session_ttl

    def touch(tx: Tx) -> tuple[Session | None, Multipart | None]:
        session = sessions.find(tx, upload_id)
        if session and session.state == "open" and session.ends_at < now + ttl - ttl / 20:
            sessions.extend(tx, session.id, min(now + ttl, session.opened_at + SESSION_MOST))
        return session, multiparts.find(tx, upload_id)

    session, upload = resources.database.run(touch)
    if session is None or session.state != "open" or upload is None or (upload.place, upload.key) != (where, key):
        raise _unknown()
    return session, upload


def _unknown() -> NotFound:
    return NotFound("This multipart upload does not exist, or has ended; begin a new one.")

"""Upload sessions: opened, asked what is already here (T1), and filled with images (T2, T3). Ended by time in `expire`.

Sets of images are handled with one set of statements, never one an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from snapshed.db import blobs, installation, sessions
from snapshed.db.blobs import Stored
from snapshed.db.pool import Tx
from snapshed.db.sessions import Session
from snapshed.domain import grants
from snapshed.domain.grants import Grant
from snapshed.errors import Broken, NotFound, SessionOver
from snapshed.ledger import Draft, ForSession, finalise_images, store
from snapshed.resources import Resources
from snapshed.settings import SESSION_MOST

_GROUP_BYTES = 32 * 2**20
_GROUP_IMAGES = 1000
"""How much of a batch is held in memory and stored at once."""

_FULL_LIFE = frozenset({"object.read", "object.write"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A new upload session and the token that carries it."""

    session_id: UUID
    token: str


@dataclass(frozen=True, slots=True)
class Upload:
    """An image as it arrived and was verified: its bytes have this digest."""

    digest: str
    data: bytes


def begin(resources: Resources, org_id: int, project_id: int, principal: str) -> Opened:
    """Open a session and mint its token, which lives as long as a session can."""
    now = resources.now()
    session = Session(
        id=resources.new_id(),
        project_id=project_id,
        principal=principal,
        artifact_id=resources.new_id(),
        state="open",
        opened_at=now,
        ends_at=now + resources.settings.session_ttl,
    )

    def write(tx: Tx) -> installation.SigningKey | None:
        sessions.add(tx, session)
        return installation.newest_key(tx, "upload")

    key = resources.database.run(write)
    if key is None:
        raise Broken("The installation has no key to sign upload tokens with.")
    grant = Grant(session.id, org_id, project_id, _FULL_LIFE)
    return Opened(session.id, grants.upload_token(grant, now + SESSION_MOST, key.kid, key.private_pem))


def keep_open(resources: Resources, grant: Grant) -> ForSession:
    """Find the grant's session and push its end: it ends one TTL after its last request, six hours after its first at
    the latest. Raises SessionOver."""
    now = resources.now()
    ttl = resources.settings.session_ttl

    def touch(tx: Tx) -> Session | None:
        session = sessions.find(tx, grant.session_id)
        # Debounced: a busy session is written to twenty times a TTL, not at every request.
        if session and session.state == "open" and session.ends_at < now + ttl - ttl / 20:
            sessions.extend(tx, session.id, min(now + ttl, session.opened_at + SESSION_MOST))
        return session

    session = resources.database.run(touch)
    if session is None or session.project_id != grant.project_id:
        raise NotFound("This upload session does not exist; ask for new upload options.")
    if session.state != "open":
        raise SessionOver(session.state)
    return ForSession(session.id, grant.org_id, grant.project_id)


def ask(resources: Resources, owner: ForSession, digests: Sequence[str]) -> dict[str, Stored]:
    """T1: promise the session those images that a live snapshot names or it stored itself, by digest.

    A promised image cannot go before the session ends. Everything else is absent from the answer, also what is here
    but only waiting to go, and is simply uploaded again. Raises SessionOver.
    """

    def promise(tx: Tx) -> list[Stored]:
        session = sessions.lock_shared(tx, owner.session_id)
        if session is None or session.state != "open":
            raise SessionOver("unknown" if session is None else session.state)
        return blobs.promise(tx, owner.project_id, owner.session_id, sorted(set(digests)))

    promised = resources.database.run(promise)
    resources.failpoints.reach("upload.promised")
    return {image.digest: image for image in promised}


def keep(
    resources: Resources,
    owner: ForSession,
    uploads: Iterable[Upload],
    kept: Callable[[list[str]], None] = lambda _: None,
) -> None:
    """T2 and T3 for verified images, in groups that fit into memory; tells `kept` the digests of each group once they
    are stored and pinned. The same digest twice in a group is stored once.

    Raises SessionOver or StoreUnavailable; the groups before the failing one are stored and pinned, of the failing
    one nothing is left.
    """
    for group in _groups(uploads):
        rows = store(
            resources,
            owner,
            [Draft("image", upload.digest, upload.data) for upload in group],
            announced="upload.announced",
            stored="upload.stored",
        )
        finalise_images(resources, owner, rows)
        resources.failpoints.reach("upload.finalised")
        kept([row.digest for row in rows])


def _groups(uploads: Iterable[Upload]) -> Iterator[list[Upload]]:
    group: dict[str, Upload] = {}
    size = 0
    for upload in uploads:
        if upload.digest not in group:
            group[upload.digest] = upload
            size += len(upload.data)
        if size >= _GROUP_BYTES or len(group) >= _GROUP_IMAGES:
            yield list(group.values())
            group, size = {}, 0
    if group:
        yield list(group.values())


def read(resources: Resources, project_id: int, digest: str, session_id: UUID | None) -> Stored | None:
    """An image that a live snapshot names or the caller's own open session stored; None for everything else."""
    with resources.database.transaction() as tx:
        return blobs.readable(tx, project_id, digest, session_id)


def drop(resources: Resources, owner: ForSession, digest: str) -> None:
    """Give up the session's own claim on an image. The image lives on while anything else names or pins it."""

    def unpin(tx: Tx) -> None:
        sessions.lock(tx, owner.session_id)
        sessions.unpin_digest(tx, owner.session_id, digest)
        resources.queue.wake(tx)

    resources.database.run(unpin)

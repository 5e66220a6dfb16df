"""The one way bytes enter the store: announce a row, put the bytes, let the owner's commit confirm them.

Nothing else puts an object that holds content. A row always precedes its bytes, so that no crash leaves bytes that
the database has never heard of; what is not confirmed is condemned, by whoever ends its owner.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.blobs import Item
from snapshed.db import blobs, comparisons, lost, sessions, shards, snapshots, tombstones
from snapshed.db.blobs import Kind, NewBlob
from snapshed.db.pool import Tx
from snapshed.domain import ids
from snapshed.domain.namespaces import OBJECTS_ORG, OBJECTS_PROJECT
from snapshed.errors import OwnerGone, SessionOver, SnapshedError, StoreUnavailable
from snapshed.resources import Resources

_OF_ONE_ARTIFACT = ("manifest", "file")
"""Kinds that belong to the artifact a session makes, and are never shared."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Bytes that are to become an object."""

    kind: Kind
    digest: str
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class ForSession:
    """Objects an upload session owns until it ends."""

    session_id: UUID
    org_id: int
    project_id: int


@dataclass(frozen=True, slots=True)
class ForComparison:
    """Objects a claimed comparison owns until it is committed; they are made of both its sides."""

    comparison_id: UUID
    claim: UUID
    head_id: UUID
    base_id: UUID
    org_id: int
    project_id: int


@dataclass(frozen=True, slots=True)
class ForArtifact:
    """Objects made for an artifact after its commit, such as a manifest that carries a hold. What nobody confirms
    within its put deadline is condemned, and so is all of it when the artifact is deleted."""

    artifact_id: UUID
    org_id: int
    project_id: int


@dataclass(frozen=True, slots=True)
class ForObjects:
    """Objects of the general blob API: owned by a session of their own until they are named, and part of no artifact."""

    session_id: UUID
    org_id: int = OBJECTS_ORG
    project_id: int = OBJECTS_PROJECT


Owner = ForSession | ForComparison | ForArtifact | ForObjects


def sha256(data: bytes | memoryview) -> str:
    """The digest an object is named by."""
    return hashlib.sha256(data).hexdigest()


def store(
    resources: Resources,
    owner: Owner,
    drafts: Sequence[Draft],
    *,
    announced: str | None = None,
    stored: str | None = None,
) -> list[NewBlob]:
    """Announce and store all drafts, in their order, and return their rows, still pending: the owner's commit makes
    them live. `announced` and `stored` name the failpoints to pass.

    If the store fails, every row of the call is condemned at once and the error goes on. Raises SessionOver or
    OwnerGone when the owner has ended, StoreUnavailable when the store fails.
    """
    rows = [_row(resources, owner, draft) for draft in drafts]
    begun, now = time.monotonic(), resources.now()
    resources.database.run(lambda tx: _announce(resources, tx, owner, rows, now))
    if announced:
        resources.failpoints.reach(announced)
    items = [Item(row.storage_key, draft.data) for row, draft in zip(rows, drafts, strict=True)]
    try:
        _refuse_if_late(resources, now)
        resources.store.put(items, begun=begun)
    except SnapshedError:
        give_up(resources, [row.id for row in rows], settled=resources.store.puts_settle)
        raise
    if stored:
        resources.failpoints.reach(stored)
    return rows


def _refuse_if_late(resources: Resources, announced_at: datetime) -> None:
    """A process that stood still since it announced, on a machine that slept say, must not begin to put: the rows may be
    condemned by now and their removal final. The store counts the rest of the time itself, but not while asleep."""
    if resources.now() > announced_at + resources.settings.put_limit / 2:
        raise StoreUnavailable("Storing took longer than SNAPSHED_PUT_LIMIT allows; nothing was stored. Try again.")


def finalise_images(resources: Resources, owner: ForSession, rows: Sequence[NewBlob]) -> None:
    """T3: turn a session's stored images live and pin them, one winner per digest.

    Where another upload of the same bytes won, its row is pinned instead and ours is condemned. Where the image was
    marked as lost, whatever named it names the new row from now on. Raises SessionOver, with everything of this call
    condemned, when the session has ended meanwhile.
    """
    state = resources.database.run(lambda tx: _finalise(resources, tx, owner, rows))
    if state != "open":
        raise SessionOver(state)


def give_up(resources: Resources, blob_ids: list[UUID], *, settled: bool) -> None:
    """Condemn announced rows; `settled` says that no attempt to store them can still land."""

    def condemn(tx: Tx) -> None:
        tombstones.condemn_pending(tx, sorted(blob_ids), resources.now(), settled=settled)
        resources.queue.wake(tx)

    resources.database.run(condemn)


def end_sessions(resources: Resources, tx: Tx, session_ids: list[UUID]) -> None:
    """What every end of a session does, in the transaction that changed its state: its pins become candidates (by
    trigger), what it had only announced is condemned, until its put deadline in case the bytes still travel, and what
    its shards said is forgotten."""
    tombstones.condemn_pending(tx, tombstones.pending_of_sessions(tx, session_ids), resources.now(), settled=False)
    sessions.unpin(tx, session_ids)
    shards.forget_bodies(tx, session_ids)
    resources.queue.wake(tx)


def _row(resources: Resources, owner: Owner, draft: Draft) -> NewBlob:
    blob_id = ids.of_kind(resources.new_id(), draft.kind)
    return NewBlob(
        id=blob_id,
        kind=draft.kind,
        digest=draft.digest,
        size=len(draft.data),
        storage_key=resources.new_key(owner.org_id, owner.project_id, draft.digest, blob_id),
    )


def _announce(resources: Resources, tx: Tx, owner: Owner, rows: list[NewBlob], now: datetime) -> None:
    deadline = now + resources.settings.put_limit
    match owner:
        case ForSession():
            session = sessions.lock_shared(tx, owner.session_id)
            if session is None or session.state != "open":
                raise SessionOver("unknown" if session is None else session.state)
            # They are made of their artifact: what an earlier attempt of this create stored goes with the artifact.
            made_of = [session.artifact_id] if any(row.kind in _OF_ONE_ARTIFACT for row in rows) else []
            blobs.announce(tx, owner.project_id, rows, deadline, now, session_id=owner.session_id, made_of=made_of)
        case ForObjects():
            session = sessions.lock_shared(tx, owner.session_id)
            if session is None or session.state != "open":
                raise SessionOver("unknown" if session is None else session.state)
            blobs.announce(tx, owner.project_id, rows, deadline, now, session_id=owner.session_id)
        case ForComparison():
            sides = [owner.head_id, owner.base_id]
            if not snapshots.lock_unmarked(tx, sides) or not comparisons.lock_claimed(
                tx, owner.comparison_id, owner.claim
            ):
                raise OwnerGone("The snapshot this was being made for is deleted, or another worker has taken over.")
            blobs.announce(tx, owner.project_id, rows, deadline, now, comparison_id=owner.comparison_id, made_of=sides)
        case ForArtifact():
            only = [owner.artifact_id]
            if not snapshots.lock_unmarked(tx, only):
                raise OwnerGone("The snapshot this was being made for is deleted.")
            blobs.announce(tx, owner.project_id, rows, deadline, now, artifact_id=owner.artifact_id, made_of=only)


def _finalise(resources: Resources, tx: Tx, owner: ForSession, rows: Sequence[NewBlob]) -> str:
    blobs.lock_images(tx, owner.project_id)
    session = sessions.lock_shared(tx, owner.session_id)
    now = resources.now()
    mine = [row.id for row in rows]
    if session is None or session.state != "open":
        tombstones.condemn_pending(tx, sorted(mine), now, settled=True)
        resources.queue.wake(tx)
        return "unknown" if session is None else session.state
    digests = [row.digest for row in rows]
    unhealed = lost.lock_images(tx, owner.project_id, digests)
    winners = {won.digest: won.id for won in blobs.live_images(tx, owner.project_id, digests)}
    losers = sorted(row.id for row in rows if row.digest in winners)
    if losers:
        tombstones.condemn_pending(tx, losers, now, settled=True)
        resources.queue.wake(tx)
    won = set(blobs.make_live(tx, [row.id for row in rows if row.digest not in winners]))
    sessions.pin(tx, owner.session_id, sorted([*winners.values(), *won]), "stored")
    whole = winners | {row.digest: row.id for row in rows if row.id in won}
    _heal(resources, tx, {image.id: whole[image.digest] for image in unhealed if image.digest in whole}, now)
    return "open"


def _heal(resources: Resources, tx: Tx, replaced: dict[UUID, UUID], now: datetime) -> None:
    """Let whole images take the place of lost ones, which nothing refers to afterwards: they are condemned at once, so
    that what is left of damaged bytes is removed, and released by every deletion of the same image."""
    if replaced:
        lost.replace_images(tx, replaced)
        tombstones.condemn(tx, sorted(replaced), now)
        resources.queue.wake(tx)

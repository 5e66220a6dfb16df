"""Sharded uploads: several jobs share one upload session, and hand in a part of the manifest each.

No snapshot is made here: whoever hands in the last part goes on to create it, in the session and by the transaction of
every other upload. Until then nothing of a group can be read, compared with, or be a base.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from snapshed.db import blobs, installation, sessions, shards
from snapshed.db.pool import Tx
from snapshed.db.sessions import Session
from snapshed.db.shards import Group
from snapshed.domain import grants, manifest
from snapshed.domain import shards as rules
from snapshed.domain.grants import Grant
from snapshed.errors import Broken, Busy, Conflict, MissingImages, NotFound, SessionOver
from snapshed.resources import Resources
from snapshed.settings import SESSION_MOST

_FULL_LIFE = frozenset({"object.read", "object.write"})


@dataclass(frozen=True, slots=True)
class Standing:
    """How a group stands. `body` is the whole manifest once every part is here, to create the snapshot with; `number`
    is the snapshot once it is made."""

    key: str
    shards: int
    state: str
    missing: list[int]
    ends_at: datetime
    number: int | None = None
    body: bytes | None = None


def join(resources: Resources, org_id: int, project_id: int, principal: str, key: str, count: int) -> str:
    """Open the group's session, or join it, and mint an upload token for it. A key means one group to each token, so
    that nobody else's upload can be joined. Raises Invalid, and Conflict when the group has another number of shards."""
    rules.check_group(key, count)
    now = resources.now()
    ends_at = now + resources.settings.session_ttl
    session = Session(resources.new_id(), project_id, principal, resources.new_id(), "open", now, ends_at)

    def write(tx: Tx) -> tuple[Group | None, installation.SigningKey | None]:
        shards.open_group(tx, session, key, count)
        group = shards.find_open(tx, project_id, principal, key)
        joined = group and sessions.find(tx, group.session_id)
        if joined:
            sessions.extend(tx, joined.id, min(ends_at, joined.opened_at + SESSION_MOST))
        return group, installation.newest_key(tx, "upload")

    group, signing = resources.database.run(write)
    if signing is None:
        raise Broken("The installation has no key to sign upload tokens with.")
    if group is None:  # it ended between the two statements
        raise Busy("The group has just ended; ask again.")
    if group.shards != count:
        raise Conflict(f"The group {key!r} has {group.shards} shards, not {count}; all its jobs must say the same.")
    grant = Grant(group.session_id, org_id, project_id, _FULL_LIFE)
    return grants.upload_token(grant, now + SESSION_MOST, signing.kid, signing.private_pem)


def keep(resources: Resources, grant: Grant, number: int, body: bytes) -> Standing:
    """Keep one part of a group's manifest; a part sent again replaces the earlier one while the group is open, and is
    answered with the snapshot once it is made. Raises Invalid, MissingImages, Conflict and SessionOver."""
    wanted = manifest.parse(body)
    request_hash = hashlib.sha256(body).hexdigest()

    def write(tx: Tx) -> Standing:
        session = sessions.lock(tx, grant.session_id)
        group = shards.find(tx, grant.session_id)
        if session is None or group is None or session.project_id != grant.project_id:
            raise NotFound("This upload session belongs to no group; ask for upload options with a group.")
        rules.check_number(number, group.shards)
        if group.state == "committed" and shards.is_known(tx, session.id, number, request_hash):
            if not group.present:
                raise Conflict(
                    f"This group made snapshot {group.number}, which has been deleted since; nothing was made."
                )
            return _standing(tx, group)
        if group.state != "open":
            raise SessionOver(group.state)
        found = {image.digest for image in blobs.nameable(tx, session.project_id, session.id, wanted.digests)}
        if missing := [digest for digest in wanted.digests if digest not in found]:
            raise MissingImages(missing)
        now = resources.now()
        shards.keep(tx, session.id, number, request_hash, body, now)
        sessions.extend(tx, session.id, min(now + resources.settings.session_ttl, session.opened_at + SESSION_MOST))
        # Read again at once, so that whoever contradicts the others is told, and not whoever comes last.
        whole = rules.merged({part.number: part.body for part in shards.parts(tx, session.id)})
        return _standing(tx, group, whole)

    kept = resources.database.run(write)
    resources.failpoints.reach("shard.kept")
    return kept


def find(resources: Resources, project_ids: list[int], key: str) -> Standing:
    """How the newest group of this key stands. Raises NotFound."""
    with resources.database.transaction() as tx:
        group = shards.newest(tx, project_ids, key) if "\0" not in key else None
        if group is None:
            raise NotFound("Group not found")
        return _standing(tx, group)


def _standing(tx: Tx, group: Group, whole: bytes | None = None) -> Standing:
    missing = rules.missing(shards.arrived(tx, group.session_id), group.shards)
    number = group.number if group.present else None
    return Standing(group.key, group.shards, group.state, missing, group.ends_at, number, None if missing else whole)

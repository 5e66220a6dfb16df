"""How objects end by themselves, and how that end is put off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from snapshed.db import multiparts, objects
from snapshed.db.pool import Tx
from snapshed.domain.durations import LONGEST
from snapshed.domain.namespaces import Place
from snapshed.errors import Conflict, Invalid, NotFound
from snapshed.resources import Resources

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Until:
    """A new end: a moment, or a length of time from now or from the object's creation."""

    at: datetime | None = None
    after: timedelta | None = None
    since: Literal["now", "creation"] = "now"


def extend(resources: Resources, where: Place, key: str, until: Until) -> None:
    """Put off an object's end; one that is late enough already stays. Locks the object.

    Raises NotFound, Conflict for an object that never expires, and Invalid for an end more than a hundred years away.
    """
    now = resources.now()

    def move(tx: Tx) -> None:
        found = objects.lock(tx, where, key, now)
        if found is None:
            raise NotFound("This object does not exist, or has expired.")
        if found.expires_at is None or found.lifetime is None:
            raise Conflict("This object never expires, so its end cannot be put off.")
        if until.at is not None:
            wanted = until.at
        else:
            wanted = (found.created_at if until.since == "creation" else now) + (until.after or timedelta())
        if wanted - now > LONGEST:
            raise Invalid(f"The new end may be at most {LONGEST.days} days away.")
        if wanted > found.expires_at:
            # The lifetime of a `ttl` object is what it has in all; that of a `tti` object is what a reading gives it.
            lifetime = wanted - found.created_at if found.policy == "ttl" else found.lifetime
            objects.extend(tx, where, key, wanted, lifetime)

    resources.database.run(move)


def expire(resources: Resources) -> int:
    """Take away what has expired, at most a thousand objects a call, and what ended multipart uploads were to become.
    Returns how many; nobody could read them any more already."""

    def take(tx: Tx) -> int:
        gone = objects.expire(tx, resources.now(), _BATCH)
        if gone:
            resources.queue.wake(tx)
        return gone + multiparts.forget_ended(tx, _BATCH)

    return resources.database.run(take)

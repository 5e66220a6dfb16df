"""How objects are found, read and removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snapshed.db import objects
from snapshed.db.objects import Object
from snapshed.db.pool import Tx
from snapshed.domain.metadata import is_worth_extending
from snapshed.domain.namespaces import Place
from snapshed.domain.ranges import Span
from snapshed.resources import Resources


def find(resources: Resources, where: Place, keys: Sequence[str]) -> dict[str, Object]:
    """Those objects that are there and have not expired, by key. For `tti` objects this is a reading, which pushes
    their end; what is returned still tells the end before it."""
    now = resources.now()
    with resources.database.transaction() as tx:
        found = objects.find(tx, where, sorted(set(keys)), now)
    due = [item for item in found if _is_due(item, resources)]
    if due:
        resources.database.run(lambda tx: objects.push(tx, where, due, now))
    return {item.key: item for item in found}


def _is_due(item: Object, resources: Resources) -> bool:
    if item.policy != "tti" or item.lifetime is None or item.expires_at is None:
        return False
    return is_worth_extending(item.lifetime, item.expires_at, resources.now())


def open_bytes(resources: Resources, item: Object, span: Span | None = None) -> Iterator[bytes] | None:
    """The stored bytes of an object in pieces, or of a part of it; None if they are gone. Raises StoreUnavailable."""
    return resources.store.stream(item.storage_key, (span.start, span.end) if span else None)


def remove(resources: Resources, where: Place, keys: Sequence[str]) -> None:
    """Remove objects; those that are not there are removed already. Nobody reads them from now on, and their bytes
    follow at once."""

    def take(tx: Tx) -> None:
        if objects.remove(tx, where, sorted(set(keys))):
            resources.queue.wake(tx)

    resources.database.run(take)

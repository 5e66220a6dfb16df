"""Who may recover, and how the installation passes from the life before to a new epoch."""

from __future__ import annotations

import dataclasses
from typing import Any, cast
from uuid import UUID

from snapshed.blobs import Store
from snapshed.db import installation
from snapshed.db.installation import Installation, PublicKey
from snapshed.db.pool import Database, Tx
from snapshed.errors import Broken, Conflict
from snapshed.resources import PROTOCOL, Resources, add_keys, read_marker, write_marker


def lost(database: Database, store: Store) -> Installation:
    """Match a database that knows nothing, or whose rebuild was interrupted, with a store that knows its installation.

    Raises Conflict for a database that knows its installation and for a store that belongs to nobody, and Broken when the
    two belong to different ones. Writes nothing.
    """
    marker = _marker(store)
    with database.transaction() as tx:
        known = installation.find(tx)
    if known is None:
        return Installation(UUID(marker["id"]), int(marker["epoch"]), PROTOCOL, None, recovering=True)
    if str(known.id) != marker["id"]:
        raise Broken(
            "The database and the object store belong to different installations. Nothing was changed; point "
            "SNAPSHED_DATABASE_URL at an empty database, and SNAPSHED_STORE_URL at the store to rebuild from."
        )
    if not known.recovering:
        raise Conflict(
            "This database knows its installation, so there is nothing to rebuild; nothing was changed. If another one is "
            "lost, point SNAPSHED_DATABASE_URL at an empty database, or --data at a folder with the objects alone."
        )
    return known


def behind(database: Database, store: Store) -> Installation:
    """Match a database that may be older than the store with it. Raises Broken when they belong to different installations,
    and Conflict when one of them belongs to none. Writes nothing."""
    marker = _marker(store)
    with database.transaction() as tx:
        known = installation.find(tx)
    if known is None:
        raise Conflict(
            "This database knows no installation, so it cannot catch up; nothing was changed. `snapshed rebuild` makes one "
            "from the store alone."
        )
    if str(known.id) != marker["id"]:
        raise Broken(
            "The database and the object store belong to different installations. Nothing was changed; point "
            "SNAPSHED_DATABASE_URL and SNAPSHED_STORE_URL at one."
        )
    return known


def _marker(store: Store) -> dict[str, Any]:
    marker = read_marker(store)
    if marker is None:
        raise Conflict(
            "The object store belongs to no installation: it has no .snapshed/installation.json. There is nothing to rebuild "
            "from; point SNAPSHED_STORE_URL or --data at the store of the installation whose database is lost."
        )
    if int(marker["protocol"]) > PROTOCOL:
        raise Broken(
            f"The object store follows protocol {marker['protocol']} and this version protocol {PROTOCOL}; upgrade."
        )
    return marker


def take_over(resources: Resources, why: str) -> Resources:
    """Begin a new epoch, and let rules rest, `why` says why: in the database first and then in the store, so that a crash in between only leaves a number
    out. Returns the resources of the new epoch. The caller recovers alone."""
    marker = _marker(resources.store)
    epoch = max(int(marker["epoch"]), resources.installation.epoch) + 1
    now = resources.now()

    def write(tx: Tx) -> Installation:
        installation.take_over(tx, resources.installation.id, epoch, PROTOCOL, why, now)
        if installation.newest_key(tx, "receipt") is None:
            add_keys(tx, now)
        for key in _public_keys(marker):
            installation.add_public_key(tx, "receipt", key)
        known = installation.find(tx)
        assert known is not None  # noqa: S101  written above
        return known

    known = resources.database.run(write)
    write_marker(resources.database, resources.store, known)
    return dataclasses.replace(resources, installation=known)


def _public_keys(marker: dict[str, Any]) -> list[PublicKey]:
    told = [marker.get("receipt_key"), *cast("list[Any]", marker.get("former_receipt_keys") or [])]
    return [PublicKey(key["kid"], key["public_pem"]) for key in told if key]

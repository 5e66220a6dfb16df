"""Opens everything one process works with and closes it in reverse: database, store, traces, queue, clock, ids.

No other module opens any of these, and none reads the clock: the time is `resources.now()`, handed down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import uuid_utils.compat
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from snapshed.blobs import Store, open_store
from snapshed.db import installation
from snapshed.db.embedded import Embedded
from snapshed.db.installation import Installation, Purpose, SigningKey
from snapshed.db.migrate import migrate
from snapshed.db.pool import Database, Tx, refuse_inside_transaction
from snapshed.domain import grants, ids, keys
from snapshed.errors import Behind, Broken
from snapshed.failpoints import Failpoints
from snapshed.queue import Queue
from snapshed.settings import Settings
from snapshed.traces import PostgresTraces

PROTOCOL = 3
"""Raised when the rules of who may write or remove what change; an older worker then refuses to work."""

_PURPOSES: tuple[Purpose, ...] = ("receipt", "upload")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a verb in `work` gets as its first argument. Thread-safe."""

    settings: Settings
    database: Database
    store: Store
    traces: PostgresTraces
    queue: Queue
    failpoints: Failpoints
    installation: Installation
    embedded: Embedded | None
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]

    def new_key(self, org_id: int, project_id: int, digest: str, blob_id: UUID) -> str:
        """The storage key of one new object in this epoch."""
        return keys.storage_key(self.installation.epoch, org_id, project_id, digest, blob_id)


def _clock() -> datetime:
    return datetime.now(UTC)


def _new_id() -> UUID:
    return uuid_utils.compat.uuid7()


@contextmanager
def opened(
    settings: Settings, *, connections: int = 8, matched: Callable[[Database, Store], Installation] | None = None
) -> Generator[Resources]:
    """Open everything, migrate the database and found the installation if it is new, or match database and store as
    `matched` does.

    Raises Invalid for settings that cannot be used, Unavailable when a part does not answer, and Broken when the
    store belongs to another installation.
    """
    failpoints = Failpoints(settings.failpoint)
    with ExitStack() as stack:
        settings.data.mkdir(parents=True, exist_ok=True)
        store = open_store(settings, refuse_inside_transaction)
        embedded = None
        dsn = settings.database_url
        if dsn is None:
            embedded = Embedded.open(settings.data)
            stack.callback(embedded.close)
            dsn = embedded.dsn
        migrate(dsn)
        database = Database(dsn, most=connections)
        database.open()
        stack.callback(database.close)
        queue = stack.enter_context(Queue(dsn))
        yield Resources(
            settings=settings,
            database=database,
            store=store,
            traces=PostgresTraces(database),
            queue=queue,
            failpoints=failpoints,
            installation=(matched or _installation)(database, store),
            embedded=embedded,
            now=_clock,
            new_id=_new_id,
        )


def _installation(database: Database, store: Store) -> Installation:
    """Match the database with the store's own installation object, founding both when both are new."""
    in_store = read_marker(store)
    with database.transaction() as tx:
        installation.lock(tx)
        known = installation.find(tx)
        if known is not None and in_store is None and installation.has_objects(tx):
            # An empty store would confirm every removal, and receipts would be signed for bytes that stand elsewhere.
            raise Broken(
                "The database knows stored objects, but the object store is not this installation's: it is empty. "
                "Nothing was changed; point SNAPSHED_STORE_URL back at its store, or copy the objects there first."
            )
        if known is None and in_store is None:
            known = _found(tx)
    if known is None:
        raise Broken(
            "The object store belongs to an installation whose database is not this one. Nothing was changed; point "
            "SNAPSHED_DATABASE_URL at its database, or this installation at an empty store. If its database is lost, "
            "`snapshed rebuild` makes a new one from the store."
        )
    if known.protocol != PROTOCOL:
        raise Broken(f"The database follows protocol {known.protocol} and this version protocol {PROTOCOL}; upgrade.")
    if known.recovering:
        raise Broken(
            "A rebuild or restore of this database has begun and not ended, so it is not opened. Run `snapshed rebuild` or "
            "`snapshed restore` again; it goes on from what is there."
        )
    if in_store is None:
        write_marker(database, store, known)
    elif in_store.get("id") != str(known.id):
        raise Broken(
            "The object store belongs to another installation. Nothing was changed; "
            "give every installation a store, or a prefix of a bucket, of its own."
        )
    else:
        _refuse_if_behind(store, in_store, known)
    return known


def _refuse_if_behind(store: Store, marker: dict[str, Any], known: Installation) -> None:
    """A database that is older than the store would issue numbers twice, show what was deleted, and take what was stored
    since for orphans."""
    epoch = int(marker.get("epoch", 0))
    if epoch > known.epoch:
        raise Broken(
            f"The object store is in epoch {epoch} and the database in epoch {known.epoch}: another database has taken this "
            "store over since. Nothing was changed; use that one. If it is lost, `snapshed recover` lets this one catch up."
        )
    text = store.get(keys.MARK)
    told = {} if text is None else cast("dict[str, Any]", json.loads(text))
    if told.get("epoch") == known.epoch and told.get("mark", 0) > known.mark:
        raise Behind(
            "The database is older than the object store, as after restoring a backup. Nothing was changed; `snapshed "
            "serve` lets it catch up before it opens, and so does `snapshed recover`."
        )


def raise_mark(resources: Resources) -> int:
    """Let the store know how far the installation has lived. Returns 1 if there was news. Raises StoreUnavailable."""
    mark = resources.database.run(installation.raise_mark)
    if mark is None:
        return 0
    document = {"epoch": resources.installation.epoch, "mark": mark}
    resources.store.note(keys.MARK, json.dumps(document).encode())
    return 1


def refuse_other_store(resources: Resources) -> None:
    """Raise Broken unless the store says, at this moment, that it is this installation's and of the same epoch. Whoever
    concludes anything from what a store lacks or has too much of asks this first."""
    document = read_marker(resources.store) or {}
    mine = resources.installation
    if document.get("id") != str(mine.id) or document.get("epoch") != mine.epoch:
        raise Broken(
            "The object store says it belongs to another installation, or to another epoch of this one. Nothing was "
            "changed; point SNAPSHED_STORE_URL and SNAPSHED_DATABASE_URL at one installation."
        )


def _found(tx: Tx) -> Installation:
    now = _clock()
    epoch = 1
    installation.found(tx, _new_id(), epoch, PROTOCOL, ids.first_number(epoch), now)
    add_keys(tx, now)
    known = installation.find(tx)
    assert known is not None  # noqa: S101  inserted above
    return known


def add_keys(tx: Tx, now: datetime) -> None:
    """Make a key of each purpose. The newest signs from now on."""
    for purpose in _PURPOSES:
        private_pem, public_pem = grants.key_pair(Ed25519PrivateKey.generate())
        installation.add_key(tx, purpose, SigningKey(f"{purpose}-{_new_id().hex[-12:]}", private_pem, public_pem), now)


# --- The installation object ------------------------------------------------------------------------------------------


def read_marker(store: Store) -> dict[str, Any] | None:
    """What the store says about whose it is, or None for one that belongs to nobody."""
    data = store.get(keys.INSTALLATION)
    return None if data is None else cast("dict[str, Any]", json.loads(data))


def write_marker(database: Database, store: Store, known: Installation) -> None:
    """Let the store say that it is this installation's, in this epoch, and with which keys its receipts are signed."""
    with database.transaction() as tx:
        receipt_keys = installation.public_keys(tx, "receipt")
    told = [{"kid": key.kid, "public_pem": key.public_pem} for key in receipt_keys]
    document = {
        "id": str(known.id),
        "epoch": known.epoch,
        "protocol": known.protocol,
        "receipt_key": told[0] if told else None,
        "former_receipt_keys": told[1:],
    }
    store.note(keys.INSTALLATION, json.dumps(document, indent=2).encode())

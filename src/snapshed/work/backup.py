"""A backup of the embedded database, beside a running service, and the way back to it.

A restored database is older than the store. It stays closed until it has caught up, which is `recovery`'s.
"""

from __future__ import annotations

from pathlib import Path

from snapshed.blobs import open_store
from snapshed.db import backups
from snapshed.db.embedded import Embedded
from snapshed.db.pool import refuse_inside_transaction
from snapshed.errors import Conflict, Invalid
from snapshed.resources import Resources, read_marker
from snapshed.settings import Settings


def write(resources: Resources, file: Path) -> None:
    """Write a backup. Raises Invalid where the database is not the embedded one, or the file cannot be written."""
    if resources.embedded is None:
        raise Invalid(_NOT_EMBEDDED)
    backups.write(resources.embedded.dsn, file.absolute())


def put_back(settings: Settings, file: Path) -> None:
    """Let a backup take the place of the embedded database, or of one that is lost; the one before is kept beside. Nobody
    can open it until it has caught up with the store.

    Raises Invalid for what is no backup, and Conflict, with nothing changed, when the backup is of another installation
    than the store, or a server or worker still runs.
    """
    if settings.database_url is not None:
        raise Invalid(_NOT_EMBEDDED)
    marker = read_marker(open_store(settings, refuse_inside_transaction))
    embedded = Embedded.open(settings.data)
    try:
        installation_id = backups.read(embedded.dsn, file.absolute())
        if marker is None or marker.get("id") != installation_id:
            backups.forget(embedded.dsn)
            raise Conflict(
                "The backup and the object store belong to different installations; nothing was changed. Point --data or "
                "SNAPSHED_STORE_URL at the store that the backup belongs to."
            )
        backups.put_in_place(embedded.dsn)
    finally:
        embedded.close()


_NOT_EMBEDDED = (
    "The database of SNAPSHED_DATABASE_URL is backed up and restored by its own tools. After restoring it, `snapshed serve` or "
    "`snapshed recover` lets it catch up with the object store."
)

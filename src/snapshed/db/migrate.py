"""Brings a database to the newest schema: numbered files, forward only, each in one transaction.

Several processes may start at once: an advisory lock lets one of them migrate while the others wait.
"""

from __future__ import annotations

from importlib import resources

import psycopg
from procrastinate import App, SyncPsycopgConnector
from psycopg import errors as pg

from snapshed.errors import DatabaseUnavailable, Invalid

_LOCK = 0x534E4150
"""The advisory lock of migrations: "SNAP" in ASCII. An arbitrary number that nothing else here takes."""

_OLDEST = 150000
"""PostgreSQL 15, the oldest server the SQL is written for."""


def migrate(dsn: str) -> list[str]:
    """Apply what is missing and return the names applied. Raises Invalid for a server that is too old."""
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=15) as connection:
            if connection.info.server_version < _OLDEST:
                raise Invalid("SNAPSHED_DATABASE_URL points at PostgreSQL older than 15; use 15 or newer.")
            connection.execute("SET lock_timeout = '60s'")
            connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            return _apply_missing(connection, dsn)
    except pg.OperationalError as lost:
        raise DatabaseUnavailable("PostgreSQL does not answer; check SNAPSHED_DATABASE_URL and the server.") from lost


def _apply_missing(connection: psycopg.Connection[tuple[object, ...]], dsn: str) -> list[str]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    done = {name for (name,) in connection.execute("SELECT name FROM migration")}
    applied: list[str] = []
    if "procrastinate" not in done:
        # The queue ships its own schema. Applying it twice raises, so it has its own line in the ledger.
        # It commits on a connection of its own: a start that was killed in between left it applied.
        if connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone() == (None,):
            _apply_queue_schema(dsn)
        connection.execute("INSERT INTO migration (name) VALUES ('procrastinate')")
        applied.append("procrastinate")
    for name, text in _files():
        if name in done:
            continue
        with connection.transaction():
            connection.execute(text.encode())
            connection.execute("INSERT INTO migration (name) VALUES (%s)", [name])
        applied.append(name)
    return applied


def _files() -> list[tuple[str, str]]:
    folder = resources.files("snapshed.db") / "migrations"
    return sorted((item.name, item.read_text("utf-8")) for item in folder.iterdir() if item.name.endswith(".sql"))


def _apply_queue_schema(dsn: str) -> None:
    app = App(connector=SyncPsycopgConnector(conninfo=dsn))
    with app.open():
        app.schema_manager.apply_schema()

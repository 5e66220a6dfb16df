"""Connections and transactions. A driver error leaves this room as one of ours, never as the driver's own.

Nothing here knows a table.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from snapshed.errors import Broken, Busy, Conflict, DatabaseUnavailable

Tx = psycopg.Connection[TupleRow]
"""An open transaction. Whoever holds one may run statements and may not commit."""

T = TypeVar("T")

_ATTEMPTS = 6
"""A deadlock or serialization failure is tried again this often; the lock order makes even one rare."""

_NAME = f"snapshed {os.getpid()} {secrets.token_hex(4)}"
"""How this process's connections are called, so that whoever must be alone sees others."""

_inside: ContextVar[bool] = ContextVar("inside_transaction", default=False)


def refuse_inside_transaction() -> None:
    """Raise Broken when called while this thread has a transaction open: no store call may wait inside one."""
    if _inside.get():
        raise Broken("A store call was about to run inside a database transaction.")


def _prepare(connection: Tx) -> None:
    # The bounds are for the server's sake: a client that hangs must not hold locks that deletions wait for.
    connection.execute("SET statement_timeout = '120s'")
    connection.execute("SET lock_timeout = '30s'")
    connection.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.execute("SET timezone = 'UTC'")
    connection.execute("SELECT set_config('application_name', %s, false)", [_NAME])
    # A server may have other defaults. The second look of a condemn pass needs a snapshot of its own, and what a
    # removal follows must not be forgotten by a power loss.
    connection.execute("SET default_transaction_isolation = 'read committed'")
    connection.execute("SET synchronous_commit = on")
    # Everything hot here asks about one row by its key. For "is there any reference?" the planner bets on finding one
    # early in a scan, and loses the whole table when there is none.
    connection.execute("SET enable_seqscan = off")
    connection.execute("SET jit = off")
    connection.commit()


class Database:
    """A pool of connections to one database. Thread-safe."""

    def __init__(self, dsn: str, *, most: int) -> None:
        self.dsn = dsn
        self._pool: ConnectionPool[Tx] = ConnectionPool(
            dsn,
            min_size=1,
            max_size=most,
            timeout=15,
            configure=_prepare,
            check=ConnectionPool.check_connection,
            reconnect_timeout=5,
            open=False,
        )

    def open(self) -> None:
        """Open the pool and wait for its first connection. Raises DatabaseUnavailable."""
        self._pool.open()
        try:
            self._pool.wait(timeout=15)
        except PoolTimeout as late:
            self._pool.close(timeout=1)
            raise DatabaseUnavailable(
                "PostgreSQL does not answer; check SNAPSHED_DATABASE_URL and the server."
            ) from late

    def close(self) -> None:
        """Close every connection."""
        self._pool.close(timeout=3)

    @contextmanager
    def transaction(self) -> Generator[Tx]:
        """One READ COMMITTED transaction: committed at the end of the block, rolled back if it raises.

        Raises DatabaseUnavailable when the connection is lost; whether a commit then took effect is unknown, and
        every caller is written so that repeating it is harmless.
        """
        if _inside.get():
            raise Broken("A transaction was about to open inside another one.")
        try:
            with self._pool.connection() as connection:
                token = _inside.set(True)
                try:
                    with connection.transaction():
                        yield connection
                finally:
                    _inside.reset(token)
        except PoolTimeout as late:
            raise DatabaseUnavailable("PostgreSQL does not answer; try again in a moment.") from late
        except (pg.OperationalError, pg.InterfaceError) as lost:
            if isinstance(lost, pg.DeadlockDetected | pg.SerializationFailure):
                raise
            raise DatabaseUnavailable("The connection to PostgreSQL was lost; try again in a moment.") from lost

    def run(self, step: Callable[[Tx], T]) -> T:
        """Run `step` in a transaction of its own, again with a short random wait if PostgreSQL broke a deadlock."""
        for attempt in range(_ATTEMPTS):
            try:
                with self.transaction() as tx:
                    return step(tx)
            except (pg.DeadlockDetected, pg.SerializationFailure):
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.01, 0.05) * (attempt + 1))  # noqa: S311  jitter, not a secret
        raise Broken("A transaction was retried to no end.")

    @contextmanager
    def alone(self, lock: int) -> Generator[None]:
        """Hold an advisory lock of the first kind `lock` on a connection of its own, however many transactions pass.
        Raises Busy if another process holds it, and Conflict if another process of ours uses the database."""
        try:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                if connection.execute("SELECT pg_try_advisory_lock(%s, 0)", [lock]).fetchone() != (True,):
                    raise Busy("Another process is recovering this database; wait for it to end.")
                others = connection.execute(
                    """
                    SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name LIKE 'snapshed %%' AND application_name <> %s
                    """,
                    [_NAME],
                )
                if others.fetchone():
                    raise Conflict(
                        "A server or worker still uses this database; nothing was changed. Stop every one of them first."
                    )
                yield
        except (pg.OperationalError, pg.InterfaceError) as lost:
            raise DatabaseUnavailable("The connection to PostgreSQL was lost; try again in a moment.") from lost

    def answers(self) -> bool:
        """True if a trivial statement comes back."""
        try:
            with self.transaction() as tx:
                tx.execute("SELECT 1")
        except (DatabaseUnavailable, psycopg.Error):
            return False
        return True

    def listen(self, channel: str) -> psycopg.Connection[Any]:
        """A connection of its own, outside the pool, that hears NOTIFY on `channel`. The caller closes it."""
        connection = psycopg.connect(self.dsn, autocommit=True)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        return connection

"""Backups of the embedded database in one file, by PostgreSQL's own programs, and the way back.

A backup holds the installation's private keys and everybody's token hashes: its mode is 0600.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from snapshed.db.cluster import DATABASE, ENVIRONMENT, binaries
from snapshed.errors import Conflict, DatabaseUnavailable, Invalid

_RESTORED, _BEFORE = f"{DATABASE}_restored", f"{DATABASE}_before_restore"


def write(dsn: str, file: Path) -> None:
    """Write a consistent copy of the database, whoever works on it meanwhile, into a file that appears when it is whole.
    Raises Invalid for a file that cannot be written, and DatabaseUnavailable."""
    part = file.with_name(file.name + ".part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _run("pg_dump", f"--dbname={dsn}", "--format=custom", "--no-owner", f"--file={part}")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except OSError as problem:
        raise Invalid(f"The backup cannot be written to {file}: {problem.strerror or problem}.") from None
    finally:
        part.unlink(missing_ok=True)


def read(dsn: str, file: Path) -> str:
    """Read a backup into a database beside the one in use, closed to everybody until it is recovered, and return the id of
    its installation. Raises Invalid for what is no backup. Repeating it begins anew."""
    if not file.is_file():
        raise Invalid(f"There is no file {file}.")
    with _admin(dsn) as connection:
        _drop(connection, _RESTORED)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_RESTORED)))
    beside = make_conninfo(dsn, dbname=_RESTORED)
    try:
        _run("pg_restore", f"--dbname={beside}", "--single-transaction", "--exit-on-error", "--no-owner", str(file))
        with psycopg.connect(beside, autocommit=True) as connection:
            found = connection.execute("UPDATE installation SET recovering = true RETURNING id::text").fetchone()
    except (DatabaseUnavailable, psycopg.Error):
        found = None
    if found is None:
        raise Invalid(f"{file} is no backup that `snapshed backup` of this version or an earlier one has written.")
    return found[0]


def put_in_place(dsn: str) -> None:
    """Let the database that was read take the place of the one in use, which is kept beside. Raises Conflict while anybody
    is connected to that."""
    with _admin(dsn) as connection:
        _drop(connection, _BEFORE)
        try:
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, (DATABASE, _BEFORE)))
            )
        except pg.ObjectInUse:
            raise Conflict(
                "A server or worker still uses the database; nothing was changed. Stop every one of them, then restore."
            ) from None
        connection.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, (_RESTORED, DATABASE)))
        )


def forget(dsn: str) -> None:
    """Drop what was read and is not to take any place."""
    with _admin(dsn) as connection:
        _drop(connection, _RESTORED)


def _admin(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True)


def _drop(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _run(program: str, *options: str) -> None:
    done = subprocess.run(
        [binaries() / program, *options],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise DatabaseUnavailable(f"PostgreSQL's {program} did not succeed; the database was not changed.")

"""Reading rows into typed records. The one place where the driver's row factories are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString, TypeVar

from psycopg.rows import class_row, scalar_row

from snapshed.db.pool import Tx

R = TypeVar("R")


def many(tx: Tx, row: type[R], sql: LiteralString, values: Mapping[str, Any] | None = None) -> list[R]:
    """Every row of the answer as a record of type `row`, whose fields are named like the columns."""
    with tx.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(sql, values).fetchall()


def one(tx: Tx, row: type[R], sql: LiteralString, values: Mapping[str, Any] | None = None) -> R | None:
    """The first row of the answer as a record of type `row`, or None."""
    with tx.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(sql, values).fetchone()


def column(tx: Tx, kind: type[R], sql: LiteralString, values: Mapping[str, Any] | None = None) -> list[R]:
    """The first column of every row; `kind` says what it holds."""
    del kind  # only the checker reads it
    with tx.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(sql, values).fetchall()


def value(tx: Tx, kind: type[R], sql: LiteralString, values: Mapping[str, Any] | None = None) -> R | None:
    """The first column of the first row, or None if there is no row."""
    found = column(tx, kind, sql, values)
    return found[0] if found else None


def run(tx: Tx, sql: LiteralString, values: Mapping[str, Any] | None = None) -> int:
    """Run a statement and return how many rows it touched."""
    return tx.execute(sql, values).rowcount

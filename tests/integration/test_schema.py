"""What the database itself promises, read from its catalogue."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest
from fixtures.world import World

from snapshed.db.migrate import migrate
from snapshed.db.pool import Tx


def forgotten(tx: Tx) -> list[str]:
    """What the catalogue says about references to stored bytes that deletion would not know. Empty is right.

    Pins are promises, not references: they are asked about beside the views, and never changed.
    """
    found = tx.execute(
        """
        SELECT r.relname AS table_name, a.attname AS column_name, c.confdeltype IN ('a', 'r') AS is_kept,
               ARRAY(SELECT u.view_name::text FROM information_schema.view_column_usage u
                      WHERE u.table_name = r.relname AND u.column_name = a.attname) AS views,
               ARRAY(SELECT CASE WHEN t.tgtype & 8 > 0 THEN 'DELETE' ELSE 'UPDATE' END
                       FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                      WHERE t.tgrelid = c.conrelid AND t.tgtype & 24 > 0
                        AND p.prosrc LIKE '%INSERT INTO candidate%' AND p.prosrc LIKE '%' || a.attname || '%') AS enqueues
          FROM pg_constraint c
          JOIN pg_class r ON r.oid = c.conrelid
          JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
         WHERE c.contype = 'f' AND c.confrelid = 'blob'::regclass
        """
    ).fetchall()
    assert found, "the catalogue must have been read"
    wrong: list[str] = []
    for table, column, is_kept, views, enqueues in found:
        wanted_views = set() if table == "pin" else {"blob_reference", "live_reference"}
        wanted_triggers = {"DELETE"} if table == "pin" else {"DELETE", "UPDATE"}
        if not is_kept:
            wrong.append(f"{table}.{column} cascades: bytes would go without a tombstone")
        wrong += [f"{table}.{column} is not in {view}" for view in sorted(wanted_views - set(views))]
        wrong += [f"{event} of {table} does not enqueue {column}" for event in sorted(wanted_triggers - set(enqueues))]
    return wrong


def references_to_blob(world: World) -> set[tuple[str, str]]:
    """Table and column of every foreign key to `blob`."""
    with world.resources.database.transaction() as tx:
        found = tx.execute(
            """
            SELECT r.relname, a.attname FROM pg_constraint c
              JOIN pg_class r ON r.oid = c.conrelid
              JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
             WHERE c.contype = 'f' AND c.confrelid = 'blob'::regclass
            """
        ).fetchall()
    return {(table, column) for table, column in found}


def test_deletion_knows_every_reference_to_stored_bytes(world: World) -> None:
    """A collector that forgets one kind of reference destroys what it names; one that forgets it in `live_reference`
    refuses what may be read; and whoever lets go of a blob without enqueueing it leaks it."""
    with world.resources.database.transaction() as tx:
        assert forgotten(tx) == []


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (
            "CREATE TABLE cover (blob_id uuid NOT NULL REFERENCES blob)",
            [
                "cover.blob_id is not in blob_reference",
                "cover.blob_id is not in live_reference",
                "DELETE of cover does not enqueue blob_id",
                "UPDATE of cover does not enqueue blob_id",
            ],
        ),
        (
            "ALTER TABLE snapshot ADD COLUMN cover_id uuid REFERENCES blob ON DELETE SET NULL",
            [
                "snapshot.cover_id cascades: bytes would go without a tombstone",
                "snapshot.cover_id is not in blob_reference",
                "snapshot.cover_id is not in live_reference",
                "DELETE of snapshot does not enqueue cover_id",
                "UPDATE of snapshot does not enqueue cover_id",
            ],
        ),
        ("DROP TRIGGER build_changed ON build", ["UPDATE of build does not enqueue file_id", "UPDATE of build does not enqueue manifest_id"]),
    ],
)  # fmt: skip
def test_a_reference_that_deletion_does_not_know_is_noticed(
    world: World, change: LiteralString, noticed: list[str]
) -> None:
    with world.resources.database.transaction() as tx:
        tx.execute(change)
        assert sorted(forgotten(tx)) == sorted(noticed)


def test_an_announced_object_has_one_owner_whichever_kinds_of_owner_there_are(world: World) -> None:
    """What is announced and never confirmed goes with its owner; an owner the constraint forgets would leave it."""
    with world.resources.database.transaction() as tx:
        owners = tx.execute(
            """
            SELECT a.attname FROM pg_constraint c
              JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
             WHERE c.contype = 'f' AND c.conrelid = 'blob'::regclass AND a.attname <> 'project_id'
            """
        ).fetchall()
        rules = tx.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'blob'::regclass"
        ).fetchall()
    for rule in ("blob_pending_has_owner_and_deadline", "blob_live_has_no_owner"):
        assert all(owner in dict(rules)[rule] for (owner,) in owners)


def test_a_column_that_holds_a_blob_id_is_a_foreign_key(world: World) -> None:
    """Only the records of letting go may name a blob that is gone."""
    with world.resources.database.transaction() as tx:
        columns = tx.execute(
            """
            SELECT table_name, column_name FROM information_schema.columns
             WHERE table_schema = 'public' AND data_type = 'uuid'
               AND column_name IN ('blob_id', 'image_id', 'manifest_id', 'report_id', 'mask_id', 'file_id')
               AND table_name IN (SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE')
            """
        ).fetchall()
    may_dangle = {"candidate", "tombstone", "release"}
    assert {pair for pair in columns if pair[0] not in may_dangle} == references_to_blob(world)


def test_two_live_images_of_one_digest_cannot_exist_in_a_project(world: World) -> None:
    world.upload({"one.png": b"image"})
    with pytest.raises(psycopg.errors.UniqueViolation), world.resources.database.transaction() as tx:
        tx.execute(
            """
            INSERT INTO blob (id, project_id, kind, digest, size, storage_key, state, announced_at)
            SELECT gen_random_uuid(), project_id, kind, digest, size, storage_key || 'x', 'live', now()
              FROM blob WHERE kind = 'image'
            """
        )


def test_a_blob_that_is_named_cannot_be_deleted(world: World) -> None:
    world.upload({"one.png": b"image"})
    with pytest.raises(psycopg.errors.RestrictViolation), world.resources.database.transaction() as tx:
        tx.execute("DELETE FROM blob WHERE kind = 'image'")


def test_migrating_twice_changes_nothing(world: World) -> None:
    assert migrate(world.resources.database.dsn) == []

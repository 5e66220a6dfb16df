"""What the database itself promises, read from its catalogue."""

from __future__ import annotations

import psycopg
import pytest
from fixtures.world import World

from snapshed.db.migrate import migrate


def references_to_blob(world: World) -> dict[tuple[str, str], str]:
    """Every foreign key to `blob`: (table, column) and what happens on delete (`a` is NO ACTION)."""
    with world.resources.database.transaction() as tx:
        found = tx.execute(
            """
            SELECT r.relname, a.attname, c.confdeltype
              FROM pg_constraint c
              JOIN pg_class r ON r.oid = c.conrelid
              JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
             WHERE c.contype = 'f' AND c.confrelid = 'blob'::regclass
            """
        ).fetchall()
    return {(table, column): action for table, column, action in found}


@pytest.mark.parametrize("view", ["blob_reference", "live_reference"])
def test_a_view_that_decides_about_bytes_knows_every_reference(world: World, view: str) -> None:
    """A collector that forgets one kind of reference destroys what it names; one that forgets it in `live_reference`
    refuses what may be read. Pins are promises, not references, and asked about beside the views."""
    references = {pair for pair in references_to_blob(world) if pair[0] != "pin"}
    assert references, "the catalogue must have been read"
    with world.resources.database.transaction() as tx:
        used = tx.execute(
            "SELECT table_name, column_name FROM information_schema.view_column_usage WHERE view_name = %s", [view]
        ).fetchall()
    assert references <= set(used)


def test_no_reference_to_stored_bytes_ever_cascades(world: World) -> None:
    assert set(references_to_blob(world).values()) == {"a"}


def test_whoever_lets_go_of_a_blob_enqueues_it(world: World) -> None:
    """Each table with a reference, and the pins, has a delete trigger; those whose rows may change have one for that."""
    with world.resources.database.transaction() as tx:
        triggers = tx.execute(
            "SELECT event_object_table, event_manipulation FROM information_schema.triggers"
        ).fetchall()
    for table, _ in references_to_blob(world):
        assert (table, "DELETE") in triggers
        if table != "pin":
            assert (table, "UPDATE") in triggers


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
    assert {pair for pair in columns if pair[0] not in may_dangle} == set(references_to_blob(world))


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
    with pytest.raises(psycopg.errors.ForeignKeyViolation), world.resources.database.transaction() as tx:
        tx.execute("DELETE FROM blob WHERE kind = 'image'")


def test_migrating_twice_changes_nothing(world: World) -> None:
    assert migrate(world.resources.database.dsn) == []

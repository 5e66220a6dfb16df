"""A lost image is promised to nobody, and its next upload takes its place, whoever deletes, promises or names meanwhile.

Each test ends where it must: rows, objects and traces agree, and no receipt is complete beside bytes it speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from fixtures.judging import drop, file_of, found, judged, key_of, mend, sql
from fixtures.world import World, digest
from test_races import in_background, until, waits_for_a_lock
from test_withdrawal import CLEAN, COMMIT, NEXT, SECRET, compared, details, engine

from snapshed.engine import Engine
from snapshed.errors import MissingImages, NotFound
from snapshed.ledger import Draft, finalise_images, store
from snapshed.work import builds, condemn, deletion, remove, snapshots, uploads
from snapshed.work.deletion import releasing

__all__ = ["engine"]

A, B = b"image a", b"image b"


def lose(world: World, image: bytes = A) -> str:
    """An image's bytes go behind our back, and a repair notices. Returns the key they had."""
    key = key_of(world, image)
    drop(world, key)
    mend(world)
    return key


def damage(world: World, image: bytes = A) -> str:
    """A byte of an image flips, and a repair notices: what is left of it stands in the store."""
    key = key_of(world, image)
    file_of(world, key).write_bytes(image[::-1])
    mend(world, 2)
    return key


def heal(world: World, image: bytes = A) -> uploads.ForSession:
    session = world.begin()
    assert world.ask(session, image) == set()
    world.keep(session, image)
    return session


def can_be_read(world: World, image: bytes = A) -> bool:
    key = snapshots.image_key(world.resources, world.project.id, digest(image))
    return key is not None and world.resources.store.get(key) == image


def named_rows(world: World) -> int:
    """References to rows that are marked as lost."""
    return sql(world, "SELECT FROM blob_reference r JOIN blob b ON b.id = r.blob_id WHERE b.lost_at IS NOT NULL") + sql(
        world, "SELECT FROM pin p JOIN blob b ON b.id = p.blob_id WHERE b.lost_at IS NOT NULL"
    )


# --- What a mark means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [lose, damage])
def test_no_door_promises_reads_or_names_a_lost_image(world: World, harm: Callable[[World], str]) -> None:
    world.upload({"a.png": A, "b.png": B})
    world.tidy()
    harm(world)
    session = world.begin()
    assert world.ask(session, A, B) == {B}
    assert uploads.read(world.resources, world.project.id, digest(A), None) is None
    assert snapshots.image_key(world.resources, world.project.id, digest(A)) is None
    with pytest.raises(MissingImages) as refused:
        world.create({"a.png": A, "b.png": B})
    assert refused.value.digests == [digest(A)]


@pytest.mark.parametrize("harm", [lose, damage])
def test_the_next_upload_heals_every_snapshot_and_what_is_left_of_the_old_bytes_goes(
    world: World, harm: Callable[[World], str]
) -> None:
    first, second = world.upload({"a.png": A}), world.upload({"again.png": A, "b.png": B})
    world.tidy()
    old = harm(world)
    heal(world)
    assert can_be_read(world)
    assert [image.storage_key is not None for image in details(world, first).images] == [True]
    assert key_of(world, A) != old
    world.tidy()
    assert world.resources.store.head(old) is None
    assert found(world, 2) == []
    world.delete(first, second)
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.files() == []
    assert found(world, 2) == []


def test_an_image_that_its_own_session_stored_is_not_read_once_it_is_lost(world: World) -> None:
    session = world.begin()
    world.keep(session, A)
    damage(world)
    assert uploads.read(world.resources, world.project.id, digest(A), session.session_id) is None
    assert world.ask(session, A) == set()
    world.keep(session, A)
    world.create({"a.png": A})
    world.tidy()
    assert found(world, 2) == []


def test_a_file_that_comes_back_is_unmarked(world: World) -> None:
    """Somebody had unmounted a disk, or puts the file back from a backup."""
    world.upload({"a.png": A})
    world.tidy()
    key = key_of(world, A)
    away = file_of(world, key).rename(world.resources.settings.data / "away")
    mend(world)
    away.rename(file_of(world, key))
    assert found(world, 0) == [("lost", key)], "the rows know only that it was lost"
    assert found(world, 1) == [("found-again", key)]
    mend(world)
    assert found(world, 2) == []
    assert can_be_read(world)


def test_a_file_that_comes_back_damaged_or_too_late_is_not_unmarked(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    key = lose(world)
    file_of(world, key).write_bytes(A[::-1])
    assert mend(world) == []
    assert [kind for kind, _ in found(world)] == ["lost"]
    file_of(world, key).write_bytes(A)
    seen = judged(world)
    heal(world)
    from snapshed.work import repair

    assert repair.mend(world.resources, seen, confirmed=False) == []
    world.tidy()
    assert found(world, 2) == []


def test_a_comparison_does_not_look_at_damaged_bytes(world: World, engine: Engine) -> None:
    world.upload({"page.png": CLEAN}, **COMMIT)
    world.tidy()
    damage(world, CLEAN)
    head = world.upload({"page.png": SECRET}, **NEXT)
    compared(world, engine)
    (result,) = details(world, head).results
    assert (result.category, result.reason) == ("errored", "image_fetch_failed")


def test_a_lost_file_of_a_build_is_not_handed_out(world: World) -> None:
    number = world.build(b"an app")
    world.tidy()
    (row,) = [file for file in world.files() if file.startswith(digest(b"an app"))]
    file_of(world, f"1/1/1/{row}").write_bytes(b"AN APP")
    (mended,) = mend(world, 2)
    assert mended.kind == "altered"
    with pytest.raises(NotFound):
        builds.open_file(world.resources, [world.project.id], number)
    assert [item.snapshots for item in judged(world)] == [(number,)]
    world.delete(number)
    world.tidy()
    assert found(world, 2) == []


# --- Promises -----------------------------------------------------------------------------------------------------------


def test_a_session_that_was_told_before_can_name_the_image_once_somebody_has_healed_it(world: World) -> None:
    world.upload({"a.png": A})
    told = world.begin()
    assert world.ask(told, A) == {A}
    world.tidy()
    lose(world)
    heal(world)
    assert named_rows(world) == 0
    created = snapshots.create(
        world.resources, world.project, "token:test", b'{"app_id":"web","images":{"x.png":{"content_hash":"%s",'
        b'"width":8,"height":8}}}' % digest(A).encode(), told.session_id,
    )  # fmt: skip
    assert created.number
    world.tidy()
    assert found(world, 2) == []


def test_two_uploads_of_a_lost_image_at_once_make_one_whole_image(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    lose(world)
    first, second = world.begin(), world.begin()
    rows = [store(world.resources, session, [Draft("image", digest(A), A)]) for session in (first, second)]
    for session, announced in zip((first, second), rows, strict=True):
        finalise_images(world.resources, session, announced)
    world.tidy()
    assert len([file for file in world.files() if file.startswith(digest(A))]) == 1
    assert can_be_read(world)
    assert found(world, 2) == []


def test_a_whole_batch_heals_what_is_lost_and_stores_the_rest(world: World) -> None:
    images = {f"{number}.png": f"image {number}".encode() for number in range(6)}
    world.upload(images)
    world.tidy()
    for number in (1, 3, 5):
        lose(world, images[f"{number}.png"])
    session = world.begin()
    assert len(world.ask(session, *images.values())) == 3
    world.keep(session, *images.values(), b"new")
    assert all(can_be_read(world, image) for image in images.values())
    world.tidy()
    assert found(world, 2) == []


# --- Deletions ------------------------------------------------------------------------------------------------------------


def test_a_receipt_waits_for_the_bytes_that_took_the_place_of_what_it_released(world: World) -> None:
    """A deletion released the image and waits for a session that was promised it. Then the bytes are lost and another
    session uploads them again: the receipt must not close while they stand for sessions alone."""
    number = world.upload({"a.png": A})
    told = world.begin()
    world.ask(told, A)
    deletion_id = world.delete(number)
    world.tidy()
    damage(world)
    heal(world)
    world.tidy()
    receipt = world.receipt(deletion_id)
    assert receipt["state"] == "removing"
    assert receipt["objects"]["image"] == {
        "released": 2, "removed": 1, "waiting": 0, "kept_shared": 0, "kept_pinned": 1
    }  # fmt: skip
    assert world.stored(A) == {A}
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []
    assert found(world, 2) == []


def test_an_urgent_deletion_meets_the_image_that_took_the_place_of_what_it_released(world: World) -> None:
    """As if the uploader had lost against the row that was there: an urgent deletion ends its session."""
    number = world.upload({"a.png": A})
    world.tidy()
    lose(world)
    deletion_id = world.delete(number, urgent=True)
    heal(world)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.stored(A) == set()


@pytest.mark.parametrize("harm", [lose, damage])
def test_a_snapshot_that_is_marked_and_not_released_yet_releases_the_healed_image(
    world: World, monkeypatch: pytest.MonkeyPatch, harm: Callable[[World], str]
) -> None:
    numbers = [world.upload({"a.png": A}) for _ in range(3)]
    world.tidy()
    old = harm(world)
    monkeypatch.setattr(releasing, "_STEP_ARTIFACTS", 1)
    deletion_id = world.delete(*numbers[:2])
    deletion.release_waiting(world.resources)
    session = heal(world)
    world.tidy()
    receipt = world.receipt(deletion_id)
    assert receipt["state"] == "complete"
    assert receipt["objects"]["image"]["kept_shared"] == 1
    assert world.resources.store.head(old) is None
    assert can_be_read(world)
    second = world.delete(numbers[2])
    world.tidy()
    assert world.receipt(second)["state"] == "removing", "the healing session still holds it"
    uploads.drop(world.resources, session, digest(A))
    world.tidy()
    assert world.receipt(second)["state"] == "complete"
    assert world.files() == []
    assert found(world, 2) == []


def test_a_complete_receipt_stays_true_while_the_replaced_bytes_wait_to_go(world: World) -> None:
    """It says kept_shared of the image. After the healing the old row's bytes go, and the image is named under another
    key: at no moment does it stand unanswered for."""
    first, second = world.upload({"a.png": A}), world.upload({"again.png": A})
    deletion_id = world.delete(first)
    world.tidy()
    assert world.receipt(deletion_id)["objects"]["image"]["kept_shared"] == 1
    damage(world)
    heal(world)
    assert world.count("tombstone") == 1
    assert found(world) == []
    last = world.delete(second)
    assert world.receipt(last)["objects"]["image"]["released"] == 2, "the damaged bytes still stand, and are its too"
    assert found(world) == []
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.receipt(last)["state"] == "complete"
    assert world.files() == []
    assert found(world, 2) == []


def test_deleting_a_snapshot_whose_image_is_lost_completes(world: World) -> None:
    number = world.upload({"a.png": A, "b.png": B})
    world.tidy()
    damage(world)
    lose(world, B)
    deletion_id = world.delete(number)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []
    assert found(world, 2) == []


def test_withdrawing_a_lost_image_takes_what_is_left_of_it(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    damage(world)
    deletion_id = world.withdraw(A)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.stored(A) == set()
    assert found(world, 2) == []


# --- Races: one side is frozen in the middle ---------------------------------------------------------------------------------


def blob_of(world: World, image: bytes = A) -> UUID:
    with world.resources.database.transaction() as tx:
        row = tx.execute("SELECT id FROM blob WHERE digest = %s AND state = 'live'", [digest(image)]).fetchone()
    assert row is not None
    return row[0]


def upload_again(world: World) -> Callable[[], None]:
    session = world.begin()
    return lambda: world.keep(session, A)


def test_healing_waits_for_a_create_that_is_naming_the_row_and_takes_its_reference_along(world: World) -> None:
    """A create locked the row before it was marked and commits after. Its snapshot must not be left with a row that no
    later upload would heal, since the image is whole by then."""
    world.upload({"a.png": A})
    world.tidy()
    with psycopg.connect(world.resources.database.dsn) as naming:
        naming.execute("SELECT id FROM blob WHERE digest = %s FOR KEY SHARE", [digest(A)])
        naming.execute(
            """
            INSERT INTO snapshot_image (artifact_id, name, image_id, digest, width, height)
            SELECT artifact_id, 'late.png', image_id, digest, 8, 8 FROM snapshot_image
            """
        )
        drop(world, key_of(world, A))
        mend_only(world)
        thread, outcome = in_background(upload_again(world))
        until(lambda: waits_for_a_lock(world))
        naming.commit()
    thread.join()
    assert outcome == [None]
    assert named_rows(world) == 0
    sql(world, "DELETE FROM snapshot_image WHERE name = 'late.png'")
    world.tidy()
    assert found(world, 2) == []


def mend_only(world: World) -> None:
    from snapshed.work import repair

    repair.mend(world.resources, judged(world), confirmed=False)


def test_healing_waits_for_a_promise_that_is_being_made_and_takes_it_along(world: World) -> None:
    world.upload({"a.png": A})
    told = world.begin()
    world.tidy()
    with psycopg.connect(world.resources.database.dsn) as promising:
        promising.execute("SELECT id FROM blob WHERE digest = %s FOR KEY SHARE", [digest(A)])
        promising.execute("INSERT INTO pin VALUES (%s, %s, 'told')", [told.session_id, blob_of(world)])
        drop(world, key_of(world, A))
        mend_only(world)
        thread, outcome = in_background(upload_again(world))
        until(lambda: waits_for_a_lock(world))
        promising.commit()
    thread.join()
    assert outcome == [None]
    assert named_rows(world) == 0
    assert sql(world, "SELECT FROM pin WHERE how = 'told' AND session_id = %s", [told.session_id]) == 1


def test_healing_waits_for_a_deletion_that_is_taking_the_rows_away(world: World) -> None:
    """The deletion releases the lost row and closes once that is gone; the upload finds nothing left to heal."""
    number = world.upload({"a.png": A})
    world.tidy()
    lose(world)
    with psycopg.connect(world.resources.database.dsn) as deleting:
        deleting.execute("SELECT FROM artifact FOR UPDATE")
        thread, outcome = in_background(upload_again(world))
        until(lambda: waits_for_a_lock(world))
        deleting.rollback()
    thread.join()
    assert outcome == [None]
    assert named_rows(world) == 0
    deletion_id = world.delete(number)
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert found(world, 2) == []


def test_healing_and_condemning_of_the_same_row_leave_one_of_them_nothing_to_do(world: World) -> None:
    """The last snapshot that named the lost image is deleted; the collector holds the row when the upload comes."""
    number = world.upload({"a.png": A})
    world.tidy()
    lose(world)
    deletion_id = world.delete(number)
    with psycopg.connect(world.resources.database.dsn) as collecting:
        collecting.execute("SELECT FROM blob WHERE lost_at IS NOT NULL FOR UPDATE")
        thread, outcome = in_background(upload_again(world))
        until(lambda: waits_for_a_lock(world))
        condemn.condemn(world.resources)
        remove.remove(world.resources)
        collecting.rollback()
    thread.join()
    assert outcome == [None]
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []
    assert found(world, 2) == []


def test_a_receipt_that_closes_at_this_moment_is_not_added_to(world: World) -> None:
    """The closing transaction has judged every released object and is about to sign. Were one added now, the signed
    receipt would not balance."""
    first, second = world.upload({"a.png": A}), world.upload({"again.png": A})
    deletion_id = world.delete(first)
    sql(world, "UPDATE blob SET lost_at = now() WHERE digest = %s", [digest(A)])
    with psycopg.connect(world.resources.database.dsn) as closing:
        closing.execute("SELECT FROM deletion WHERE id = %s FOR UPDATE", [deletion_id])
        thread, outcome = in_background(upload_again(world))
        until(lambda: waits_for_a_lock(world))
        closing.execute(
            """
            UPDATE deletion SET state = 'complete', completed_at = now(), receipt = '{"objects": {}}', journaled_at = now()
             WHERE id = %s
            """,
            [deletion_id],
        )
        closing.commit()
    thread.join()
    assert outcome == [None]
    assert sql(world, "SELECT FROM release WHERE deletion_id = %s AND kind = 'image'", [deletion_id]) == 1
    assert second

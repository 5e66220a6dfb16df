"""Reconcile finds what is wrong, names it, and takes nothing that is under way for wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures.judging import (
    drop,
    file_of,
    found,
    judged,
    key_of,
    key_of_kind,
    lying,
    plant_orphan,
    put,
    sql,
)
from fixtures.s3 import ACCESS, S3, SECRET
from fixtures.world import World, a_world, digest

from snapshed.blobs import Found
from snapshed.domain import ids
from snapshed.errors import Broken, StoreUnavailable
from snapshed.ledger import Draft, store
from snapshed.settings import Secret
from snapshed.work import condemn, traces

A, B = b"image a", b"image b"


@pytest.fixture(params=["disk", "s3"])
def anywhere(request: pytest.FixtureRequest, dsn: str, tmp_path: Path) -> Iterator[World]:
    settings: dict[str, Any] = {}
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        settings = {
            "store_url": f"s3://{s3.bucket}/{tmp_path.name}",
            "store_endpoint": s3.endpoint,
            "store_access_key_id": Secret(ACCESS),
            "store_secret_access_key": Secret(SECRET),
            "put_limit": timedelta(seconds=60),
        }
    with a_world(dsn, tmp_path, **settings) as made:
        yield made


# --- What is wrong is named -----------------------------------------------------------------------------------------


def test_at_rest_everything_agrees(anywhere: World) -> None:
    anywhere.upload({"a.png": A, "b.png": B})
    anywhere.build(b"an app")
    anywhere.tidy()
    assert found(anywhere, 2) == []


def test_an_object_that_no_row_explains_is_an_orphan(anywhere: World) -> None:
    anywhere.upload({"a.png": A})
    anywhere.tidy()
    key = plant_orphan(anywhere)
    assert found(anywhere, 0) == []
    assert found(anywhere) == [("orphan", key)]


def test_an_object_with_a_foreign_name_is_told_apart(anywhere: World) -> None:
    put(anywhere, "holiday photos/beach.jpg", b"sand")
    assert found(anywhere) == [("foreign", "holiday photos/beach.jpg")]


def test_an_image_that_is_gone_is_lost_and_says_which_snapshots_suffer(anywhere: World) -> None:
    numbers = [anywhere.upload({"a.png": A, "b.png": B}), anywhere.upload({"again.png": A})]
    anywhere.tidy()
    key = key_of(anywhere, A)
    drop(anywhere, key)
    (item,) = judged(anywhere)
    assert (item.kind, item.key, item.snapshots) == ("lost", key, tuple(numbers))


def test_a_flipped_byte_is_seen_by_reading_and_not_before(world: World) -> None:
    number = world.upload({"a.png": A})
    world.tidy()
    key = key_of(world, A)
    file_of(world, key).write_bytes(b"imagE a")
    assert found(world, 1) == []
    (item,) = judged(world, 2)
    assert (item.kind, item.key, item.snapshots) == ("altered", key, (number,))


def test_an_object_that_was_cut_short_has_the_wrong_size(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    key = key_of(world, A)
    file_of(world, key).write_bytes(A[:3])
    assert found(world, 1) == [("wrong-size", key)]
    assert found(world, 2) == [("wrong-size", key)], "and is told once"


def test_an_edited_manifest_is_named(world: World) -> None:
    """Somebody makes the manifest name another image, and keeps it valid and of the same length."""
    number = world.upload({"a.png": A})
    world.tidy()
    key = key_of_kind(world, "manifest")
    text = file_of(world, key).read_text()
    file_of(world, key).write_text(text.replace(digest(A), digest(B)))
    (item,) = judged(world, 2)
    assert (item.kind, item.key, item.snapshots) == ("edited", key, (number,))
    assert "manifest" in item.advice


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM snapshot_image WHERE name = 'b.png'",
        "UPDATE snapshot_image SET name = 'c.png' WHERE name = 'b.png'",
        "UPDATE snapshot SET head_ref = 'other'",
        "UPDATE snapshot_image SET width = 9",
    ],
)
def test_rows_that_were_edited_contradict_the_manifest(world: World, change: str) -> None:
    world.upload({"a.png": A, "b.png": B})
    world.hold(1)
    world.tidy()
    assert found(world, 2) == []
    sql(world, change)
    sql(world, "INSERT INTO candidate (blob_id, project_id, cause) SELECT id, project_id, 'test' FROM blob")
    assert found(world, 2) == [("contradicting", key_of_kind(world, "manifest"))]


def test_a_hold_that_the_manifest_does_not_tell_is_a_contradiction(world: World) -> None:
    """With the database lost, the snapshot would come back without its hold."""
    number = world.upload({"a.png": A})
    world.hold(number)
    world.tidy()
    sql(world, "UPDATE hold SET id = gen_random_uuid()")
    assert found(world, 2) == [("contradicting", key_of_kind(world, "manifest"))]


def test_trace_rows_of_nothing_are_strays(world: World) -> None:
    stray = ids.trace_id(world.resources.new_id())
    sql(world, "INSERT INTO trace (id, trace_id, event, at, facts) VALUES (%s, %s, 'x', now(), '{}')", [stray, stray])
    assert found(world) == [("stray-trace", str(stray))]


def test_a_missing_trace_row_is_named_for_each_event(world: World) -> None:
    world.upload({"a.png": A})
    world.build(b"an app")
    world.tidy()
    sql(world, "DELETE FROM trace WHERE event = 'snapshot'")
    (item,) = judged(world)
    assert item.kind == "missing-trace"
    assert "the snapshot of" in item.advice


def test_a_half_written_file_is_named_unless_its_put_may_be_under_way(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    nobody = f"1/1/1/{digest(B)}.{world.resources.new_id()}#1"
    beside = key_of(world, A) + "#2"
    for name in (nobody, beside):
        file_of(world, name).write_bytes(b"half")
    session = world.begin()
    (announced,) = store(world.resources, session, [Draft("image", digest(B), B)])
    file_of(world, announced.storage_key + "#1").write_bytes(b"half")
    assert sorted(found(world)) == sorted([("half-written", nobody), ("half-written", beside)])


def test_a_row_that_nothing_names_and_nobody_looks_at_is_named(world: World) -> None:
    world.keep(world.begin(), A)
    sql(world, "DELETE FROM pin")
    sql(world, "DELETE FROM candidate")
    assert found(world, 0) == [("unowned-row", key_of(world, A))]


def test_work_that_nobody_takes_is_named_after_an_hour(world: World) -> None:
    """No worker runs. For an hour that is a restart; after that somebody should be told."""
    number = world.upload({"a.png": A})
    session = world.begin()
    world.tidy()
    world.delete(number)
    assert found(world, 0) == []
    world.clock.pass_time(timedelta(hours=3))
    assert {kind for kind, _ in found(world, 0)} == {"idle-work"}
    assert str(session.session_id) in {key for _, key in found(world, 0)}
    world.tidy()
    assert found(world, 0) == []


def test_a_deletion_that_the_store_has_not_noted_is_named_after_an_hour(world: World) -> None:
    number = world.upload({"a.png": A})
    world.tidy()
    objects = world.resources.settings.data / "objects"
    objects.rename(objects.with_name("away"))
    objects.write_text("no folder")
    deletion_id = world.delete(number)
    objects.unlink()
    objects.with_name("away").rename(objects)
    world.clock.pass_time(timedelta(minutes=59))
    condemn.condemn(world.resources)
    assert found(world, 0) == []
    world.clock.pass_time(timedelta(minutes=2))
    assert found(world, 0) == [("unjournaled-deletion", str(deletion_id))], (
        "its tombstones wait for it, and say nothing"
    )


def test_a_receipt_that_does_not_add_up_is_named(world: World) -> None:
    deletion_id = str(world.delete(world.upload({"a.png": A})))
    world.tidy()
    assert found(world, 0) == []
    sql(world, "DELETE FROM release WHERE kind = 'image'")
    assert found(world, 0) == [("unbalanced-receipt", deletion_id)]


def test_a_complete_receipt_of_something_that_stands_is_named(world: World) -> None:
    """The worst that can be: the receipt is signed, and a row says that the bytes are still to be removed."""
    deletion_id = str(world.delete(world.upload({"a.png": A})))
    world.tidy()
    sql(
        world,
        """
        INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                               not_final_before, next_at)
        SELECT storage_key, blob_id, 1, kind, digest, bytes, '{}', now(), now(), now() FROM release WHERE kind = 'image'
        """,
    )
    assert found(world, 0) == [("broken-receipt", deletion_id)]


def test_what_was_shared_and_is_deleted_later_breaks_no_receipt(world: World) -> None:
    """The first receipt is complete and says kept_shared. While the second deletion works on the same image, somebody
    answers for it, and the first receipt stays true."""
    first, second = world.upload({"a.png": A}), world.upload({"a.png": A})
    world.delete(first)
    world.tidy()
    world.delete(second)
    assert found(world, 0) == []
    condemn.condemn(world.resources)
    assert found(world, 0) == []


# --- Work under way is not ------------------------------------------------------------------------------------------


def test_what_is_being_uploaded_deleted_or_traced_is_no_disagreement(world: World) -> None:
    kept = world.upload({"a.png": A})
    gone = world.upload({"b.png": B})
    session = world.begin()
    world.keep(session, b"not named yet")
    store(world.resources, session, [Draft("image", digest(b"announced"), b"announced")])
    traces.write_traces(world.resources)
    world.upload({"later.png": b"trace not written yet"})
    world.delete(gone)
    condemn.condemn(world.resources)
    assert found(world, 2) == []
    assert kept


def test_an_image_that_goes_while_the_store_is_being_looked_at_is_not_lost(world: World) -> None:
    """The rows are read, then a deletion runs to its end, then the store is asked and has nothing: no row says any more
    that it should."""
    number = world.upload({"a.png": A})
    world.tidy()

    def deleted_meanwhile(listing: Iterator[Found]) -> Iterator[Found]:
        del listing
        yield from ()

    liar = lying(world, deleted_meanwhile)
    real_held = world.resources.store.held

    def held(keys: list[str]) -> set[str]:
        world.delete(number)
        world.tidy()
        return real_held(keys)

    liar.resources.store.held = held
    assert found(liar) == []


def test_an_object_that_is_stored_while_the_listing_runs_is_no_orphan(world: World) -> None:
    session = world.begin()

    def uploaded_meanwhile(listing: Iterator[Found]) -> Iterator[Found]:
        world.keep(session, A)
        yield from listing

    assert found(lying(world, uploaded_meanwhile)) == []


# --- A store that cannot be believed ----------------------------------------------------------------------------------


def without_images(listing: Iterator[Found]) -> Iterator[Found]:
    return (item for item in listing if item.key.startswith(".snapshed/"))


def test_a_listing_that_lacks_objects_makes_nothing_lost_and_is_not_trusted(world: World) -> None:
    world.upload({"a.png": A, "b.png": B})
    world.tidy()
    assert found(lying(world, without_images)) == [], "they may have been stored since the listing began"
    world.clock.pass_time(world.resources.settings.put_limit + timedelta(seconds=1))
    (item,) = judged(lying(world, without_images))
    assert item.kind == "unlisted"
    assert "3 objects" in item.advice


def test_a_listing_that_shows_what_is_not_there_makes_no_orphans(world: World) -> None:
    def with_ghosts(listing: Iterator[Found]) -> Iterator[Found]:
        yield from listing
        yield Found(f"1/1/1/{digest(B)}.{world.resources.new_id()}", 7)

    assert found(lying(world, with_ghosts)) == []


def test_a_listing_that_shows_everything_twice_changes_nothing(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    key = plant_orphan(world)

    def twice(listing: Iterator[Found]) -> Iterator[Found]:
        for item in listing:
            yield from (item, item)

    assert found(lying(world, twice)) == [("orphan", key)]


def test_a_listing_that_breaks_off_stops_everything(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    plant_orphan(world)

    def breaking(listing: Iterator[Found]) -> Iterator[Found]:
        yield next(listing)
        raise StoreUnavailable("The store does not answer as it should.")

    with pytest.raises(StoreUnavailable):
        found(lying(world, breaking))


@pytest.mark.parametrize("change", [{"id": "00000000-0000-0000-0000-000000000000"}, {"epoch": 2}])
def test_another_installations_store_is_not_looked_at(world: World, change: dict[str, object]) -> None:
    marker = file_of(world, ".snapshed/installation.json")
    marker.write_text(json.dumps(json.loads(marker.read_text()) | change))
    with pytest.raises(Broken):
        found(world)


def test_objects_of_a_later_epoch_mean_that_the_database_is_too_old(world: World) -> None:
    """A backup of the database was put back and the store has moved on: nothing may be taken for an orphan."""
    put(world, f"2/1/1/{digest(A)}.{world.resources.new_id()}", A)
    with pytest.raises(Broken, match="epoch 2"):
        found(world)


# --- Size -------------------------------------------------------------------------------------------------------------


def test_pages_meet_without_gaps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is looked at page by page; whatever lies at the edge of a page is looked at too."""
    from snapshed.work.reconcile import objects, rows

    images = {f"{number}.png": f"image {number}".encode() for number in range(7)}
    world.upload(images)
    world.tidy()
    gone = sorted(key_of(world, image) for image in images.values())
    orphans = sorted(plant_orphan(world, f"orphan {number}".encode()) for number in range(5))
    for key in gone:
        drop(world, key)
    for room in (objects, rows):
        monkeypatch.setattr(room, "_PAGE", 2)
    seen = found(world)
    assert sorted(key for kind, key in seen if kind == "lost") == gone
    assert sorted(key for kind, key in seen if kind == "orphan") == orphans


def test_it_says_how_far_it_is(world: World) -> None:
    from snapshed.work import reconcile

    world.upload({"a.png": A, "b.png": B})
    world.tidy()
    told: list[tuple[str, int]] = []
    list(reconcile.disagreements(world.resources, 1, lambda what, done: told.append((what, done))))
    assert ("rows looked up", 3) in told

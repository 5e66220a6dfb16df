"""`reconcile --repair` mends what loses nothing, through the same doors as everything else, and says what is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fixtures.judging import (
    drop,
    file_of,
    found,
    judged,
    key_of,
    key_of_kind,
    lying,
    mend,
    plant_orphan,
    put,
    sql,
)
from fixtures.world import World, digest
from test_reconcile import anywhere, without_images
from test_withdrawal import CLEAN, COMMIT, NEXT, SECRET, compared, details, engine

from snapshed.blobs import Found
from snapshed.domain import ids, keys
from snapshed.engine import Engine
from snapshed.errors import Conflict, MissingImages, StoreUnavailable
from snapshed.ledger import Draft, store
from snapshed.work import repair, review, traces

__all__ = ["anywhere", "engine"]

A, B = b"image a", b"image b"


# --- Orphans ----------------------------------------------------------------------------------------------------------


def test_an_orphan_is_removed_by_a_deletion_with_a_receipt(anywhere: World) -> None:
    anywhere.upload({"a.png": A})
    key = plant_orphan(anywhere, b"nobody knows me")
    (mended,) = mend(anywhere)
    deletion_id = mended.done.removeprefix("removed by deletion ")
    receipt = anywhere.receipt(UUID(deletion_id))
    assert (receipt["state"], receipt["requested_by"], receipt["snapshots"]) == ("complete", "repair", [])
    assert receipt["objects"]["file"]["removed"] == 1
    assert receipt["bytes"]["removed"] == len(b"nobody knows me")
    assert anywhere.resources.store.head(key) is None
    assert anywhere.stored(A) == {A}
    entry = anywhere.resources.store.get(keys.journal_entry(UUID(deletion_id)))
    assert entry is not None
    assert json.loads(entry)["requested_by"] == "repair"
    assert found(anywhere, 2) == []


def test_a_copy_of_a_stored_file_elsewhere_is_an_orphan_and_its_original_stays(world: World) -> None:
    """The copy carries the digest and the id of a living object. What is removed goes by its key alone."""
    world.upload({"a.png": A})
    world.tidy()
    original = key_of(world, A)
    copy = original.replace("1/1/1/", "1/1/7/")
    put(world, copy, A)
    (mended,) = mend(world)
    assert mended.key == copy
    receipt = world.receipt(UUID(mended.done.removeprefix("removed by deletion ")))
    assert receipt["objects"]["file"] == {
        "released": 1, "removed": 1, "waiting": 0, "kept_shared": 0, "kept_pinned": 0
    }, "the receipt speaks of the copy, not of the original"  # fmt: skip
    assert world.stored(A) == {A}
    assert found(world, 2) == []


def test_orphans_of_no_project_are_adopted_too(world: World) -> None:
    put(world, f"1/99/98/{digest(B)}.{world.resources.new_id()}", B)
    mend(world)
    assert found(world) == []
    assert world.files() == []


def test_a_foreign_file_is_left_alone_without_a_word_from_a_person(anywhere: World) -> None:
    put(anywhere, "holiday photos/beach.jpg", b"sand")
    assert mend(anywhere) == []
    assert found(anywhere) == [("foreign", "holiday photos/beach.jpg")]
    mend(anywhere, confirmed=True)
    assert found(anywhere) == []


def test_what_a_row_explains_by_now_is_not_adopted(world: World) -> None:
    """It was an orphan when it was found. Before the repair, a row for it is written: by a restore, or by hand."""
    key = plant_orphan(world, A)
    seen = judged(world)
    sql(
        world,
        """
        INSERT INTO blob (id, project_id, kind, digest, size, storage_key, state, announced_at)
        VALUES (gen_random_uuid(), %s, 'image', %s, 7, %s, 'live', now())
        """,
        [world.project.id, digest(A), key],
    )
    assert repair.mend(world.resources, seen, confirmed=False) == []
    assert world.count("tombstone") == world.count("deletion") == 0


def test_what_is_gone_by_now_is_not_adopted(world: World) -> None:
    key = plant_orphan(world)
    seen = judged(world)
    drop(world, key)
    assert repair.mend(world.resources, seen, confirmed=False) == []
    assert world.count("deletion") == 0


def test_a_store_that_does_not_answer_stops_a_repair_before_anything_is_changed(world: World) -> None:
    plant_orphan(world)
    seen = judged(world)
    file_of(world, ".snapshed/installation.json").rename(world.resources.settings.data / "kept")
    objects = world.resources.settings.data / "objects"
    objects.rename(objects.with_name("away"))
    objects.write_text("no folder")
    with pytest.raises(StoreUnavailable):
        repair.mend(world.resources, seen, confirmed=True)
    assert world.count("tombstone") == world.count("deletion") == 0


def test_more_orphans_than_anybody_would_expect_need_a_word_from_a_person(world: World) -> None:
    """One in a hundred, at least 20: beyond that it is rather the wrong database beside the right store."""
    for number in range(21):
        plant_orphan(world, f"orphan {number}".encode())
    with pytest.raises(Conflict, match=r"21 objects that no row explains.*--yes"):
        mend(world)
    assert world.count("deletion") == 0
    assert len(world.files()) == 21
    assert len(mend(world, confirmed=True)) == 21
    assert world.files() == []
    assert world.count("deletion") == 1


def test_more_lost_images_than_anybody_would_expect_need_a_word_from_a_person(world: World) -> None:
    images = {f"{number}.png": f"image {number}".encode() for number in range(21)}
    world.upload(images)
    world.tidy()
    for image in images.values():
        drop(world, key_of(world, image))
    with pytest.raises(Conflict, match="21 lost or damaged objects"):
        mend(world)
    assert sql(world, "SELECT FROM blob WHERE lost_at IS NOT NULL") == 0
    assert len(mend(world, confirmed=True)) == 21


def test_a_lying_listing_marks_and_removes_nothing(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    world.clock.pass_time(timedelta(hours=1))

    def a_lie(listing: Iterator[Found]) -> Iterator[Found]:
        yield from without_images(listing)
        yield Found(f"1/1/1/{digest(B)}.{world.resources.new_id()}", 7)

    liar = lying(world, a_lie)
    assert [item.kind for item in judged(liar)] == ["unlisted"]
    assert mend(liar) == []
    assert sql(world, "SELECT FROM blob WHERE lost_at IS NOT NULL") == 0
    assert world.stored(A) == {A}


# --- Files and rows that somebody forgot -------------------------------------------------------------------------------


def test_half_written_files_of_nobody_are_removed_and_the_object_beside_stays(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    for name in (key_of(world, A) + "#2", f"1/1/1/{digest(B)}.{world.resources.new_id()}#7"):
        file_of(world, name).write_bytes(b"half")
    assert [item.kind for item in mend(world)] == ["half-written", "half-written"]
    assert found(world, 2) == []
    assert world.stored(A) == {A}


def test_a_row_that_nothing_names_goes_with_its_bytes(world: World) -> None:
    world.keep(world.begin(), A)
    sql(world, "DELETE FROM pin")
    sql(world, "DELETE FROM candidate")
    mend(world, 0)
    assert found(world, 2) == []
    assert world.files() == []


def test_pins_and_announcements_of_ended_owners_go(world: World) -> None:
    session = world.begin()
    world.keep(session, A)
    store(world.resources, session, [Draft("image", digest(B), B)])
    sql(world, "UPDATE session SET state = 'cancelled'")
    world.clock.pass_time(timedelta(hours=2))
    assert sorted(kind for kind, _ in found(world, 0)) == ["stale-pin", "stuck-announcement"]
    mend(world, 0)
    assert found(world, 2) == []
    assert world.files() == []


def test_what_a_dead_worker_announced_for_a_comparison_goes_with_the_next_attempt(world: World, engine: Engine) -> None:
    """A worker stores its masks and report and dies before it commits. The comparison is made again, and nothing of the
    first attempt stays in the store."""
    from snapshed.db import comparisons
    from snapshed.ledger import ForComparison
    from snapshed.work import compare

    base, head = world.upload({"page.png": CLEAN}, **COMMIT), world.upload({"page.png": SECRET}, **NEXT)
    (comparison_id,) = compare.unclaimed(world.resources, 10)
    claim, now = world.resources.new_id(), world.resources.now()
    taken = world.resources.database.run(
        lambda tx: comparisons.claim(tx, comparison_id, claim, now, now + timedelta(seconds=30))
    )
    assert taken is not None
    owner = ForComparison(comparison_id, claim, taken.head_id, taken.base_id, world.project.org_id, world.project.id)
    store(world.resources, owner, [Draft("mask", digest(b"mask"), b"mask")])
    world.clock.pass_time(timedelta(minutes=10))
    compared(world, engine)
    world.tidy()
    assert world.count("tombstone") == 0
    assert found(world, 2) == []
    assert world.stored(b"mask") == set()
    assert base < head


# --- Documents ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["edited", "lost", "wrong-size"])
def test_a_manifest_is_written_again_from_the_rows(world: World, damage: str) -> None:
    number = world.upload(
        {"a.png": A, "b.png": B}, selective=True, all_image_file_names=["a.png", "b.png", "c.png"],
        diff_threshold=0.25, head_sha="b" * 40, base_sha="a" * 40, head_ref="main", pr_number=7,
    )  # fmt: skip
    world.hold(number, "evidence")
    world.tidy()
    key = key_of_kind(world, "manifest")
    before = json.loads(file_of(world, key).read_text())
    match damage:
        case "edited":
            file_of(world, key).write_text(file_of(world, key).read_text().replace(digest(A), digest(b"another")))
        case "wrong-size":
            file_of(world, key).write_text("{}")
        case _:
            drop(world, key)
    assert [item.kind for item in mend(world, 2)] == [damage]
    assert found(world, 2) == []
    written = key_of_kind(world, "manifest")
    assert written != key, "a key is used once"
    after = json.loads(file_of(world, written).read_text())
    assert after.pop("created_at")
    assert before.pop("created_at")
    assert after == before
    assert world.resources.store.head(key) is None
    world.release(number)
    world.delete(number)
    world.tidy()
    assert world.files() == []


def test_a_builds_manifest_is_written_again_too(world: World) -> None:
    world.build(b"an app", metadata='{"channel": "beta"}', head_sha="c" * 40)
    world.tidy()
    key = key_of_kind(world, "manifest")
    drop(world, key)
    mend(world)
    assert found(world, 2) == []


@pytest.mark.parametrize("kind", ["comparison", "mask"])
def test_a_damaged_report_or_mask_is_made_again_by_comparing(world: World, engine: Engine, kind: str) -> None:
    world.upload({"page.png": CLEAN}, **COMMIT)
    head = world.upload({"page.png": SECRET}, **NEXT)
    compared(world, engine)
    review.decide(world.resources, [world.project.id], head, "approved", "me", "api")
    world.tidy()
    before = details(world, head)
    drop(world, key_of_kind(world, kind))
    (item,) = judged(world)
    assert (item.kind, item.snapshots) == ("lost", (head,))
    assert len(mend(world)) == 1
    assert found(world, 2) == [], "it waits for a worker, which is no disagreement"
    compared(world, engine)
    world.tidy()
    after = details(world, head)
    assert after.comparison is not None
    assert before.comparison is not None
    assert after.comparison.counts == before.comparison.counts
    assert after.decisions == before.decisions
    assert found(world, 2) == []


def test_a_comparison_is_not_made_again_while_an_image_of_it_is_lost(world: World, engine: Engine) -> None:
    """It would say less than it does now. Once the image is healed, it can be."""
    world.upload({"page.png": CLEAN}, **COMMIT)
    head = world.upload({"page.png": SECRET}, **NEXT)
    compared(world, engine)
    world.tidy()
    drop(world, key_of(world, CLEAN))
    drop(world, key_of_kind(world, "mask"))
    mend(world)
    assert sorted(kind for kind, _ in found(world)) == ["lost", "lost"]
    assert details(world, head).results
    session = world.begin()
    world.keep(session, CLEAN)
    mend(world)
    compared(world, engine)
    world.tidy()
    assert found(world, 2) == []


# --- Traces -------------------------------------------------------------------------------------------------------------


def test_stray_trace_rows_go_and_missing_ones_come_back(world: World, engine: Engine) -> None:
    world.upload({"page.png": CLEAN}, **COMMIT)
    world.upload({"page.png": SECRET}, **NEXT)
    compared(world, engine)
    world.build(b"an app")
    world.tidy()
    rows = told(world)
    assert len(rows) == 4
    stray = ids.trace_id(world.resources.new_id())
    sql(world, "DELETE FROM trace")
    sql(world, "INSERT INTO trace (id, trace_id, event, at, facts) VALUES (%s, %s, 'x', now(), '{}')", [stray, stray])
    assert len(mend(world)) == 5
    assert found(world) == []
    again = told(world)
    for row in (*rows, *again):
        row[3].pop("seconds", None)  # nobody knows any more how long it took
    assert again == rows


def told(world: World) -> list[Any]:
    with world.resources.database.transaction() as tx:
        return tx.execute("SELECT trace_id, event, at, facts FROM trace ORDER BY trace_id, event").fetchall()


def test_a_trace_row_that_is_still_to_be_written_is_not_written_twice(world: World) -> None:
    world.upload({"a.png": A})
    assert mend(world) == []
    traces.write_traces(world.resources)
    assert world.count("trace") == 1


# --- What cannot be mended ------------------------------------------------------------------------------------------------


def test_a_lost_image_stays_a_disagreement_until_it_is_uploaded(anywhere: World) -> None:
    number = anywhere.upload({"a.png": A, "b.png": B})
    anywhere.tidy()
    key = key_of(anywhere, A)
    drop(anywhere, key)
    (mended,) = mend(anywhere)
    assert (mended.kind, mended.key) == ("lost", key)
    (item,) = judged(anywhere, 0)
    assert (item.kind, item.key, item.snapshots) == ("lost", key, (number,))
    assert mend(anywhere) == [], "there is nothing more to mend"
    with pytest.raises(MissingImages):
        anywhere.create({"a.png": A})
    anywhere.upload({"a.png": A})
    anywhere.tidy()
    assert found(anywhere, 2) == []


def test_rows_that_contradict_a_manifest_are_left_for_a_person(world: World) -> None:
    world.upload({"a.png": A, "b.png": B})
    world.tidy()
    sql(world, "UPDATE snapshot_image SET width = 9")
    assert mend(world, 2) == []
    assert [kind for kind, _ in found(world, 2)] == ["contradicting"]

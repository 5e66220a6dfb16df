"""Interleavings: one side is frozen in the middle of its transaction, and the other blocks, is refused, or passes over.

Each is a race that lost data or leaked it somewhere; its test says what is promised instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fixtures.world import World, digest

from snapshed.db import comparisons, sessions, tombstones
from snapshed.errors import Broken, MissingImages, OwnerGone, SessionOver
from snapshed.ledger import Draft, ForComparison, finalise_images, sha256, store
from snapshed.work import condemn, deletion, expire, remove, snapshots

IMAGE = b"image"


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `work` in a thread; its result or error is in the list once the thread has ended."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001  the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def waits_for_a_lock(world: World) -> bool:
    with psycopg.connect(world.resources.database.dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    return bool(row and row[0])


def until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(1500):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen")


def test_condemning_passes_over_an_image_that_is_being_named(world: World) -> None:
    """The collector has seen the image unreferenced; a commit is about to name it. The image stays, and its candidate
    stays queued until the commit has ended one way or the other."""
    first = world.upload({"one.png": IMAGE})
    session = world.begin()
    world.ask(session, IMAGE)
    world.delete(first)
    with psycopg.connect(world.resources.database.dsn) as naming:
        naming.execute("SELECT id FROM blob WHERE digest = %s FOR KEY SHARE", [digest(IMAGE)])
        with world.resources.database.transaction() as tx:
            sessions.unpin(tx, [session.session_id])
        condemn.condemn(world.resources)
        assert world.count("tombstone") == 1, "only the manifest"
        assert world.count("candidate") > 0, "skipped, not settled"
        naming.rollback()
    world.tidy()
    assert world.files() == []


def test_the_last_look_of_a_condemning_pass_spares_what_was_named_or_promised_since_the_first(world: World) -> None:
    """Between the first look and the locks, a session is promised one image and a marked snapshot still names another:
    both must be passed over, and not only by a foreign key that aborts the whole pass."""
    promised, marked = b"promised", b"marked"
    world.upload({"one.png": promised, "two.png": marked})
    world.ask(world.begin(), promised)
    with world.resources.database.transaction() as tx:
        ids = [row[0] for row in tx.execute("SELECT id FROM blob WHERE kind = 'image' ORDER BY id").fetchall()]
        assert tombstones.condemn(tx, ids, world.resources.now()) == 0
    with world.resources.database.transaction() as tx:
        deletion_row = deletion_of(world, tx)
        tx.execute("UPDATE artifact SET deletion_id = %s", [deletion_row])
        tx.execute("DELETE FROM pin")
        assert tombstones.condemn(tx, ids, world.resources.now()) == 0


def deletion_of(world: World, tx: Any) -> Any:
    """A deletion row that has marked and released nothing yet."""
    row = tx.execute(
        """
        INSERT INTO deletion (id, org_id, target, requested_by, snapshots, artifacts, rows, requested_at)
        VALUES (gen_random_uuid(), %s, '{}', 'test', '{}', '{}', '{}', now()) RETURNING id
        """,
        [world.project.org_id],
    ).fetchone()
    return row[0]


def test_a_pinned_image_that_nothing_names_is_spared_by_the_last_look(world: World) -> None:
    world.keep(world.begin(), IMAGE)
    with world.resources.database.transaction() as tx:
        ids = [row[0] for row in tx.execute("SELECT id FROM blob").fetchall()]
        assert tombstones.condemn(tx, ids, world.resources.now()) == 0


def test_naming_waits_for_a_condemning_pass_and_is_then_refused(world: World) -> None:
    """A condemning pass holds the row. A create that wants to name the image must not end up naming nothing."""
    first = world.upload({"one.png": IMAGE})
    session = world.begin()
    world.ask(session, IMAGE)
    world.delete(first)
    resources = world.resources
    with psycopg.connect(resources.database.dsn) as pass_:
        pass_.execute("DELETE FROM pin")
        locked = tombstones.lock_unclaimed(pass_, [row[0] for row in pass_.execute("SELECT id FROM blob").fetchall()])
        thread, outcome = in_background(lambda: world.create({"one.png": IMAGE}))
        tombstones.condemn(pass_, locked, resources.now())
        pass_.commit()
        thread.join(30)
    assert isinstance(outcome[0], MissingImages)
    world.tidy()
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.files() == []
    assert world.disagreements() == []


def test_a_session_cannot_expire_in_the_middle_of_its_commit(world: World) -> None:
    """A slow commit holds its session; the expiry pass comes by. It passes over it, and the commit stands."""
    session = world.begin()
    world.keep(session, IMAGE)
    world.clock.pass_time(timedelta(hours=2))
    with psycopg.connect(world.resources.database.dsn) as committing:
        committing.execute("SELECT 1 FROM session WHERE id = %s FOR UPDATE", [session.session_id])
        assert expire.expire(world.resources) == 0
        committing.rollback()
    assert expire.expire(world.resources) == 1


def test_an_image_finalised_after_its_session_ended_is_condemned(world: World) -> None:
    """The bytes are in the store when the session expires. They must not stay as something nobody will ever name."""
    session = world.begin()
    rows = store(world.resources, session, [Draft("image", digest(IMAGE), IMAGE)])
    world.clock.pass_time(timedelta(hours=2))
    expire.expire(world.resources)
    with pytest.raises(SessionOver):
        finalise_images(world.resources, session, rows)
    world.clock.pass_time(timedelta(hours=1))
    world.tidy()
    assert world.files() == []


def test_a_deletion_by_filter_waits_for_a_commit_beside_it_and_takes_it_too(world: World) -> None:
    """Somebody deletes everything while a snapshot commits. It must not slip through unseen."""
    world.upload({"one.png": IMAGE})
    resources = world.resources
    with psycopg.connect(resources.database.dsn) as committing:
        committing.execute("SELECT 1 FROM project WHERE id = %s FOR SHARE", [world.project.id])
        thread, outcome = in_background(lambda: deletion.request(resources, world.order(everything=True)))
        until(lambda: waits_for_a_lock(world))
        committing.execute(
            "INSERT INTO artifact (id, project_id, kind, app_id, created_at) "
            "VALUES (gen_random_uuid(), %s, 'snapshot', 'web', now())",
            [world.project.id],
        )
        committing.commit()
    thread.join(30)
    assert len(world.receipt(outcome[0])["snapshots"]) == 2
    world.tidy()
    assert world.count("artifact") == 0


def test_two_deletions_of_one_snapshot_are_one_deletion_and_one_refusal(world: World) -> None:
    number = world.upload({"one.png": IMAGE})
    resources = world.resources
    with psycopg.connect(resources.database.dsn) as first:
        first.execute("SELECT 1 FROM artifact WHERE number = %s FOR NO KEY UPDATE", [number])
        thread, outcome = in_background(lambda: world.delete(number))
        until(lambda: waits_for_a_lock(world))
        first.rollback()
    thread.join(30)
    assert world.receipt(outcome[0])["snapshots"] == [str(number)]
    from snapshed.errors import NotFound

    with pytest.raises(NotFound):
        world.delete(number)


def claimed_comparison(world: World) -> ForComparison:
    world.upload({"one.png": b"base"}, head_sha="a" * 40)
    world.upload({"one.png": b"head"}, head_sha="b" * 40, base_sha="a" * 40)
    resources = world.resources
    now, claim = resources.now(), resources.new_id()
    with resources.database.transaction() as tx:
        (waiting,) = comparisons.unclaimed(tx, now, 10)
        comparison = comparisons.claim(tx, waiting, claim, now, now + timedelta(minutes=1))
    assert comparison is not None
    return ForComparison(
        comparison.id, claim, comparison.head_id, comparison.base_id, world.project.org_id, world.project.id
    )


def test_a_mask_of_a_deleted_snapshot_cannot_land_after_the_receipt(world: World) -> None:
    """A comparison has both images in memory when its base is deleted. The mask it makes shows the deleted image, so it
    must not be stored any more."""
    owner = claimed_comparison(world)
    world.delete(1)
    world.tidy()
    with pytest.raises(OwnerGone):
        store(world.resources, owner, [Draft("mask", sha256(b"mask"), b"mask")])
    assert world.stored(b"mask") == set()


def test_a_mask_that_is_being_stored_goes_with_the_deletion_of_its_base(world: World) -> None:
    """The mask is announced and its bytes are in the store, nothing is committed; then the base is deleted."""
    owner = claimed_comparison(world)
    store(world.resources, owner, [Draft("mask", sha256(b"mask"), b"mask")])
    assert world.stored(b"mask") == {b"mask"}
    deletion_id = world.delete(1)
    assert world.receipt(deletion_id)["objects"]["mask"]["released"] == 1
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing", "its put may still land until its deadline"
    world.clock.pass_time(timedelta(minutes=6))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.stored(b"mask") == set()


def test_a_removal_sent_before_a_put_can_land_is_repeated_after_it(world: World) -> None:
    """An upload was given up; its removal finds nothing, then the late bytes arrive. The tombstone must still be open."""
    session = world.begin()
    (row,) = store(world.resources, session, [Draft("image", digest(IMAGE), IMAGE)])
    world.resources.store.remove([row.storage_key])
    with world.resources.database.transaction() as tx:
        tombstones.condemn_pending(tx, [row.id], world.resources.now(), settled=False)
    remove.remove(world.resources)
    assert world.count("tombstone") == 1, "removed once, not finally"
    from snapshed.blobs import Item

    world.resources.store.put([Item(row.storage_key, IMAGE)])  # the late one
    world.clock.pass_time(timedelta(minutes=6))
    world.tidy()
    assert world.files() == []
    assert world.count("tombstone") == 0


def test_nothing_is_removed_before_every_deletion_that_released_it_is_journaled(world: World) -> None:
    first, second = world.upload({"one.png": IMAGE}), world.upload({"two.png": IMAGE})
    world.delete(first)
    world.delete(second)
    with world.resources.database.transaction() as tx:
        tx.execute("UPDATE deletion SET journaled_at = NULL WHERE %s = ANY (snapshots)", [second])
    condemn.condemn(world.resources)
    remove.remove(world.resources)
    assert world.stored(IMAGE) == {IMAGE}
    world.tidy()
    assert world.files() == []


def test_both_orders_of_arrival_start_one_comparison(world: World) -> None:
    world.upload({"one.png": b"head"}, head_sha="b" * 40, base_sha="a" * 40)
    world.upload({"one.png": b"base"}, head_sha="a" * 40)
    assert world.count("comparison") == 1
    details = snapshots.details(world.resources, [world.project.id], 1)
    assert details.comparison is not None
    assert details.base is not None
    assert details.base.number == 2


def test_of_two_commits_at_once_the_second_sees_the_first(world: World) -> None:
    """Base and head commit at the same moment; if neither saw the other, they would never be compared."""
    with psycopg.connect(world.resources.database.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(2, %s)", [world.project.id])
        thread, _ = in_background(lambda: world.upload({"one.png": b"head"}, head_sha="b" * 40, base_sha="a" * 40))
        until(lambda: waits_for_a_lock(world))
        other.rollback()
    thread.join(30)
    world.upload({"one.png": b"base"}, head_sha="a" * 40)
    assert world.count("comparison") == 1


@pytest.mark.parametrize("call", ["put", "get", "stream", "head", "held", "remove", "listing"])
def test_a_store_call_inside_a_transaction_is_refused(world: World, call: str) -> None:
    """A slow store must not hold locks. The guard stands in every call, so that no verb can pass it by."""
    many = [f"key {number}" for number in range(20)]
    given = {"put": [], "held": many, "remove": many}.get(call, "anything")
    with world.resources.database.transaction(), pytest.raises(Broken):
        list(getattr(world.resources.store, call)(given) or ())


def test_condemning_inside_repeatable_read_is_impossible(world: World) -> None:
    """Under REPEATABLE READ the second look of a condemning pass would see the old world and leave a dangling row."""
    with world.resources.database.transaction() as tx:
        row = tx.execute("SHOW transaction_isolation").fetchone()
    assert row == ("read committed",)

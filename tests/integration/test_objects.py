"""Objects of the general blob API as verbs: what they leave in rows and store, whatever happens to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fixtures.s3 import S3
from fixtures.world import World, a_world
from test_blobs import settings_of
from test_races import in_background, until, waits_for_a_lock

from snapshed.blobs import Item
from snapshed.db import objects as rows
from snapshed.db import sessions
from snapshed.domain import keys, metadata
from snapshed.domain.metadata import Described
from snapshed.domain.namespaces import OBJECTS_ORG, OBJECTS_PROJECT, Place
from snapshed.domain.ranges import Span
from snapshed.errors import Busy, NotFound, StoreUnavailable
from snapshed.failpoints import Failpoints
from snapshed.work import objects, repair
from snapshed.work.objects import Completion, NewObject, Until

HERE = Place("testing", "org=1")
THERE = Place("testing", "org=2")
WHO = "key:ours"
NEVER = Described({}, None)


class Died(BaseException):
    """A process that is no more: nothing catches it."""


def new(key: str, data: bytes, expires: str = "manual") -> NewObject:
    return NewObject(key, Described({}, metadata.expiration(expires)), hashlib.sha256(data).hexdigest(), data)


def put(world: World, key: str, data: bytes, expires: str = "manual", where: Place = HERE) -> None:
    objects.put(world.resources, where, WHO, [new(key, data, expires)])


def read(world: World, key: str, where: Place = HERE) -> bytes | None:
    found = objects.find(world.resources, where, [key]).get(key)
    pieces = objects.open_bytes(world.resources, found) if found else None
    return b"".join(pieces) if pieces is not None else None


def assert_nothing_is_left(world: World) -> None:
    world.tidy()
    assert world.files() == []
    for table in ("blob", "tombstone", "candidate", "object", "multipart", "pin"):
        assert world.count(table) == 0, table
    assert world.disagreements() == []


@pytest.fixture(params=["disk", "s3"])
def anywhere(request: pytest.FixtureRequest, dsn: str, tmp_path: Path) -> Iterator[World]:
    """A world on each kind of store."""
    if request.param == "disk":
        with a_world(dsn, tmp_path) as world:
            yield world
        return
    s3: S3 = request.getfixturevalue("s3")
    at = settings_of(s3, tmp_path.name, tmp_path)
    with a_world(
        dsn,
        tmp_path,
        store_url=at.store_url,
        store_endpoint=at.store_endpoint,
        store_access_key_id=at.store_access_key_id,
        store_secret_access_key=at.store_secret_access_key,
    ) as world:
        yield world


def test_what_is_put_replaced_deleted_and_expired_leaves_an_empty_store(anywhere: World) -> None:
    world = anywhere
    put(world, "replaced", b"old")
    put(world, "replaced", b"new")
    put(world, "deleted", b"deleted")
    put(world, "expired", b"expired", "ttl:1h")
    put(world, "read", b"0123456789", "tti:1h")
    put(world, "replaced", b"of somebody else", where=THERE)
    assert (read(world, "replaced"), read(world, "replaced", THERE)) == (b"new", b"of somebody else")
    found = objects.find(world.resources, HERE, ["read"])["read"]
    pieces = objects.open_bytes(world.resources, found, Span(2, 5))
    assert pieces is not None
    assert b"".join(pieces) == b"234"
    world.tidy()
    assert world.stored(b"old", b"new") == {b"new"}
    assert world.disagreements() == []

    objects.remove(world.resources, HERE, ["deleted", "never was"])
    assert read(world, "deleted") is None
    world.clock.pass_time(timedelta(hours=1))
    assert (read(world, "expired"), read(world, "read")) == (None, None), "for every reader at once"
    world.tidy()
    assert world.stored(b"deleted", b"expired", b"0123456789") == set()
    objects.remove(world.resources, HERE, ["replaced"])
    assert read(world, "replaced", THERE) == b"of somebody else"
    objects.remove(world.resources, THERE, ["replaced"])
    assert_nothing_is_left(world)


def test_equal_bytes_under_two_keys_go_one_by_one(world: World) -> None:
    put(world, "one", b"same")
    put(world, "two", b"same")
    objects.remove(world.resources, HERE, ["one"])
    world.tidy()
    assert read(world, "two") == b"same"
    assert len(world.files()) == 1


def test_objects_and_images_of_the_same_bytes_do_not_meet(world: World) -> None:
    """An object that goes takes no snapshot's image with it, and a deleted snapshot no object."""
    number = world.upload({"one.png": b"same bytes"})
    put(world, "same", b"same bytes")
    objects.remove(world.resources, HERE, ["same"])
    world.tidy()
    assert world.stored(b"same bytes") == {b"same bytes"}
    put(world, "same", b"same bytes")
    world.delete(number)
    world.tidy()
    assert read(world, "same") == b"same bytes"
    objects.remove(world.resources, HERE, ["same"])
    assert_nothing_is_left(world)


def test_a_deletion_of_everything_of_a_project_does_not_reach_objects(world: World) -> None:
    from snapshed.work import deletion

    put(world, "kept", b"kept")
    deletion.request(world.resources, world.order(everything=True))
    world.tidy()
    assert read(world, "kept") == b"kept"


# --- Crashes -------------------------------------------------------------------------------------------------------------


@contextmanager
def at_step(monkeypatch: pytest.MonkeyPatch, name: str, happens: Callable[[], None]) -> Iterator[None]:
    """What happens whenever the named step is passed."""

    def reach(_: Failpoints, passed: str) -> None:
        if passed == name:
            happens()

    with monkeypatch.context() as context:
        context.setattr(Failpoints, "reach", reach)
        yield


def die() -> None:
    raise Died


def in_parts(world: World, key: str) -> None:
    upload = objects.begin(world.resources, HERE, key, NEVER, WHO)
    tag = objects.put_part(world.resources, HERE, key, upload, 1, hashlib.sha256(b"new").hexdigest(), b"new")
    assert objects.complete(world.resources, HERE, key, upload, [Completion(1, tag)]) is None


WAYS: dict[str, Callable[[World, str], None]] = {
    "whole": lambda world, key: put(world, key, b"new"),
    "in parts": in_parts,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", ["upload.announced", "upload.stored", "upload.finalised"])
def test_a_put_that_dies_leaves_the_old_object_or_the_new_one_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str, step: str
) -> None:
    """The process dies between announcing, storing and naming. The key goes on naming whole bytes, the old or the new,
    and once the session's time is over everything that was only on its way is gone."""
    put(world, "key", b"old")
    with at_step(monkeypatch, step, die), pytest.raises(Died):
        WAYS[way](world, "key")
    after = read(world, "key")
    assert after == (b"new" if (step, way) == ("upload.finalised", "whole") else b"old")
    world.tidy()
    assert read(world, "key") == after
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert read(world, "key") == after
    assert len(world.files()) == 1
    assert world.disagreements() == []
    objects.remove(world.resources, HERE, ["key"])
    assert_nothing_is_left(world)


@pytest.mark.parametrize("step", ["upload.announced", "upload.stored", "upload.finalised"])
def test_an_upload_in_parts_whose_completion_dies_can_be_completed_again(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    upload = objects.begin(world.resources, HERE, "key", NEVER, WHO)
    tag = objects.put_part(world.resources, HERE, "key", upload, 1, hashlib.sha256(b"part").hexdigest(), b"part")
    with at_step(monkeypatch, step, die), pytest.raises(Died):
        objects.complete(world.resources, HERE, "key", upload, [Completion(1, tag)])
    if step == "upload.finalised":
        with pytest.raises(NotFound):
            objects.complete(world.resources, HERE, "key", upload, [Completion(1, tag)])
    else:
        assert read(world, "key") is None
        assert objects.complete(world.resources, HERE, "key", upload, [Completion(1, tag)]) is None
    assert read(world, "key") == b"part"
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert len(world.files()) == 1
    objects.remove(world.resources, HERE, ["key"])
    assert_nothing_is_left(world)


def test_a_put_whose_session_is_over_before_it_is_named_is_refused_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept for hours between storing and naming."""

    def sleep() -> None:
        world.clock.pass_time(timedelta(hours=7))
        world.tidy()

    with at_step(monkeypatch, "upload.stored", sleep), pytest.raises(Busy):
        put(world, "key", b"late")
    assert read(world, "key") is None
    assert_nothing_is_left(world)


def test_a_store_that_fails_leaves_the_old_object_and_no_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put(world, "key", b"old")

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("The store does not answer as it should.")

    with monkeypatch.context() as context:
        context.setattr(type(world.resources.store), "put", fail)
        with pytest.raises(StoreUnavailable):
            put(world, "key", b"new")
    assert read(world, "key") == b"old"
    assert world.count("session") == 0
    objects.remove(world.resources, HERE, ["key"])
    assert_nothing_is_left(world)


def test_no_session_remains_of_what_was_put_completed_or_aborted(world: World) -> None:
    put(world, "whole", b"whole")
    in_parts(world, "parts")
    objects.abort(world.resources, HERE, "none", objects.begin(world.resources, HERE, "none", NEVER, WHO))
    assert world.count("session") == 0
    assert world.count("multipart") == 0


# --- At the same time -------------------------------------------------------------------------------------------------------


def test_many_puts_of_one_key_leave_one_of_them_whole(world: World) -> None:
    bodies = [f"body {number}".encode() for number in range(8)]
    waiting = [in_background(lambda body=body: put(world, "contended", body)) for body in bodies]
    for thread, _ in waiting:
        thread.join()
    assert [outcome for _, (outcome,) in waiting] == [None] * 8
    assert read(world, "contended") in bodies
    world.tidy()
    assert len(world.files()) == 1
    objects.remove(world.resources, HERE, ["contended"])
    assert_nothing_is_left(world)


def test_overlapping_batches_in_opposite_orders_do_not_deadlock(world: World) -> None:
    names = [f"name {number}" for number in range(60)]
    forth = [new(name, f"forth {name}".encode()) for name in names]
    back = [new(name, f"back {name}".encode()) for name in reversed(names)]

    def many(batch: list[NewObject]) -> None:
        for _ in range(4):
            objects.put(world.resources, HERE, WHO, batch)

    waiting: list[tuple[Any, list[Any]]] = [in_background(lambda batch=batch: many(batch)) for batch in (forth, back)]
    for thread, _ in waiting:
        thread.join()
    assert [outcome for _, (outcome,) in waiting] == [None, None]
    world.tidy()
    assert len(world.files()) == 60
    assert world.disagreements() == []


def test_a_completion_waits_for_an_abort_and_is_refused(world: World) -> None:
    upload = objects.begin(world.resources, HERE, "key", NEVER, WHO)
    tag = objects.put_part(world.resources, HERE, "key", upload, 1, hashlib.sha256(b"part").hexdigest(), b"part")
    with world.resources.database.transaction() as tx:
        sessions.lock(tx, upload)
        thread, outcome = in_background(
            lambda: objects.complete(world.resources, HERE, "key", upload, [Completion(1, tag)])
        )
        until(lambda: waits_for_a_lock(world))
        sessions.cancel(tx, upload)
        tx.execute("DELETE FROM pin WHERE session_id = %s", [upload])
    thread.join()
    assert isinstance(outcome[0], NotFound)
    assert read(world, "key") is None
    world.clock.pass_time(timedelta(hours=7))
    assert_nothing_is_left(world)


# --- Ends ---------------------------------------------------------------------------------------------------------------------


def end_of(world: World, key: str) -> timedelta:
    """How long an object has, without reading it."""
    with world.resources.database.transaction() as tx:
        (found,) = rows.find(tx, HERE, [key], world.clock())
    assert found.expires_at is not None
    return found.expires_at - world.clock()


def test_a_reading_pushes_an_idle_end_at_most_once_a_quarter_of_its_lifetime(world: World) -> None:
    put(world, "idle", b"idle", "tti:4h")
    world.clock.pass_time(timedelta(minutes=50))
    read(world, "idle")
    assert end_of(world, "idle") == timedelta(hours=3, minutes=10), "written a short while ago"
    world.clock.pass_time(timedelta(minutes=20))
    read(world, "idle")
    assert end_of(world, "idle") == timedelta(hours=4)
    world.tidy()
    assert world.count("candidate") == 0


def test_pushing_an_end_lets_go_of_nothing(world: World) -> None:
    put(world, "idle", b"idle", "tti:1h")
    world.clock.pass_time(timedelta(minutes=40))
    read(world, "idle")
    objects.extend(world.resources, HERE, "idle", Until(after=timedelta(days=1)))
    assert end_of(world, "idle") == timedelta(days=1)
    assert world.count("candidate") == 0


def test_an_expired_object_is_not_woken_by_a_reader_who_saw_it_earlier(world: World) -> None:
    put(world, "idle", b"idle", "tti:1h")
    with world.resources.database.transaction() as tx:
        seen = rows.find(tx, HERE, ["idle"], world.clock())
    put(world, "idle", b"another", "tti:2h")
    world.resources.database.run(lambda tx: rows.push(tx, HERE, seen, world.clock() + timedelta(hours=5)))
    assert end_of(world, "idle") == timedelta(hours=2)


def test_expiring_passes_over_what_is_being_replaced_and_takes_the_rest(world: World) -> None:
    put(world, "replaced", b"old", "ttl:1h")
    put(world, "over", b"over", "ttl:1h")
    world.clock.pass_time(timedelta(hours=2))
    with world.resources.database.transaction() as tx:
        tx.execute("SELECT FROM object WHERE key = 'replaced' FOR UPDATE")
        thread, outcome = in_background(lambda: objects.expire(world.resources))
        thread.join()
    assert outcome == [1]
    put(world, "replaced", b"new", "ttl:1h")
    assert objects.expire(world.resources) == 0
    assert read(world, "replaced") == b"new"


def test_an_expired_object_that_nobody_takes_away_is_told(world: World) -> None:
    put(world, "over", b"over", "ttl:1h")
    world.clock.pass_time(timedelta(minutes=90))
    assert world.disagreements() == []
    world.clock.pass_time(timedelta(minutes=60))
    assert [found.kind for found in world.disagreements()] == ["idle-work"]
    assert_nothing_is_left(world)


def test_a_lost_object_is_nobodys_to_read_and_a_second_put_heals_it(world: World) -> None:
    put(world, "lost", b"lost")
    with world.resources.database.transaction() as tx:
        tx.execute("UPDATE blob SET lost_at = now()")
    assert read(world, "lost") is None
    put(world, "lost", b"lost")
    assert read(world, "lost") == b"lost"
    world.tidy()
    assert len(world.files()) == 1
    assert world.disagreements() == []


def test_bytes_that_no_row_explains_are_mended_where_objects_live_too(world: World) -> None:
    put(world, "named", b"named")
    orphan = keys.storage_key(1, OBJECTS_ORG, OBJECTS_PROJECT, hashlib.sha256(b"orphan").hexdigest(), uuid4())
    world.resources.store.put([Item(orphan, b"orphan")])
    found = world.disagreements()
    assert [(item.kind, item.key) for item in found] == [("orphan", orphan)]
    repair.mend(world.resources, found, confirmed=False)
    world.tidy()
    assert world.stored(b"orphan", b"named") == {b"named"}
    assert world.disagreements() == []


def test_expiring_finds_what_is_over_by_an_index(world: World) -> None:
    objects.put(world.resources, HERE, WHO, [new(f"key {number}", b"x", "ttl:1d") for number in range(300)])
    with world.resources.database.transaction() as tx:
        tx.execute("ANALYZE object")
        plan = tx.execute(
            """
            EXPLAIN SELECT use_case, scopes, key FROM object
             WHERE expires_at <= now() ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED
            """
        ).fetchall()
    assert any("object_expiring" in line for (line,) in plan), plan

"""A database an hour older than its store: it opens in a new epoch, what was deleted since is deleted again, what was made
since is back, and what is gone is named."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from fixtures.disasters import silent
from fixtures.judging import drop, judged, key_of, mend
from fixtures.world import Clock, World, digest
from psycopg import sql
from test_rebuild import ALONE, BASE, HEAD, NEW, OLD, SHARED, compared, details, images, named
from test_withdrawal import COMMIT, NEXT, picture

from snapshed.db.embedded import Embedded
from snapshed.domain import ids
from snapshed.engine import Engine
from snapshed.errors import Behind, Broken, NotFound
from snapshed.failpoints import Failed, Failpoints
from snapshed.resources import opened, raise_mark
from snapshed.settings import Secret, Settings
from snapshed.work import deletion, holds, recovery, snapshots
from snapshed.work.recovery import Recovered


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(workers=1, seconds_per_pair=30, memory_bytes=2**30, max_pixels=10**6)
    yield made
    made.close()


class Backup:
    """A copy of a world's database, and the way back to it."""

    def __init__(self, world: World, cluster: Embedded, stack: ExitStack, data: Path) -> None:
        self._world, self._cluster, self._stack, self._data = world, cluster, stack, data
        self.settings = Settings(data=data, database_url=Secret(_copy(world, cluster, stack)))

    def restore(self) -> tuple[World, Recovered]:
        """Open the copy as the service does after a restore."""
        with pytest.raises(Behind), opened(self.settings):
            pass
        clock = Clock(self._world.clock())
        clock.pass_time(timedelta(minutes=1))
        with opened(self.settings, matched=recovery.behind) as older:
            done = recovery.catch_up(dataclasses.replace(older, now=clock), silent, deletion.withdraw)
        plain = self._stack.enter_context(opened(self.settings))
        return World(dataclasses.replace(plain, now=clock), clock), done


def _copy(world: World, cluster: Embedded, stack: ExitStack) -> str:
    dsn = world.resources.database.dsn
    source, copy = dsn.split("dbname=")[1].split()[0], f"copy_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        # A template may have no other connections; those of the world's pool come back by themselves.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [source],
        )
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(source))
        )

    def drop_copy() -> None:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(copy)))

    stack.callback(drop_copy)
    return dsn.replace(f"dbname={source}", f"dbname={copy}")


Back = Callable[[World], Backup]


@pytest.fixture
def back_up(cluster: Embedded, tmp_path: Path) -> Iterator[Back]:
    with ExitStack() as stack:
        yield lambda world: Backup(world, cluster, stack, tmp_path)


def at_rest(world: World) -> None:
    world.tidy()
    assert judged(world, 2) == []


def test_what_was_deleted_since_is_deleted_again(world: World, back_up: Back, engine: Engine) -> None:
    base, head = world.upload(BASE, **COMMIT), world.upload(HEAD, **NEXT)
    compared(world, engine)
    world.tidy()
    backup = back_up(world)
    receipt = world.delete(head, reason="a password")
    world.tidy()
    after, done = backup.restore()
    assert done.deleted_again == (receipt,)
    with pytest.raises(NotFound):
        details(after, head)
    assert snapshots.image_key(after.resources, after.project.id, digest(NEW)) is None
    after.tidy()
    assert after.receipt(receipt)["state"] == "complete"
    assert after.receipt(receipt)["reason"] == "a password"
    assert after.receipt(receipt)["snapshots"] == [str(head)]
    assert images(after, base) == named(BASE)
    assert after.stored(NEW, OLD, SHARED) == {OLD, SHARED}
    at_rest(after)


def test_what_was_withdrawn_since_is_withdrawn_again(world: World, back_up: Back) -> None:
    number = world.upload(BASE)
    world.tidy()
    backup = back_up(world)
    receipt = world.withdraw(OLD)
    world.tidy()
    after, done = backup.restore()
    assert done.deleted_again == (receipt,)
    assert images(after, number) == {"a.png": digest(SHARED)}
    at_rest(after)
    assert after.receipt(receipt)["state"] == "complete"


def test_what_was_made_since_is_back_under_its_number_and_no_number_is_issued_twice(
    world: World, back_up: Back, engine: Engine
) -> None:
    base = world.upload(BASE, **COMMIT)
    backup = back_up(world)
    head = world.upload(HEAD, **NEXT)
    compared(world, engine)
    world.tidy()
    after, done = backup.restore()
    assert (done.snapshots, done.comparisons, done.removed) == (1, 1, {})
    assert (images(after, base), images(after, head)) == (named(BASE), named(HEAD))
    assert after.upload({"x.png": ALONE}) >= ids.first_number(2)
    at_rest(after)


def test_made_and_deleted_since_stays_deleted(world: World, back_up: Back) -> None:
    world.upload(BASE)
    backup = back_up(world)
    gone = world.upload({"x.png": ALONE})
    receipt = world.delete(gone)
    after, done = backup.restore()
    assert (done.snapshots, done.reopened) == (0, (receipt,))
    at_rest(after)
    assert after.receipt(receipt)["state"] == "complete"
    assert after.stored(ALONE) == set()


def test_an_upload_that_was_under_way_and_committed_since_is_back(world: World, back_up: Back) -> None:
    """The backup has its session open and its images pinned: only the manifest in the store knows that it became one."""
    session = world.begin()
    world.keep(session, *BASE.values())
    backup = back_up(world)
    number = world.create(BASE)
    after, done = backup.restore()
    assert done.ended_sessions == 1
    assert images(after, number) == named(BASE)
    at_rest(after)


def test_an_upload_that_was_under_way_and_given_up_goes(world: World, back_up: Back) -> None:
    world.keep(world.begin(), ALONE)
    backup = back_up(world)
    world.upload(BASE)
    after, done = backup.restore()
    assert done.ended_sessions == 1
    at_rest(after)
    assert after.stored(ALONE) == set()


def test_a_hold_that_was_placed_since_stands_and_one_released_since_does_not(world: World, back_up: Back) -> None:
    placed, released = world.upload(BASE), world.upload({"x.png": ALONE})
    world.hold(released, "old")
    backup = back_up(world)
    world.release(released)
    world.hold(placed, "new")
    world.upload({"y.png": picture("red")})
    world.tidy()
    after, _ = backup.restore()
    assert [hold.reason for hold in holds.list_holds(after.resources, [after.project.id])] == ["new"]
    at_rest(after)


def test_an_image_that_was_lost_and_healed_since_is_whole(world: World, back_up: Back) -> None:
    number = world.upload(BASE)
    backup = back_up(world)
    drop(world, key_of(world, OLD))
    mend(world)
    world.upload({"b.png": OLD})
    world.tidy()
    after, done = backup.restore()
    assert done.damages == ()
    assert images(after, number) == named(BASE)
    at_rest(after)


def test_what_the_store_has_lost_is_named_with_the_snapshots_that_suffer(world: World, back_up: Back) -> None:
    number = world.upload(BASE)
    backup = back_up(world)
    world.upload({"x.png": ALONE})
    key = key_of(world, OLD)
    drop(world, key)
    after, done = backup.restore()
    assert [(one.key, one.kind, one.snapshots) for one in done.damages] == [(key, "image", (number,))]
    assert after.ask(after.begin(), OLD) == set()
    again = after.upload({"b.png": OLD})
    assert images(after, number) == named(BASE)
    assert images(after, again) == named({"b.png": OLD})


def test_a_deletion_that_was_under_way_at_the_backup_goes_on(world: World, back_up: Back) -> None:
    world.upload(BASE)
    gone = world.upload({"x.png": ALONE})
    receipt = world.delete(gone)
    backup = back_up(world)
    world.tidy()
    world.upload({"y.png": picture("red")})
    after, done = backup.restore()
    assert (done.deleted_again, done.reopened) == ((), ())
    at_rest(after)
    assert after.receipt(receipt)["state"] == "complete"


def test_a_catching_up_that_died_half_way_is_begun_again(world: World, back_up: Back) -> None:
    kept = world.upload(BASE)
    backup = back_up(world)
    since, gone = world.upload(HEAD), world.upload({"x.png": ALONE})
    world.delete(gone)
    with opened(backup.settings, matched=recovery.behind) as older:
        failing = dataclasses.replace(older, failpoints=Failpoints("rebuild.filled=raise"))
        with pytest.raises(Failed):
            recovery.catch_up(failing, silent, deletion.withdraw)
    with pytest.raises(Broken, match="not ended"), opened(backup.settings):
        pass
    with opened(backup.settings, matched=recovery.behind) as older:
        recovery.catch_up(older, silent, deletion.withdraw)
    with opened(backup.settings) as plain:
        after = World(plain, Clock(plain.now()))
        assert (images(after, kept), images(after, since)) == (named(BASE), named(HEAD))
        at_rest(after)


def test_a_database_that_is_not_older_opens_as_ever(world: World, back_up: Back) -> None:
    world.upload(BASE)
    world.delete(world.upload({"x.png": ALONE}))
    backup = back_up(world)
    assert raise_mark(world.resources) == 0
    with opened(backup.settings) as plain:
        assert plain.installation.epoch == 1

"""Interleavings inside transactions: a verb is frozen after one of its statements, nothing committed, and others run.

The product's own code runs on both sides. What the other side does is the claim: it waits, passes over, or is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from fixtures.pictures import noise, picture
from fixtures.world import World, digest
from test_races import in_background, until, waits_for_a_lock

from snapshed.db import blobs, comparisons, deletions, pool, releases, sessions, tombstones
from snapshed.engine import Engine
from snapshed.errors import NotFound, SessionOver, StoreUnavailable
from snapshed.failpoints import Failpoints
from snapshed.ledger import Draft, ForComparison, finalise_images, store
from snapshed.work import compare, condemn, deletion, expire, receipts, snapshots, uploads
from snapshed.work.deletion import releasing

IMAGE = b"image"
PATIENCE = 60


class Gate:
    """The first caller of a function stands still after it, its transaction open, until the gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()
        self._first = threading.Lock()
        original = getattr(module, name)

        def gated(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            if self._first.acquire(blocking=False):
                self._reached.set()
                assert self._opened.wait(PATIENCE)
            return result

        monkeypatch.setattr(module, name, gated)

    def is_reached(self) -> None:
        assert self._reached.wait(PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(workers=1, seconds_per_pair=60, memory_bytes=2**31, max_pixels=10_000) as made:
        yield made


def result_of(running: tuple[threading.Thread, list[Any]]) -> Any:
    thread, outcome = running
    thread.join(PATIENCE)
    assert outcome, "it hangs"
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


# --- Deletions beside each other ------------------------------------------------------------------------------------


def test_two_deletions_at_once_of_the_last_two_references_leave_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each still sees the other's reference. If either decided about the image itself, nobody would ever remove it."""
    first, second = world.upload({"one.png": IMAGE}), world.upload({"two.png": IMAGE})
    gate = Gate(monkeypatch, releases, "delete_rows")
    running = in_background(lambda: world.delete(first))
    gate.is_reached()
    other = world.delete(second)
    condemn.condemn(world.resources)
    assert world.stored(IMAGE) == {IMAGE}, "the first deletion's reference is not gone yet"
    gate.open()
    one = result_of(running)
    assert world.count("candidate") > 0
    world.tidy()
    assert [world.receipt(item)["state"] for item in (one, other)] == ["complete", "complete"]
    assert world.files() == []


def test_a_deletion_enqueues_and_condemns_nothing_itself(world: World) -> None:
    world.delete(world.upload({"one.png": IMAGE}))
    assert world.count("tombstone") == 0
    assert world.count("candidate") > 0


def test_two_workers_release_one_deletion_in_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasing, "_STEP_ARTIFACTS", 1)
    for name in ("one.png", "two.png", "three.png"):
        world.upload({name: IMAGE})
    deletion_id = deletion.request(world.resources, world.order(everything=True))
    gate = Gate(monkeypatch, releases, "release")
    running = in_background(lambda: deletion.release_waiting(world.resources))
    gate.is_reached()
    other = in_background(lambda: deletion.release_waiting(world.resources))
    until(lambda: waits_for_a_lock(world))
    gate.open()
    assert result_of(running) == 1
    result_of(other)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.receipt(deletion_id)["objects"]["manifest"]["removed"] == 3


def test_one_of_two_workers_closes_a_receipt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed twice it would be signed twice, with two different times."""
    deletion_id = world.delete(world.upload({"one.png": IMAGE}))
    steps = (condemn.condemn, *_removal_steps())
    for step in steps:
        step(world.resources)
    gate = Gate(monkeypatch, deletions, "lock_open")
    running = in_background(lambda: receipts.close_finished(world.resources))
    gate.is_reached()
    assert receipts.close_finished(world.resources) == 0, "somebody else is at it"
    gate.open()
    result_of(running)
    assert world.receipt(deletion_id)["state"] == "complete"


def _removal_steps() -> tuple[Any, ...]:
    from snapshed.work import remove, traces

    return remove.remove, traces.remove_traces


# --- Uploads beside deletions -----------------------------------------------------------------------------------------


def test_an_image_promised_while_its_snapshot_is_being_marked_stays_for_that_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is made and not committed: the client is told "already here". It must be able to name the image after
    the deletion has been answered; a client that asks then is told nothing."""
    number = world.upload({"one.png": IMAGE})
    early, late = world.begin(), world.begin()
    gate = Gate(monkeypatch, deletions, "mark")
    running = in_background(lambda: world.delete(number))
    gate.is_reached()
    assert world.ask(early, IMAGE) == {IMAGE}
    gate.open()
    deletion_id = result_of(running)
    assert world.ask(late, IMAGE) == set()
    world.tidy()
    assert world.receipt(deletion_id)["objects"]["image"]["kept_pinned"] == 1
    world.create({"two.png": IMAGE})
    world.tidy()
    assert world.receipt(deletion_id)["objects"]["image"]["kept_shared"] == 1


def test_a_condemning_pass_spares_an_image_whose_promise_is_not_committed_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pin is written and invisible; the snapshot is deleted and the collector comes by. Once committed, the promise
    must hold."""
    number = world.upload({"one.png": IMAGE})
    session = world.begin()
    gate = Gate(monkeypatch, blobs, "promise")
    running = in_background(lambda: world.ask(session, IMAGE))
    gate.is_reached()
    world.delete(number)
    condemn.condemn(world.resources)
    gate.open()
    assert result_of(running) == {IMAGE}
    world.tidy()
    assert world.stored(IMAGE) == {IMAGE}
    world.create({"two.png": IMAGE})


def test_six_sessions_that_finalise_the_same_images_at_once_do_not_deadlock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six jobs of one build upload the same screenshots in different orders. None may be refused, since their client
    does not retry, and each image is kept once."""
    monkeypatch.setattr(pool, "_ATTEMPTS", 1)  # a deadlock that is tried again is one all the same
    images = [f"image {number}".encode() for number in range(30)]
    owners = [world.begin() for _ in range(6)]
    together = threading.Barrier(len(owners), timeout=PATIENCE)

    def finalise(*arguments: Any) -> None:
        together.wait()
        finalise_images(*arguments)

    monkeypatch.setattr(uploads, "finalise_images", finalise)
    running = [
        in_background(lambda owner=owner, turn=turn: world.keep(owner, *images[turn * 5 :], *images[: turn * 5]))
        for turn, owner in enumerate(owners)
    ]
    for one in running:
        result_of(one)
    world.tidy()
    assert len(world.files()) == len(images)
    for owner in owners:
        assert world.ask(owner, *images) == set(images)


def test_an_upload_waits_for_the_collector_that_holds_the_same_image_and_takes_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is being condemned while somebody uploads it again. The upload must not be pinned to what is going."""
    world.delete(world.upload({"one.png": IMAGE}))
    session = world.begin()
    gate = Gate(monkeypatch, tombstones, "lock_unclaimed")
    collector = in_background(lambda: condemn.condemn(world.resources))
    gate.is_reached()
    uploader = in_background(lambda: world.keep(session, IMAGE))
    until(lambda: waits_for_a_lock(world))
    gate.open()
    result_of(collector)
    result_of(uploader)
    world.tidy()
    number = world.create({"two.png": IMAGE})
    assert snapshots.details(world.resources, [world.project.id], number).images[0].storage_key is not None
    assert world.disagreements() == []
    assert len([file for file in world.files() if file.startswith(digest(IMAGE))]) == 1


def test_a_create_waits_for_a_deletion_of_everything_and_is_not_part_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.upload({"one.png": IMAGE})
    world.ask(world.begin(), IMAGE)
    gate = Gate(monkeypatch, deletions, "mark")
    deleting = in_background(lambda: deletion.request(world.resources, world.order(everything=True)))
    gate.is_reached()
    creating = in_background(lambda: world.create({"two.png": IMAGE}))
    until(lambda: waits_for_a_lock(world))
    gate.open()
    deletion_id, second = result_of(deleting), result_of(creating)
    world.tidy()
    assert world.receipt(deletion_id)["snapshots"] == [str(first)]
    assert world.receipt(deletion_id)["state"] == "complete"
    assert snapshots.details(world.resources, [world.project.id], second).images[0].storage_key is not None


def test_a_candidate_that_arrives_while_another_of_the_same_image_is_settled_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector has seen the image pinned and is about to settle its candidate; just then the session ends. With a
    queue that holds each image once, nobody would look again."""
    number = world.upload({"one.png": IMAGE})
    world.ask(world.begin(), IMAGE)
    world.delete(number)
    gate = Gate(monkeypatch, tombstones, "unreferenced")
    running = in_background(lambda: condemn.condemn(world.resources))
    gate.is_reached()
    world.clock.pass_time(timedelta(hours=2))
    assert expire.expire(world.resources) == 1
    gate.open()
    result_of(running)
    world.tidy()
    assert world.files() == []


def test_urgent_ends_a_slower_uploader_that_is_pinned_to_the_released_image(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is still storing the image that is deleted as urgent. The collector ends another session that was promised
    it; just then the slow one loses against the copy that is going and is pinned to it. It must be ended too, by the
    next pass, not hours later by itself."""
    number = world.upload({"one.png": IMAGE})
    world.ask(world.begin(), IMAGE)
    slow = world.begin()
    rows = store(world.resources, slow, [Draft("image", digest(IMAGE), IMAGE)])
    deletion_id = world.delete(number, urgent=True)
    gate = Gate(monkeypatch, sessions, "cancel_for_urgent")
    collector = in_background(lambda: condemn.condemn(world.resources))
    gate.is_reached()
    finalise_images(world.resources, slow, rows)
    gate.open()
    result_of(collector)
    assert world.stored(IMAGE) == {IMAGE}
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []
    with pytest.raises(SessionOver):
        world.keep(slow, IMAGE)


# --- Comparisons and readers beside deletions -------------------------------------------------------------------------


def two_to_compare(world: World) -> Any:
    """A base and a head that differ, and the comparison that waits for them."""
    base, head = picture("base", 24, 16).png, picture("head", 24, 16).png
    world.upload({"one.png": base}, head_sha="a" * 40)
    world.upload({"one.png": head}, head_sha="b" * 40, base_sha="a" * 40)
    (waiting,) = compare.unclaimed(world.resources, 10)
    return waiting


@pytest.mark.parametrize("side", [1, 2])
def test_a_deletion_waits_for_a_comparison_that_is_committing_and_takes_its_mask(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    waiting = two_to_compare(world)
    gate = Gate(monkeypatch, comparisons, "finish")
    comparing = in_background(lambda: compare.compare(world.resources, engine, waiting, lambda: False))
    gate.is_reached()
    deleting = in_background(lambda: world.delete(side))
    until(lambda: waits_for_a_lock(world))
    gate.open()
    result_of(comparing)
    deletion_id = result_of(deleting)
    assert world.receipt(deletion_id)["objects"]["mask"]["released"] == 1
    assert world.receipt(deletion_id)["objects"]["comparison"]["released"] == 1
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert len(world.files()) == 2, "the other snapshot's image and manifest"
    assert world.disagreements() == []


@pytest.mark.parametrize("side", [1, 2])
def test_a_comparison_waits_for_the_deletion_of_a_side_and_its_mask_never_lands(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """The images are in memory and the mask is made when the deletion commits: nothing of it may be stored."""
    waiting = two_to_compare(world)
    gate = Gate(monkeypatch, deletions, "mark")
    deleting = in_background(lambda: world.delete(side))
    gate.is_reached()
    comparing = in_background(lambda: compare.compare(world.resources, engine, waiting, lambda: False))
    until(lambda: waits_for_a_lock(world))
    gate.open()
    deletion_id = result_of(deleting)
    result_of(comparing)
    assert world.count("blob") == 4, "two images and two manifests: no mask, no report"
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert len(world.files()) == 2, "the other snapshot's image and manifest"
    assert world.disagreements() == []


def test_masks_of_a_worker_that_died_go_when_the_comparison_is_taken_again(world: World, engine: Engine) -> None:
    """They are announced and stored, nothing is committed. Nobody will ever name them, and no deletion may come for
    years."""
    waiting = two_to_compare(world)
    resources, claim = world.resources, world.resources.new_id()
    now = resources.now()
    with resources.database.transaction() as tx:
        dead = comparisons.claim(tx, waiting, claim, now, now + compare.CLAIM)
    assert dead is not None
    owner = ForComparison(waiting, claim, dead.head_id, dead.base_id, world.project.org_id, world.project.id)
    store(resources, owner, [Draft("mask", digest(b"mask"), b"mask")])
    world.clock.pass_time(timedelta(minutes=1))
    compare.compare(resources, engine, waiting, lambda: False)
    world.clock.pass_time(timedelta(minutes=6))
    world.tidy()
    assert world.stored(b"mask") == set()
    assert len(world.files()) == 6, "two images, two manifests, the report and the one mask"


def test_a_download_under_way_ends_by_itself_and_none_begins(world: World) -> None:
    """A large image is half sent when its snapshot is deleted and its bytes go. What was begun may end, whole or with an
    error; nothing new begins, and the deletion does not wait."""
    large = noise("large", 1000, 800).png
    number = world.upload({"one.png": large})
    found = uploads.read(world.resources, world.project.id, digest(large), None)
    assert found is not None
    pieces = world.resources.store.stream(found.storage_key)
    assert pieces is not None
    got = next(pieces)
    assert len(got) < len(large)
    deletion_id = world.delete(number)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert got + b"".join(pieces) == large
    assert uploads.read(world.resources, world.project.id, digest(large), None) is None
    assert world.resources.store.stream(found.storage_key) is None
    with pytest.raises(NotFound):
        snapshots.details(world.resources, [world.project.id], number)


# --- Uploads that stood still -----------------------------------------------------------------------------------------


class Standstill:
    """In place of the failpoints: when a verb passes one, hours go by and everybody else goes on."""

    def __init__(self, world: World, at: str) -> None:
        self._world = world
        self._at = at

    def reach(self, name: str) -> None:
        if name == self._at:
            self._at = ""
            self._world.clock.pass_time(timedelta(hours=2))
            self._world.tidy()


def test_an_upload_that_stood_still_before_its_put_stores_nothing_any_more(world: World) -> None:
    """The machine slept after the row was written and before the bytes were sent. By now the session is over, the row
    condemned, its removal final: bytes that land now would belong to nothing that anybody knows of."""
    session = world.begin()
    plain = world.resources
    world.resources = replace(plain, failpoints=cast("Failpoints", Standstill(world, "upload.announced")))
    with pytest.raises(StoreUnavailable):
        world.keep(session, IMAGE)
    assert world.files() == []
    world.tidy()
    assert world.disagreements() == []

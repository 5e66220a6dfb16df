"""A store that lies, and what is promised instead. Behind the liar is a real S3 server, so that what stands, stands."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from fixtures.lying import Answer, Ask, LyingStore, deleted, error
from fixtures.s3 import ACCESS, SECRET
from fixtures.world import World, a_world

from snapshed.errors import StoreUnavailable
from snapshed.settings import Secret
from snapshed.work import condemn, remove


@pytest.fixture
def world(dsn: str, tmp_path: Path, lying: LyingStore) -> Iterator[World]:
    """An installation whose objects are in the lying store."""
    with a_world(
        dsn,
        tmp_path,
        store_url=f"s3://{lying.bucket}/{tmp_path.name}",
        store_endpoint=lying.endpoint,
        store_access_key_id=Secret(ACCESS),
        store_secret_access_key=Secret(SECRET),
        put_limit=timedelta(seconds=60),
    ) as made:
        yield made


def images(count: int, name: str = "image") -> dict[str, bytes]:
    return {f"{number}.png": f"{name} {number}".encode() for number in range(count)}


def digest(number: str) -> str:
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


def wait_out(world: World, hours: float = 1) -> None:
    """Let the tidying loop run for a while, a minute at a time."""
    for _ in range(int(hours * 60)):
        world.clock.pass_time(timedelta(minutes=1))
        world.tidy()


def test_success_without_deletion_never_completes_a_receipt(world: World, lying: LyingStore) -> None:
    """The store says that everything is removed and removes nothing. The receipt stays open, says why, and asks again
    after growing waits; when the store comes to its senses the bytes go and only then is it complete."""
    deletion_id = world.delete(world.upload(images(3)))
    lying.lie = lying.removes_nothing
    world.tidy()
    wait_out(world, 0.5)

    document = world.receipt(deletion_id)
    assert document["state"] == "removing"
    assert len(world.files()) == 4
    assert document["verified_at"] is None
    (failed,) = [one for one in document["failures"] if one["kind"] == "image"]
    assert failed["class"] == "refused"
    assert failed["attempts"] > 3
    assert "still has it" in failed["last_error"]
    assert lying.count("remove", "remove-many") < 40, "it is not asked in a hurry"

    lying.lie = None
    wait_out(world, 0.5)
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.receipt(deletion_id)["objects"]["image"]["removed"] == 3
    assert world.files() == []


def test_a_key_that_a_bulk_answer_leaves_out_is_still_removed(world: World, lying: LyingStore) -> None:
    """Every second key of a bulk request is neither removed nor mentioned. The library takes them for removed; the
    second look, key by key, does not."""
    deletion_id = world.delete(world.upload(images(40)))
    lying.lie = lying.forgets_half
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing"
    assert len(world.files()) > 10
    wait_out(world, 0.2)
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []


def test_a_part_of_a_bulk_request_that_fails_delays_no_other_key(world: World, lying: LyingStore) -> None:
    number = world.upload(images(200))
    (bad,) = [
        found.key for found in world.resources.store.listing() if found.key.split("/")[-1].startswith(digest("7"))
    ]
    deletion_id = world.delete(number)
    lying.lie = lying.fails(lambda key: key.endswith(bad), "InternalError")
    lying.asked.clear()
    world.tidy()

    document = world.receipt(deletion_id)
    assert document["objects"]["image"]["waiting"] == 1
    assert document["objects"]["image"]["removed"] == 199
    assert document["failures"][0]["class"] == "unavailable"
    assert world.files() == [bad.split("/")[-1]]
    assert lying.count("remove", "remove-many") <= 40, "one bad key does not cost a request for each good one"

    lying.lie = None
    wait_out(world, 0.05)
    assert world.receipt(deletion_id)["state"] == "complete"


def test_an_object_that_is_locked_is_shown_refused_at_once_and_retried_for_ever(
    world: World, lying: LyingStore
) -> None:
    number = world.upload(images(5))
    (bad,) = [
        found.key for found in world.resources.store.listing() if found.key.split("/")[-1].startswith(digest("2"))
    ]
    deletion_id = world.delete(number)
    lying.lie = lying.fails(lambda key: key.endswith(bad), "AccessDenied")
    world.tidy()
    (failed,) = world.receipt(deletion_id)["failures"]
    assert (failed["kind"], failed["class"], failed["attempts"]) == ("image", "refused", 1)
    assert "permissions" in failed["last_error"]
    assert failed["next_attempt_at"] is not None

    lying.asked.clear()
    wait_out(world, 6)
    (failed,) = world.receipt(deletion_id)["failures"]
    assert failed["attempts"] > 20, "for ever"
    assert lying.count("remove", "remove-many") < 60, "and in the end no more often than every quarter of an hour or so"
    lying.lie = None
    wait_out(world, 0.5)
    assert world.receipt(deletion_id)["state"] == "complete"


def test_a_lost_answer_to_a_removal_is_asked_again_and_does_no_harm(world: World, lying: LyingStore) -> None:
    kept = world.upload({"kept.png": b"kept"})
    deletion_id = world.delete(world.upload(images(20)))
    lying.lie = lying.loses_answers("remove", "remove-many")
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing"
    assert len(world.files()) == 2, "the bytes are gone, and nobody knows it yet"
    assert world.receipt(deletion_id)["failures"][0]["class"] == "unavailable"
    lying.lie = None
    wait_out(world, 0.1)
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.stored(b"kept") == {b"kept"}
    assert kept
    assert world.disagreements() == []


def test_a_lost_answer_to_a_journal_entry_delays_the_deletion_and_does_no_harm(world: World, lying: LyingStore) -> None:
    number = world.upload(images(2))
    lying.lie = lying.loses_answers("put")
    deletion_id = world.delete(number)
    assert world.receipt(deletion_id)["journaled_at"] is None
    world.tidy()
    assert len(world.files()) == 3, "nothing is removed before we know that the journal has it"
    lying.lie = None
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"


def test_a_removal_that_lands_hours_late_hits_nothing(world: World, lying: LyingStore) -> None:
    """A worker's removal hangs in the network. Its claim ends, another worker removes, the receipt closes, the same
    image is uploaded again; then the old request arrives."""
    deletion_id = world.delete(world.upload({"one.png": b"one"}))
    condemn.condemn(world.resources)
    arrived, may_go = threading.Event(), threading.Event()

    def holds_first(ask: Ask) -> None:
        if ask.verb in ("remove", "remove-many") and not arrived.is_set():
            arrived.set()
            assert may_go.wait(8)

    lying.lie = holds_first
    stuck = threading.Thread(target=remove.remove, args=(world.resources,))
    stuck.start()
    assert arrived.wait(60)
    world.clock.pass_time(timedelta(seconds=20))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    world.upload({"one.png": b"one"})
    may_go.set()
    stuck.join(60)
    world.tidy()
    assert world.stored(b"one") == {b"one"}
    assert world.disagreements() == []


def test_a_put_that_lands_after_its_removal_is_removed_again(world: World, lying: LyingStore) -> None:
    """The connection broke, the upload was given up and its object removed; then the bytes arrive after all. A removal
    is repeated once no put can land any more."""
    session = world.begin()
    lying.lie = lying.lands_puts_late(lambda key: ".snapshed/" not in key)
    with pytest.raises(StoreUnavailable):
        world.keep(session, b"late")
    world.tidy()
    assert world.count("tombstone") == 1
    assert world.files() == []
    lying.land()
    assert len(world.files()) == 1
    world.clock.pass_time(timedelta(minutes=2))
    world.tidy()
    assert world.files() == []
    assert world.count("tombstone") == 0


def test_bulk_requests_shrink_while_the_store_asks_for_less(world: World, lying: LyingStore) -> None:
    """The store bears twenty keys a second request and throttles everything larger."""
    deletion_id = world.delete(world.upload(images(300)))

    def lie(ask: object) -> Answer | None:
        large = getattr(ask, "verb", "") == "remove-many" and len(getattr(ask, "keys", ())) > 20
        return error(503, "SlowDown") if large else None

    lying.lie = lie
    lying.asked.clear()
    world.tidy()
    assert world.receipt(deletion_id)["failures"] == [] or {
        one["class"] for one in world.receipt(deletion_id)["failures"]
    } == {"throttled"}
    wait_out(world, 1)
    assert world.receipt(deletion_id)["state"] == "complete"
    refused = sum(1 for ask in lying.asked if ask.verb == "remove-many" and len(ask.keys) > 20)
    assert refused <= 16, "it is not asked for too much again and again"


def test_a_truncated_listing_is_no_loss(world: World, lying: LyingStore) -> None:
    world.upload(images(30))
    world.tidy()
    lying.lie = lying.truncates_listings
    assert world.disagreements() == []


def test_an_answer_about_a_key_nobody_asked_for_stops_nothing(world: World, lying: LyingStore) -> None:
    """The library panics at it; a worker must not die of an answer."""
    deletion_id = world.delete(world.upload(images(20)))
    lying.lie = lambda ask: deleted([], ["somebody/else"], "AccessDenied") if ask.verb == "remove-many" else None
    world.tidy()
    wait_out(world, 0.1)
    lying.lie = None
    wait_out(world, 0.5)
    assert world.receipt(deletion_id)["state"] == "complete"


def test_a_bucket_that_is_not_there_any_more_confirms_nothing(world: World, lying: LyingStore) -> None:
    """Asked about a key, a store without the bucket says 404 as well. That is no proof that the bytes are gone: the
    name may point at another place by mistake."""
    deletion_id = world.delete(world.upload(images(3)))
    lying.lie = lambda ask: error(404, "NoSuchBucket")
    world.tidy()
    wait_out(world, 0.1)
    assert world.receipt(deletion_id)["state"] == "removing"
    assert world.receipt(deletion_id)["objects"]["image"]["removed"] == 0
    assert not world.resources.store.answers()
    lying.lie = None
    wait_out(world, 0.1)
    assert world.receipt(deletion_id)["state"] == "complete"
    assert obstore.list(lying.truth, prefix="nothing").collect() == []


def test_another_store_that_is_empty_completes_no_receipt(world: World, lying: LyingStore) -> None:
    """The name has come to lead to an empty bucket: every removal succeeds and every question finds nothing, but the
    installation's own object is not there either."""
    deletion_id = world.delete(world.upload(images(3)))

    def elsewhere(ask: Ask) -> Answer | None:
        if ask.verb in ("remove", "remove-many"):
            return deleted(ask.keys)
        return error(404, "NoSuchKey") if ask.verb == "head" else None

    lying.lie = elsewhere
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing"
    lying.lie = None
    wait_out(world, 0.1)
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []

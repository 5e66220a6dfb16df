"""A store that is away, throttled, locked or full: nothing is lost, nothing is rushed, and it is said."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures.lying import LyingStore, error, throttled
from fixtures.pictures import manifest, picture
from fixtures.s3 import ACCESS, S3, SECRET, turn_versioning_on
from fixtures.server import Installation, wait_until
from fixtures.world import World, a_world, digest

from snapshed.blobs.failures import Failure, classify
from snapshed.blobs.removal import Pace, remove_all
from snapshed.db import outbox
from snapshed.domain import backoff
from snapshed.errors import NotFound, StoreUnavailable
from snapshed.resources import Resources
from snapshed.settings import Secret
from snapshed.traces import Trace
from snapshed.work import condemn, deletion, measure, probe, receipts, remove, snapshots, traces
from snapshed.work.deletion import releasing


def remote(lying: LyingStore, prefix: str, **fields: Any) -> dict[str, Any]:
    return {
        "store_url": f"s3://{lying.bucket}/{prefix}",
        "store_endpoint": lying.endpoint,
        "store_access_key_id": Secret(ACCESS),
        "store_secret_access_key": Secret(SECRET),
        "put_limit": timedelta(seconds=60),
        **fields,
    }


@pytest.fixture
def far(dsn: str, tmp_path: Path, lying: LyingStore) -> Iterator[World]:
    """An installation whose objects are in a bucket."""
    with a_world(dsn, tmp_path, **remote(lying, tmp_path.name)) as made:
        yield made


def one_pass(world: World) -> None:
    """What the tidying loop does between two waits."""
    steps: list[Callable[[Resources], int]] = [
        deletion.journal_waiting, deletion.release_waiting, condemn.condemn, remove.remove, traces.remove_traces,
        receipts.close_finished,
    ]  # fmt: skip
    for step in steps:
        step(world.resources)


def run_for(world: World, length: timedelta, step: timedelta) -> None:
    end = world.clock() + length
    while world.clock() < end:
        world.clock.pass_time(step)
        one_pass(world)


# --- Away ------------------------------------------------------------------------------------------------------------


@pytest.mark.scale
def test_an_hour_without_the_store_loses_nothing_and_ends_without_a_storm(far: World, lying: LyingStore) -> None:
    numbers = [far.upload({f"{item}.png": f"{item} {number}".encode() for item in range(3)}) for number in range(24)]
    before = [far.delete(number) for number in numbers[:12]]  # journaled, not removed yet
    condemn.condemn(far.resources)

    lying.stop()
    during = [far.delete(number) for number in numbers[12:]]
    for deletion_id, number in zip(during, numbers[12:], strict=True):
        assert far.receipt(deletion_id)["journaled_at"] is None
        with pytest.raises(NotFound):
            snapshots.find(far.resources, [far.project.id], number)
    run_for(far, timedelta(hours=1), timedelta(seconds=30))
    assert {far.receipt(item)["state"] for item in before + during} == {"removing"}
    failed = far.receipt(before[0])["failures"][0]
    assert (failed["class"], failed["attempts"] >= 1) == ("unavailable", True)
    assert far.receipt(during[0])["journaled_at"] is None

    lying.start()
    lying.asked.clear()
    run_for(far, timedelta(seconds=60), timedelta(seconds=1))
    assert {far.receipt(item)["state"] for item in before + during} == {"complete"}
    assert far.files() == []
    # 12 journal entries, 24 receipts, 96 objects asked for once more, and 24 times whether the store is the right one.
    needed = 12 + 24 + 96 + 24
    assert lying.count() <= needed + 40, {verb: lying.count(verb) for verb in ("put", "head", "remove-many")}
    assert far.disagreements() == []


def test_while_the_store_is_away_it_is_asked_sparingly_however_much_waits(far: World, lying: LyingStore) -> None:
    deletion_id = far.delete(far.upload({f"{item}.png": f"{item}".encode() for item in range(200)}))
    condemn.condemn(far.resources)
    lying.lie = lambda ask: "cut"
    lying.asked.clear()
    run_for(far, timedelta(minutes=5), timedelta(seconds=1))
    # Every request is followed by the question whether the store is there at all; both are counted.
    assert lying.count() < 70
    assert far.receipt(deletion_id)["state"] == "removing"
    lying.lie = None
    run_for(far, timedelta(seconds=60), timedelta(seconds=1))
    assert far.receipt(deletion_id)["state"] == "complete"


def test_a_store_that_throttles_is_left_alone_for_a_while(far: World, lying: LyingStore) -> None:
    deletion_id = far.delete(far.upload({f"{item}.png": f"{item}".encode() for item in range(50)}))
    lying.lie = lambda ask: throttled(ask) if ask.verb in ("remove", "remove-many") else None
    lying.asked.clear()
    condemn.condemn(far.resources)
    run_for(far, timedelta(minutes=10), timedelta(seconds=1))
    assert {one["class"] for one in far.receipt(deletion_id)["failures"]} == {"throttled"}
    assert lying.count("remove", "remove-many") < 80
    sizes = [len(ask.keys) for ask in lying.asked if ask.verb in ("remove", "remove-many")]
    assert sizes[-8:] == [1] * 8, "fewer and fewer keys at once"
    lying.lie = None
    run_for(far, timedelta(minutes=20), timedelta(seconds=10))
    assert far.receipt(deletion_id)["state"] == "complete"


def test_a_store_that_refuses_everything_is_not_asked_about_every_key(far: World, lying: LyingStore) -> None:
    """The credentials have lost their right to remove. A thousand refusals a minute would tell nothing more than a few."""
    deletion_id = far.delete(far.upload({f"{item}.png": f"{item}".encode() for item in range(300)}))
    condemn.condemn(far.resources)
    lying.lie = lambda ask: error(403, "AccessDenied") if ask.verb in ("remove", "remove-many") else None
    lying.asked.clear()
    one_pass(far)
    assert lying.count("remove", "remove-many") < 40
    document = far.receipt(deletion_id)
    assert {(one["kind"], one["class"]) for one in document["failures"]} == {
        ("image", "refused"),
        ("manifest", "refused"),
    }


def test_what_fails_does_not_delay_what_is_condemned_later(far: World, lying: LyingStore) -> None:
    first = far.delete(far.upload({f"{item}.png": f"bad {item}".encode() for item in range(200)}))
    bad = {digest(f"bad {item}".encode()) for item in range(200)}
    lying.lie = lying.fails(lambda key: key.rsplit("/", 1)[-1].split(".")[0] in bad, "AccessDenied")
    far.tidy()
    assert far.receipt(first)["objects"]["image"]["waiting"] == 200
    far.clock.pass_time(timedelta(seconds=2))  # they are due again, and have waited longer
    second = far.delete(far.upload({"good.png": b"good"}))
    far.tidy()
    assert far.receipt(second)["state"] == "complete"


def test_a_disk_that_is_not_mounted_confirms_nothing_and_takes_nothing(world: World) -> None:
    """The folder is there and empty. Whoever takes a missing file for a removed one signs receipts for bytes that come
    back with the disk."""
    number = world.upload({"one.png": b"one"})
    deletion_id = world.delete(number)
    objects = world.resources.settings.data / "objects"
    objects.rename(objects.with_name("away"))
    objects.mkdir()
    run_for(world, timedelta(minutes=2), timedelta(seconds=10))
    assert world.receipt(deletion_id)["state"] == "removing"
    assert world.receipt(deletion_id)["failures"][0]["class"] == "unavailable"
    with pytest.raises(StoreUnavailable):
        world.keep(world.begin(), b"two")
    assert not world.resources.store.answers()
    assert list(objects.iterdir()) == []

    objects.rmdir()
    objects.with_name("away").rename(objects)
    run_for(world, timedelta(minutes=1), timedelta(seconds=1))
    assert world.receipt(deletion_id)["state"] == "complete"


# --- Locked ----------------------------------------------------------------------------------------------------------


def test_a_locked_file_is_refused_shown_and_logged_with_everybody_it_concerns(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    number = world.upload({"one.png": b"one", "two.png": b"two"})
    deletion_id = world.delete(number, reason="asked to")
    (file,) = (world.resources.settings.data / "objects").rglob(f"{digest(b'one')}.*")
    if subprocess.run(["chattr", "+i", file], capture_output=True).returncode:
        pytest.skip("this file system cannot make a file immutable")
    try:
        world.tidy()
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    document = world.receipt(deletion_id)
    assert document["objects"]["image"] == {
        "released": 2, "removed": 1, "waiting": 1, "kept_shared": 0, "kept_pinned": 0,
    }  # fmt: skip
    (failed,) = document["failures"]
    assert (failed["kind"], failed["class"], failed["attempts"]) == ("image", "refused", 1)
    said = capsys.readouterr().out + capsys.readouterr().err + caplog.text
    line = next(line for line in said.splitlines() if "object not removed" in line)
    for part in (str(deletion_id), "main", "image", "refused", file.name):
        assert part in line
    run_for(world, timedelta(minutes=1), timedelta(seconds=1))
    assert world.receipt(deletion_id)["state"] == "complete"


# --- Full ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    objects = tmp_path / "objects"
    objects.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(objects)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system of two megabytes cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield objects
    finally:
        subprocess.run(["umount", str(objects)], check=True)


def fill(folder: Path) -> Path:
    """Take the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    assert os.statvfs(folder).f_bavail == 0
    return filler


def test_a_completely_full_disk_can_still_delete(dsn: str, tmp_path: Path, small_disk: Path) -> None:
    """A deletion needs room for its journal entry before it may free any."""
    with a_world(dsn, tmp_path) as world:
        number = world.upload({"large.png": b"x" * 600_000})
        reserve = small_disk / ".snapshed/reserve"
        assert reserve.stat().st_size == 256 * 1024
        assert reserve.stat().st_mode & 0o077 == 0 or small_disk.stat().st_mode & 0o077 == 0
        filler = fill(small_disk)

        session = world.begin()
        with pytest.raises(StoreUnavailable, match="full"):
            world.keep(session, b"y" * 100_000)
        deletion_id = world.delete(number)
        assert world.receipt(deletion_id)["journaled_at"] is not None, "the reserve was given up for it"
        run_for(world, timedelta(minutes=10), timedelta(seconds=30))

        assert world.receipt(deletion_id)["state"] == "complete"
        assert world.stored(b"x" * 600_000) == set()
        filler.unlink()
        world.upload({"other.png": b"z" * 1000})
        assert reserve.exists(), "there is room, so it is kept again"
        assert world.disagreements() == []


def test_uploads_do_not_eat_the_room_that_journal_entries_need(dsn: str, tmp_path: Path, small_disk: Path) -> None:
    with a_world(dsn, tmp_path) as world:
        numbers = [world.upload({f"{item}.png": bytes([item]) * 50_000}) for item in range(8)]
        filler = fill(small_disk)
        for number in numbers[:4]:
            assert world.receipt(world.delete(number))["journaled_at"] is not None
        with pytest.raises(StoreUnavailable, match="full"):
            world.keep(world.begin(), b"small")
        for number in numbers[4:]:
            assert world.receipt(world.delete(number))["journaled_at"] is not None
        filler.unlink()


# --- Said ------------------------------------------------------------------------------------------------------------


def counted(world: World) -> dict[str, dict[str, float]]:
    """Every metric by name, its values by label; one without labels has the label \"\"."""
    return {family.name: dict(family.values) for family in measure.measure(world.resources)}


def test_what_goes_wrong_is_counted_for_an_alarm(far: World, lying: LyingStore) -> None:
    waiting = far.upload({"one.png": b"one", "two.png": b"two"})
    far.delete(far.upload({"three.png": b"three"}))
    far.clock.pass_time(timedelta(seconds=5))
    far.tidy()
    numbers = counted(far)
    assert numbers["removals"][""] == 2
    assert numbers["removed_bytes"][""] > len(b"three")
    assert numbers["removal_failures"] == {"unavailable": 0, "throttled": 0, "refused": 0}
    assert numbers["deletion_seconds"] == {"0.5": 5, "0.99": 5}

    lying.stop()
    far.delete(waiting)
    far.clock.pass_time(timedelta(seconds=7))
    numbers = counted(far)
    assert numbers["open_deletions"][""] == 1
    assert numbers["unjournaled_deletions"][""] == 1
    assert numbers["oldest_deletion_seconds"][""] == numbers["oldest_unjournaled_seconds"][""] == 7
    lying.start()
    lying.lie = lambda ask: error(403, "AccessDenied") if ask.verb in ("remove", "remove-many") else None
    deletion.journal_waiting(far.resources)
    condemn.condemn(far.resources)
    assert counted(far)["tombstones_due"][""] == 3
    remove.remove(far.resources)
    far.clock.pass_time(timedelta(milliseconds=1))
    numbers = counted(far)
    assert numbers["unjournaled_deletions"][""] == 0
    assert (numbers["tombstones_due"][""], numbers["tombstones_waiting"][""]) == (0, 3)
    assert numbers["tombstones_failing_by_class"] == {"unavailable": 0, "throttled": 0, "refused": 3}
    assert numbers["removal_failures"]["refused"] == 3
    assert numbers["oldest_tombstone_seconds"][""] > 0
    assert numbers["tombstone_bytes"]["image"] == len(b"one") + len(b"two")

    lying.lie = None
    far.clock.pass_time(timedelta(hours=1))
    far.tidy()
    numbers = counted(far)
    assert numbers["removals"][""] == 5
    assert numbers["removal_seconds"][""] >= 3 * 3600
    assert numbers["tombstone_bytes"] == {}


def test_no_word_of_the_store_reaches_a_log_a_receipt_or_an_error(
    far: World, lying: LyingStore, capfd: pytest.CaptureFixture[str]
) -> None:
    """The store's own words hold its address, our bucket and, here, even the secret key."""
    number = far.upload({"one.png": b"one"})
    lies = [
        lambda ask: "cut",
        throttled,
        lambda ask: error(403, "AccessDenied"),
        lambda ask: error(500, "InternalError"),
    ]
    said = ""
    for lie in lies:
        lying.lie = lie
        with pytest.raises(StoreUnavailable) as failed:
            far.keep(far.begin(), b"two")
        said += str(failed.value)
    lying.lie = None
    deletion_id = far.delete(number)
    for lie in lies:
        lying.lie = lie
        run_for(far, timedelta(minutes=2), timedelta(seconds=30))
        said += json.dumps(far.receipt(deletion_id))
    lying.stop()
    run_for(far, timedelta(minutes=2), timedelta(seconds=30))
    out, err = capfd.readouterr()
    said += out + err
    assert "object not removed" in said
    for word in (SECRET, ACCESS, lying.endpoint, "127.0.0.1", "internal", "said no"):
        assert word not in said


# --- Versions --------------------------------------------------------------------------------------------------------


def scope_of(world: World) -> str:
    deletion_id = world.delete(world.upload({"one.png": b"one"}))
    world.tidy()
    document = world.receipt(deletion_id)
    assert document["state"] == "complete"
    assert receipts.verify(world.resources, world.project.org_id, deletion_id).signed
    return " ".join(document["scope"])


def test_a_receipt_says_that_it_could_not_ask_as_long_as_it_has_not(world: World) -> None:
    assert "could not be asked" in scope_of(world)
    probe.probe(world.resources, tell=True)
    assert "no sign of keeping versions" in scope_of(world)


def test_a_bucket_without_versions_is_seen_to_have_none(far: World) -> None:
    probe.probe(far.resources, tell=True)
    assert "no sign of keeping versions" in scope_of(far)


def test_a_versioned_bucket_is_named_on_receipts_and_logged_once(
    dsn: str, tmp_path: Path, lying: LyingStore, s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    versioned = turn_versioning_on(s3, f"versioned-{os.getpid()}")
    fields = remote(lying, tmp_path.name, store_url=f"s3://{versioned}/x")
    with a_world(dsn, tmp_path, **fields) as world:
        capsys.readouterr()
        probe.probe(world.resources, tell=True)
        probe.probe(world.resources, tell=False)
        assert "can bring the bytes back" in scope_of(world)
        said = capsys.readouterr()
        assert (said.out + said.err).count("store may keep removed objects") == 1


def test_serve_warns_once_about_a_store_that_keeps_versions(installation: Installation, s3: S3) -> None:
    versioned = turn_versioning_on(s3, f"served-{os.getpid()}")
    installation.settings |= {
        "SNAPSHED_STORE_URL": f"s3://{versioned}/served",
        "SNAPSHED_STORE_ENDPOINT": s3.endpoint,
        "SNAPSHED_STORE_ACCESS_KEY_ID": ACCESS,
        "SNAPSHED_STORE_SECRET_ACCESS_KEY": SECRET,
        "SNAPSHED_PUT_LIMIT": "60s",  # a new bucket takes its time
    }
    server = installation.serve()
    wait_until(lambda: "store may keep removed objects" in server.log, 30, "the warning")
    server.stop()
    assert server.log.count("store may keep removed objects") == 1
    assert SECRET not in server.log
    assert s3.endpoint not in server.log


# --- The whole service -----------------------------------------------------------------------------------------------


def test_the_service_goes_on_while_the_store_is_away(installation: Installation, lying: LyingStore) -> None:
    installation.settings |= {
        "SNAPSHED_STORE_URL": f"s3://{lying.bucket}/{installation.folder.name}",
        "SNAPSHED_STORE_ENDPOINT": lying.endpoint,
        "SNAPSHED_STORE_ACCESS_KEY_ID": ACCESS,
        "SNAPSHED_STORE_SECRET_ACCESS_KEY": SECRET,
        "SNAPSHED_PUT_LIMIT": "20s",
    }
    server = installation.serve()
    client = server.client
    images = {"page.png": picture("one")}
    number = client.upload(images.values(), manifest("shop", images, "a" * 40))
    assert client.ready().status_code == 200

    lying.stop()
    assert (client.ready().status_code, client.ready().json()) == (503, {"database": True, "store": False})
    order = client.order(snapshots=[number])
    assert order.status_code == 202
    assert order.json()["journaled_at"] is None
    assert client.details(number).status_code == 404
    assert client.gauges()["unjournaled_deletions"] == 1
    lying.start()
    wait_until(lambda: client.receipt(order.json()["id"])["state"] == "complete", 60, "the receipt")
    assert client.ready().status_code == 200
    server.stop()
    assert SECRET not in server.log
    assert lying.endpoint not in server.log


# --- Traces ----------------------------------------------------------------------------------------------------------


def test_a_trace_writer_that_slept_through_a_deletion_writes_nothing(world: World) -> None:
    """It took its rows, stalled for longer than its claim, and wakes up when the receipt has said that no trace rows are
    left."""
    number = world.upload({"one.png": b"one"})
    resources = world.resources
    taken, woken = threading.Event(), threading.Event()

    class Sleepy:
        def write(self, rows: list[Trace]) -> None:
            taken.set()
            assert woken.wait(60)
            resources.traces.write(rows)

    sleeper = threading.Thread(
        target=traces.write_traces,
        args=(replace(resources, traces=Sleepy()),),  # pyright: ignore[reportArgumentType]
    )
    sleeper.start()
    assert taken.wait(60)
    deletion_id = world.delete(number)
    world.clock.pass_time(timedelta(minutes=1))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    woken.set()
    sleeper.join(60)
    assert world.count("trace") == 0
    assert world.disagreements() == []


def test_a_trace_writer_that_wakes_while_a_large_deletion_is_only_marked_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marked snapshots keep their rows, the outbox too, until their turn comes; their traces are counted before."""
    world.upload({"one.png": b"one"})
    resources = world.resources
    claim, now = resources.new_id(), resources.now()
    due = resources.database.run(lambda tx: outbox.claim(tx, claim, now, now + timedelta(seconds=10), 10))
    monkeypatch.setattr(releasing, "_STEP_ARTIFACTS", 0)
    deletion_id = deletion.request(resources, world.order(everything=True))
    world.clock.pass_time(timedelta(seconds=11))
    traces.remove_traces(resources)
    assert world.receipt(deletion_id)["traces"]["removed"] == 1
    assert world.count("trace_due") == 1
    resources.traces.write([Trace(item.id, item.trace_id, item.event, item.at, item.facts) for item in due])
    assert world.count("trace") == 0


# --- Rules -----------------------------------------------------------------------------------------------------------


def test_waits_grow_are_capped_and_spread() -> None:
    shortest, longest = timedelta(seconds=1), timedelta(minutes=15)
    lows = [backoff.wait(n, 0.0, shortest=shortest, longest=longest) for n in range(1, 40)]
    highs = [backoff.wait(n, 1.0, shortest=shortest, longest=longest) for n in range(1, 40)]
    assert lows == sorted(lows)
    assert highs[:4] == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8)]
    assert highs[-1] == longest
    assert all(low * 2 == high for low, high in zip(lows, highs, strict=True))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("GET /1/1/1/429403503.abc: status code: 500 Internal Server Error", "unavailable"),
        ("status code: 429 Too Many Requests", "throttled"),
        ("status code: 503 Service Unavailable: <Error><Code>SlowDown</Code></Error>", "throttled"),
        ("DeleteObjects request failed for key x: no (code: AccessDenied)", "refused"),
        ("status code: 403 Forbidden", "refused"),
        ("error sending request", "unavailable"),
    ],
)
def test_a_failure_is_classed_by_its_status_and_code_not_by_digits_of_a_key(text: str, kind: str) -> None:
    assert classify(Exception(text)).kind == kind


def test_one_bad_key_of_a_thousand_costs_few_requests_and_a_dead_store_two() -> None:
    keys = [str(number) for number in range(1000)]
    no = Failure("unavailable", "no")
    asked: list[int] = []

    def ask(part: Any) -> Failure | dict[str, Failure]:
        asked.append(len(part))
        return no if "777" in part else {}

    assert set(remove_all(keys, ask, lambda: True)) == {"777"}
    assert len(asked) <= 31

    asked.clear()
    failed = remove_all(keys, lambda part: asked.append(len(part)) or no, lambda: False)
    assert set(failed) == set(keys)
    assert all(failure.store_is_down for failure in failed.values())
    assert len(asked) == 1


def test_the_number_of_keys_in_flight_halves_at_once_and_grows_slowly() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    pace = Pace()
    slow = {"k": Failure("throttled", "less")}
    pace.note(1000, slow, at, 1.0)
    assert pace.allowance(at) == 0, "it rests first"
    assert pace.allowance(at + timedelta(seconds=1)) == 500
    pace.note(500, {}, at, 1.0)
    assert pace.allowance(at) == 550

    down = {"k": Failure("unavailable", "silence", store_is_down=True)}
    for _ in range(20):
        pace.note(1, down, at, 1.0)
    assert pace.allowance(at + timedelta(seconds=29)) == 0
    assert pace.allowance(at + timedelta(seconds=30)) == 1
    grown: list[int] = []
    for _ in range(10):
        pace.note(pace.keys, {}, at, 1.0)
        grown.append(pace.keys)
    assert grown[:4] == [2, 4, 8, 16]

"""Processes that die or are stopped at no particular step: servers, workers, the database, all at once; and a full disk.

The matrix kills at named steps; here it is the whole that must hold together, whoever is missing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from fixtures.load import Load, under_load
from fixtures.pictures import Picture, manifest, noise, picture
from fixtures.s3 import ACCESS, BUCKET, SECRET, S3Server
from fixtures.server import Installation, content, leftovers, settled, wait_until
from fixtures.wire import Client, deletion_of, expect

pytestmark = pytest.mark.crash

T = TypeVar("T")

PATIENT = {"SNAPSHED_SESSION_TTL": "20s"}
"""A session outlives the time in which the database or the store is started again."""


# --- Servers ---------------------------------------------------------------------------------------------------------


def test_ten_servers_killed_in_a_row_leave_one_database_and_an_orderly_stop_leaves_none(
    installation: Installation,
) -> None:
    """Each server is killed as soon as it is ready, its worker, if it has one, and the database left to themselves. The
    next one adopts the database; were there ever two on one folder, the folder would be lost."""
    made: list[str] = []
    for number in range(10):
        server = installation.serve(worker=number % 3 == 0)
        images = {"page.png": picture(f"server {number}")}
        made.append(server.client.upload(images.values(), manifest("shop", images, f"{number:040x}")))
        server.client.close()
        server.kill()
        assert len(installation.postmasters()) <= 1
    server = installation.serve()
    assert len(installation.postmasters()) == 1
    for snapshot in made:
        assert server.client.details(snapshot).status_code == 200
    settled(installation, server)
    server.stop()
    assert installation.processes() == []


def test_a_worker_stops_when_its_server_is_killed(installation: Installation) -> None:
    """Nobody would restart, stop or even know of a worker that outlived its server. It hears that its standard input
    has ended and stops by itself, with the children that compare images; and since it is the last one, in order, it
    takes the database along."""
    server = installation.serve()
    head = _upload_pair(server.client, {"page.png": picture("one")}, {"page.png": picture("two")})
    wait_until(lambda: server.client.comparison(head) == "success", 60, "the comparison")
    assert len(_others(installation)) > 2
    server.kill()
    wait_until(lambda: not installation.processes(), 30, "the end of the worker, its children and the database")


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=lambda by: by.name)
def test_an_orderly_stop_leaves_no_process(installation: Installation, by: signal.Signals) -> None:
    """Server, worker, the children that compare images, the database: status 0 within ten seconds, and all are gone."""
    server = installation.serve()
    head = _upload_pair(server.client, {"page.png": picture("one")}, {"page.png": picture("two")})
    wait_until(lambda: server.client.comparison(head) == "success", 60, "the comparison")
    server.client.close()
    server.stop(by=by)
    assert installation.processes() == []
    assert list((installation.folder / "tmp").iterdir()) == []


def test_whoever_leaves_last_stops_the_database(installation: Installation) -> None:
    """A worker beside the server goes on when the server stops in order, and takes the database along when it stops."""
    server = installation.serve(worker=False)
    worker = installation.work()
    wait_until(lambda: len(_others(installation)) == 2, 30, "the worker")
    head = _upload_pair(server.client, {"page.png": picture("one")}, {"page.png": picture("two")})
    wait_until(lambda: server.client.comparison(head) == "success", 60, "the comparison")
    server.client.close()
    server.stop()
    assert worker.is_running
    assert len(installation.postmasters()) == 1
    worker.stop()
    assert installation.processes() == []


# --- Comparisons -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> tuple[dict[str, Picture], dict[str, Picture]]:
    """A base and a head that take some seconds to compare."""
    names = [f"{number:02}.png" for number in range(24)]
    base = {name: picture(f"base {name}", 3000, 2000) for name in names}
    return base, {name: picture(f"head {name}", 3000, 2000) for name in names}


Large = tuple[dict[str, Picture], dict[str, Picture]]


def test_a_comparison_that_is_stopped_is_given_back_and_finished_after_the_restart(
    installation: Installation, large: Large
) -> None:
    """An operator restarts the service in the middle of a comparison. It must neither hold up the stop nor be lost, nor
    wait until somebody notices that its worker is gone: it is given back at once."""
    installation.settings["SNAPSHED_SESSION_TTL"] = "60s"
    server = installation.serve()
    head = _upload_pair(server.client, *large)
    wait_until(lambda: server.client.comparison(head) == "processing", 30, "the comparison's beginning")
    server.client.close()
    server.stop()
    assert installation.processes() == []
    assert _scratch(installation) == []
    server = installation.serve(worker=False)
    assert server.client.comparison(head) == "pending"
    worker = installation.work()
    wait_until(lambda: server.client.comparison(head) == "success", 60, "the comparison")
    worker.stop()


def test_a_worker_killed_in_the_middle_of_a_comparison_leaves_no_copy_of_an_image(
    installation: Installation, large: Large
) -> None:
    """Masks are made in the scratch folder. The worker is killed there and the head is deleted: no part of what was
    made from its images may stay on the disk, in the store or beside it."""
    installation.settings["SNAPSHED_SESSION_TTL"] = "60s"
    server = installation.serve()
    head = _upload_pair(server.client, *large)
    wait_until(lambda: _scratch(installation), 30, "the first mask")
    _kill(installation.worker_of(server))
    deletion = deletion_of(server.client.delete(head))
    wait_until(lambda: server.client.receipt(deletion)["state"] == "complete", 40, "the receipt")
    wait_until(lambda: not _scratch(installation), 30, "an empty scratch folder")
    assert len(leftovers(installation.data)) == len(large[0]) + 1


# --- Under load ----------------------------------------------------------------------------------------------------------


def test_a_worker_killed_again_and_again_under_load_is_started_again_and_every_deletion_completes(
    installation: Installation,
) -> None:
    """CI jobs upload and people delete while the worker is killed three times. The server starts it again each time; no
    request fails, and in the end everything that was deleted is gone and everything else is there."""
    server = installation.serve()
    killed: int | None = None
    with under_load(server) as load:
        for _ in range(3):
            # Another one: the one that was killed may still be seen for a moment.
            wait_until(lambda before=killed: installation.worker_of(server) not in (None, before), 30, "a worker")
            load.go_on(4)
            killed = installation.worker_of(server)
            _kill(killed)
        wait_until(lambda: installation.worker_of(server) not in (None, killed), 30, "a worker")
        load.go_on(4)
    assert load.refused == 0
    load.check(installation, server)


def test_a_database_killed_under_load_comes_back_and_nothing_is_lost(installation: Installation) -> None:
    """PostgreSQL is killed twice in the middle of uploads and deletions. For a while requests are answered 503 and may
    be repeated; then it is running again, and everything that was answered before, between and after is so."""
    installation.settings |= PATIENT
    server = installation.serve()
    with under_load(server) as load:
        for _ in range(2):
            load.go_on(6)
            (postmaster,) = installation.postmasters()
            os.kill(postmaster, signal.SIGKILL)
            wait_until(lambda gone=postmaster: installation.postmasters() not in ([], [gone]), 30, "a new database")
            wait_until(lambda: server.client.ready().status_code == 200, 30, "a service that is ready")
        load.go_on(6)
    load.check(installation, server)


def test_a_power_loss_under_load_loses_nothing_that_was_answered(installation: Installation) -> None:
    """Server, worker, children and database are all killed at the same moment, twice, while jobs upload and people
    delete. What was answered is so after the restart; what was not answered is whole or absent."""
    server = installation.serve()
    load: Load | None = None
    for _ in range(2):
        with under_load(server, load) as load:
            load.go_on(6)
            installation.lose_power()
        server.client.close()
        server = installation.serve()
    assert load is not None
    load.check(installation, server)


def test_an_s3_server_killed_under_load_comes_back_and_nothing_is_lost(installation: Installation) -> None:
    """The store is killed twice while jobs upload and people delete. Meanwhile uploads are answered 503 and may be
    repeated, and deletions are answered at once; they are journaled and their bytes removed when it is back."""
    store = S3Server()
    try:
        store.start()
        installation.settings |= {
            "SNAPSHED_STORE_URL": f"s3://{BUCKET}/load",
            "SNAPSHED_STORE_ENDPOINT": store.endpoint,
            "SNAPSHED_STORE_ACCESS_KEY_ID": ACCESS,
            "SNAPSHED_STORE_SECRET_ACCESS_KEY": SECRET,
            **PATIENT,
        }
        server = installation.serve()
        with under_load(server) as load:
            for _ in range(2):
                load.go_on(6)
                store.kill()
                wait_until(lambda: server.client.ready().status_code == 503, 30, "a service that is not ready")
                store.start()
                wait_until(lambda: server.client.ready().status_code == 200, 30, "a service that is ready")
            load.go_on(6)
        load.check(installation, server, 90)
        server.stop()
    finally:
        store.remove()


# --- A full disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(installation: Installation) -> Generator[Path]:
    """A disk of three megabytes, in memory."""
    place = installation.folder / "disk"
    place.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place))
    if mounted is not None:
        pytest.skip(f"a small disk cannot be mounted here: {mounted}")
    try:
        yield place
    finally:
        installation.lose_power()
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_refuses_uploads_with_a_sentence_and_takes_them_again_when_there_is_room(
    installation: Installation, small_disk: Path
) -> None:
    """The disk of the objects fills up in the middle of an upload. The client is told so, in a batch and in a single
    request; nothing half-made stays, what was there before can be read, and what is deleted makes room. When the disk
    has grown, the same upload goes through."""
    objects = small_disk / "objects"
    installation.settings["SNAPSHED_STORE_URL"] = objects.as_uri()
    server = installation.serve()
    client = server.client
    first = {f"{number}.png": noise(f"first {number}", 400, 400) for number in range(3)}
    kept = client.upload(first.values(), manifest("shop", first, "1" * 40))
    second = {f"{number}.png": noise(f"second {number}", 500, 500) for number in range(4)}

    session = client.upload_options()
    parts = client.insert(session, second.values())
    assert {part.status for part in parts} == {503}
    assert all("full" in part.detail for part in parts), parts
    free = iter(second.values())
    answer = client.put(session, next(free))
    while answer.status_code == 200:
        answer = client.put(session, next(free))
    assert "full" in expect(answer, 503)["detail"]
    assert "retry-after" not in answer.headers
    refused = client.create(manifest("shop", second, "2" * 40))
    assert refused.status_code in (409, 503), refused.text

    settled(installation, server)
    assert _digests(objects) >= {image.digest for image in first.values()}
    assert len(content(objects)) == len(first) + 1
    reading = client.upload_options()
    assert [client.image(reading, image.digest).content for image in first.values()] == [
        image.png for image in first.values()
    ]

    deletion = deletion_of(client.delete(kept))
    wait_until(lambda: client.receipt(deletion)["state"] == "complete", 40, "the receipt")
    assert _mount("-o", "remount,size=32m", str(small_disk)) is None
    snapshot = client.upload(second.values(), manifest("shop", second, "2" * 40))
    assert client.details(snapshot).status_code == 200
    settled(installation, server)
    assert len(content(objects)) == len(second) + 1
    client.close()
    server.stop()


def _digests(objects: Path) -> set[str]:
    return {key.rsplit("/", 1)[-1].partition(".")[0] for key in content(objects)}


def _mount(*arguments: str) -> str | None:
    """Mount or remount; the reason if that is not permitted."""
    if os.geteuid() != 0:
        return "only root may mount"
    mount = shutil.which("mount")
    if mount is None:
        return "there is no mount command"
    done = subprocess.run([mount, *arguments], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or f"mount left with status {done.returncode}"


# --- Pieces --------------------------------------------------------------------------------------------------------------


def _upload_pair(client: Client, base: dict[str, Picture], head: dict[str, Picture]) -> str:
    """A base and a head that is compared with it; returns the head."""
    client.upload(base.values(), manifest("shop", base, "a" * 40))
    return client.upload(head.values(), manifest("shop", head, "b" * 40, "a" * 40))


def _others(installation: Installation) -> list[int]:
    """Our processes that are not the database's."""
    return [pid for pid in installation.processes() if not installation.is_database(pid)]


def _scratch(installation: Installation) -> list[Path]:
    """What is being made beside the store."""
    return list((installation.data / "scratch").glob("compare-*"))


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

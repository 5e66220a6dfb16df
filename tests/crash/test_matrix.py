"""The crash matrix: a process is killed just after each step that has a name, and every promise still holds.

Each story below brings one process to pass one failpoint and die by it. Then the service is started again as after any
crash, the story is told to its end, and `Stage.finish` looks at everything that was promised. The stories cover the
crash table of ARCHITECTURE.md line by line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx
import objectstore_client
import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fixtures.pictures import Picture, manifest, picture
from fixtures.server import Installation, Server, leftovers, settled, wait_until
from fixtures.wire import Client, Session, deletion_of, expect
from objectstore_client.auth import SecretKey

from snapshed import failpoints
from snapshed.domain import grants

pytestmark = pytest.mark.crash

Kind = Literal["http", "worker", "operator"]

SAME, BEFORE, AFTER = picture("same"), picture("before"), picture("after")
BASE = {"same.png": SAME, "changed.png": BEFORE, "removed.png": picture("removed")}
HEAD = {"same.png": SAME, "changed.png": AFTER, "added.png": picture("added")}
BASE_SHA, HEAD_SHA = "a" * 40, "b" * 40
BASE_BODY = manifest("shop", BASE, BASE_SHA)
HEAD_BODY = manifest("shop", HEAD, HEAD_SHA, BASE_SHA)

RESUME_SECONDS = 90.0
"""Within this time somebody else has made the comparison whose worker died; its claim ends well before."""

MANY = 51
"""More snapshots than a deletion releases at once, so that the worker releases them in steps."""


ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"


def crash_table(text: str) -> list[str]:
    """The failpoints of the table under the heading "Crash table", in order. Each line must say all four things."""
    _, heading, section = text.partition("\n## Crash table\n")
    assert heading, "ARCHITECTURE.md has no section called Crash table"
    names: list[str] = []
    for line in section.partition("\n## ")[0].splitlines():
        if match := re.match(r"\|\s*`([a-z.]+)`\s*\|", line):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            assert len(cells) == 4, f"the line of {match[1]} needs its name, after what, what is left, and who tidies"
            assert all(cells), f"the line of {match[1]} leaves something unsaid"
            names.append(match[1])
    return names


class Stage:
    """An installation, the server that runs on it now, and what the clients were told so far."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.server: Server | None = None
        self.base: str | None = None
        self.head: str | None = None
        self.deleted: dict[str, str] = {}
        """Snapshots that must be gone, with the deletion that took each."""

    @property
    def client(self) -> Client:
        assert self.server is not None
        return self.server.client

    # --- Crashing ------------------------------------------------------------------------------------------------

    def open(self, *, worker: bool = False, failpoint: str | None = None) -> None:
        """Start the service as after a crash of the one before: that one is killed, and its worker goes with it."""
        if self.server is not None:
            self.server.client.close()
            self.server.kill()
        self.server = self.installation.serve(worker=worker, failpoint=failpoint and f"{failpoint}=kill")

    def cut_off(self, failpoint: str, request: Callable[[Client], object]) -> None:
        """The server dies at the failpoint while it answers this request; the client sees its connection break."""
        self.open(failpoint=failpoint)
        assert self.server is not None
        with pytest.raises(httpx.TransportError):
            request(self.client)
        self.server.assert_killed_at(failpoint)

    def die_working(self, failpoint: str) -> None:
        """A worker, beside a healthy server, dies at the failpoint."""
        self.installation.work(failpoint=f"{failpoint}=kill").assert_killed_at(failpoint)

    # --- The story, piece by piece ---------------------------------------------------------------------------------

    def upload(self) -> None:
        """The base and the head, whichever is not there yet."""
        self.base = self.base or self.client.upload(BASE.values(), BASE_BODY)
        self.head = self.head or self.client.upload(HEAD.values(), HEAD_BODY)

    def compare(self) -> None:
        """Wait for the verdict about the head."""
        wait_until(self.is_compared, RESUME_SECONDS, "the head's comparison")
        document = expect(self.client.details(self.head or ""), 200)
        assert document["changed_count"] == 1, document
        assert document["errored_count"] == 0, document

    def is_compared(self) -> bool:
        return self.client.comparison(self.head or "") == "success"

    def compared_by_another_worker(self) -> None:
        """So that masks and a report are in the store; that worker then is gone."""
        worker = self.installation.work()
        self.compare()
        worker.kill()

    def delete_head(self) -> None:
        """Delete the head; what it shares with the base stays."""
        assert self.head is not None
        self.deleted[self.head] = deletion_of(self.client.delete(self.head))
        self.head = None

    # --- The promises --------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Tell the story to its end on a healthy service, then look at every promise."""
        self.assert_gone()
        if not self.deleted:
            self.upload()
            self.compare()
            self.assert_readable(self.head or "", HEAD)
            self.delete_head()
        if self.base is None:
            self.base = self.client.upload(BASE.values(), BASE_BODY)
        self.assert_gone()
        assert self.server is not None
        settled(self.installation, self.server)
        self.assert_nothing_besides(BASE)
        for deletion in set(self.deleted.values()):
            self.assert_complete(deletion)
        self.assert_readable(self.base, BASE)
        self.assert_gone()
        self.client.close()
        self.server.stop()
        assert self.installation.processes() == []

    def assert_readable(self, snapshot: str, images: Mapping[str, Picture]) -> None:
        """No hole: the snapshot names exactly these images, and each can be read, byte by byte as it was sent."""
        document = expect(self.client.details(snapshot), 200)
        assert _named(document) == {name: image.digest for name, image in images.items()}
        session = self.client.upload_options()
        for image in images.values():
            answer = self.client.image(session, image.digest)
            assert answer.status_code == 200
            assert answer.content == image.png

    def assert_gone(self) -> None:
        """No door shows a deleted snapshot or promises an image that only it named, however much is still to do."""
        session = self.client.upload_options()
        for snapshot in self.deleted:
            assert self.client.details(snapshot).status_code == 404
        if self.deleted and self.head is None:
            alone = [image.digest for image in HEAD.values() if image not in BASE.values() or self.base is None]
            assert self.client.promised(session, alone) == []
            for digest in alone:
                assert self.client.image(session, digest).status_code == 404

    def assert_complete(self, deletion: str) -> None:
        """The receipt is complete, balanced, signed, true, and in the journal."""
        receipt = self.client.receipt(deletion)
        assert receipt["state"] == "complete"
        assert receipt["journaled_at"]
        for kind, count in receipt["objects"].items():
            assert count["waiting"] == count["kept_pinned"] == 0, (kind, count)
            assert count["released"] == count["removed"] + count["kept_shared"], (kind, count)
        assert receipt["objects"]["image"]["removed"] >= 1
        assert receipt["traces"]["waiting"] == 0
        verification = self.client.verification(deletion)
        assert verification["signed"] is True
        assert verification["standing"] == []
        own = self.installation.data / "objects" / ".snapshed"
        assert (own / "journal" / f"{deletion}.json").is_file()
        in_journal = own / "receipts" / f"{deletion}.json"
        wait_until(in_journal.is_file, 30, "the receipt in the journal")
        assert json.loads(in_journal.read_bytes()) == receipt

    def assert_nothing_besides(self, images: Mapping[str, Picture]) -> None:
        """No leak: in the store are these images and one manifest, each under the digest of its own bytes."""
        objects = self.installation.data / "objects"
        found = leftovers(self.installation.data)
        for key in found:
            assert hashlib.sha256((objects / key).read_bytes()).hexdigest() == _digest(key)
        expected = {image.digest for image in images.values()}
        assert len(found) == len(expected) + 1, found
        assert expected <= {_digest(key) for key in found}
        assert list(self.installation.data.joinpath("scratch").iterdir()) == []


def _named(document: dict[str, Any]) -> dict[str, str]:
    """Name and digest of every image a snapshot's details show as its own."""
    entries = [*document["images"], *document["added"], *document["unchanged"]]
    for category in ("changed", "renamed", "errored"):
        entries += [pair["head_image"] for pair in document[category]]
    return {entry["image_file_name"]: entry["key"] for entry in entries}


def _digest(key: str) -> str:
    return key.rsplit("/", 1)[-1].partition(".")[0]


# --- The stories -----------------------------------------------------------------------------------------------------

Story = Callable[[Stage], None]
STORIES: dict[tuple[str, Kind, str], Story] = {}
"""By failpoint, the kind of process that passes it, and the story's name."""


def told(process: Kind, *names: str) -> Callable[[Callable[[Stage, str], None]], Callable[[Stage, str], None]]:
    """Register a story for each of the failpoints it brings that process to."""

    def register(story: Callable[[Stage, str], None]) -> Callable[[Stage, str], None]:
        for name in names:
            STORIES[name, process, story.__name__] = lambda stage, name=name: story(stage, name)
        return story

    return register


@told("http", "upload.promised")
def an_uploader_is_promised_an_image_and_loses_the_answer(stage: Stage, failpoint: str) -> None:
    """The base is there; a CI job asks which images of the head are here already. The promise is written down, the
    answer is lost. Lost would be the shared image, if the promise counted for nothing; it would never go, if the
    promise counted for ever. The job asks again and is told the same."""
    stage.open()
    stage.base = stage.client.upload(BASE.values(), BASE_BODY)
    session = stage.client.upload_options()
    digests = [image.digest for image in HEAD.values()]
    stage.cut_off(failpoint, lambda client: client.promised(moved(session, client), digests))
    stage.open(worker=True)
    assert stage.client.promised(moved(session, stage.client), digests) == [SAME.digest]


@told("http", "upload.announced", "upload.stored", "upload.finalised")
def an_upload_breaks_off_and_is_repeated(stage: Stage, failpoint: str) -> None:
    """A CI job sends the images of the head in one batch and the connection breaks: announced but not written, written
    but not confirmed, or confirmed but not answered. The job cannot know which. It sends all of them again, in the
    same session, and creates its snapshot; what the first attempt left is in nobody's way and does not stay."""
    stage.open()
    stage.base = stage.client.upload(BASE.values(), BASE_BODY)
    session = stage.client.upload_options()
    assert stage.client.promised(session, [SAME.digest]) == [SAME.digest]
    stage.cut_off(failpoint, lambda client: client.insert(moved(session, client), HEAD.values()))
    stage.open(worker=True)
    here = moved(session, stage.client)
    assert {part.status for part in stage.client.insert(here, HEAD.values())} == {201}
    stage.head = str(expect(stage.client.create(HEAD_BODY), 200)["artifactId"])


@told("http", "snapshot.stored")
def a_create_breaks_off_before_it_is_committed(stage: Stage, failpoint: str) -> None:
    """The manifest is in the store, the snapshot is not in the database. The client repeats its create and gets its
    snapshot; the first manifest, which nobody names, goes."""
    stage.open()
    stage.base = stage.client.upload(BASE.values(), BASE_BODY)
    session = stage.client.upload_options()
    assert {part.status for part in stage.client.insert(session, HEAD.values())} == {201}
    stage.cut_off(failpoint, lambda client: client.create(HEAD_BODY))
    stage.open(worker=True)
    stage.head = str(expect(stage.client.create(HEAD_BODY), 200)["artifactId"])


@told("http", "snapshot.committed")
def a_create_is_committed_and_its_answer_lost(stage: Stage, failpoint: str) -> None:
    """The snapshot is there, the client does not know. It repeats its create, twice even, and is answered with the
    snapshot the first attempt made; there is no second one."""
    stage.open()
    stage.base = stage.client.upload(BASE.values(), BASE_BODY)
    session = stage.client.upload_options()
    assert {part.status for part in stage.client.insert(session, HEAD.values())} == {201}
    stage.cut_off(failpoint, lambda client: client.create(HEAD_BODY))
    stage.open(worker=True)
    answers = [expect(stage.client.create(HEAD_BODY, zstd=zstd), 200) for zstd in (False, True)]
    first = int(answers[0]["artifactId"])
    assert [int(answer["artifactId"]) for answer in answers] == [first, first]
    for neighbour in (first - 1, first + 1):
        assert str(neighbour) == stage.base or stage.client.details(str(neighbour)).status_code == 404
    stage.head = str(first)


@told("http", "deletion.marked", "deletion.released", "deletion.journaled")
def a_deletion_breaks_off_before_it_is_answered(stage: Stage, failpoint: str) -> None:
    """A person deletes the head and sees an error. The deletion is committed, perhaps not yet in the journal. It must
    not be half a deletion: after the restart the head is gone, nobody has to ask again, and asking again says so."""
    stage.open()
    stage.upload()
    stage.compared_by_another_worker()
    head = stage.head or ""
    stage.cut_off(failpoint, lambda client: client.delete(head))
    stage.open(worker=True)
    assert stage.client.delete(head).status_code == 404
    (receipt,) = stage.client.deletions(head)
    stage.head, stage.deleted[head] = None, receipt["id"]
    wait_until(lambda: stage.client.receipt(receipt["id"])["journaled_at"], 30, "the journal entry")


@told("worker", "deletion.journaled")
def a_worker_journals_for_a_dead_server_and_dies(stage: Stage, failpoint: str) -> None:
    """The server died between marking and journaling; a worker writes the journal entry in its place and dies too."""
    stage.open()
    stage.upload()
    head = stage.head or ""
    stage.cut_off("deletion.marked", lambda client: client.delete(head))
    stage.die_working(failpoint)
    stage.open(worker=True)
    wait_until(lambda: bool(stage.client.deletions(head)[0]["journaled_at"]), 30, "the journal entry, written again")
    (receipt,) = stage.client.deletions(head)
    stage.head, stage.deleted[head] = None, receipt["id"]


@told("worker", "deletion.released")
def a_large_deletion_is_half_released(stage: Stage, failpoint: str) -> None:
    """More snapshots than one step takes are deleted at once: everything of the project. The worker dies after its
    first step. All of them are gone for every reader from the answer on, those too whose rows still stand, and the
    next worker lets go of the rest."""
    stage.open()
    stage.upload()
    doomed = [stage.base or "", stage.head or ""]
    for number in range(MANY):
        body = manifest("shop", {"same.png": SAME}, f"{number:040x}")
        doomed.append(str(expect(stage.client.create(body), 200)["artifactId"]))
    receipt = expect(stage.client.order(project="main", everything=True, reason="the project is over"), 202)
    assert receipt["rows"]["snapshots"] == len(doomed)
    stage.base = stage.head = None
    stage.deleted = dict.fromkeys(doomed, receipt["id"])
    stage.assert_gone()
    stage.die_working(failpoint)
    stage.assert_gone()
    stage.open(worker=True)


@told("worker", "comparison.stored")
def a_worker_dies_with_a_comparison_that_is_not_committed(stage: Stage, failpoint: str) -> None:
    """Masks and report are in the store, the database knows them only as announced. The comparison is made again by
    whoever takes it when the dead worker's claim ends; the first masks, which nobody names, go."""
    stage.open()
    stage.upload()
    stage.die_working(failpoint)
    assert stage.client.comparison(stage.head or "") == "processing"
    stage.open(worker=True)


@told("worker", "comparison.committed")
def a_worker_dies_with_a_comparison_that_is_committed(stage: Stage, failpoint: str) -> None:
    """The verdict is there; only the job's own bookkeeping is not done. Nothing is compared twice."""
    stage.open()
    stage.upload()
    stage.die_working(failpoint)
    assert stage.client.comparison(stage.head or "") == "success"
    stage.open(worker=True)


@told("worker", "condemn.committed", "removal.claimed", "removal.sent", "removal.confirmed", "receipt.closed")
def a_worker_dies_over_a_deletion(stage: Stage, failpoint: str) -> None:
    """A compared head is deleted and answered. The worker that removes its images, masks, report and manifest dies
    after one of its beats. The next one finds every object still to remove, and removing one twice does no harm."""
    stage.open()
    stage.upload()
    stage.compared_by_another_worker()
    stage.delete_head()
    stage.die_working(failpoint)
    stage.assert_gone()
    stage.open(worker=True)


@told("worker", "session.expired")
def a_worker_dies_over_an_abandoned_upload(stage: Stage, failpoint: str) -> None:
    """A CI job uploads two images nobody else has, is promised a third, and is never heard of again. The worker ends
    the session and dies. What only the session held goes all the same; the third image stays for its snapshot."""
    stage.open()
    stage.base = stage.client.upload(BASE.values(), BASE_BODY)
    session = stage.client.upload_options()
    assert stage.client.promised(session, [SAME.digest]) == [SAME.digest]
    abandoned = [picture("abandoned"), picture("abandoned too")]
    assert {part.status for part in stage.client.insert(session, abandoned)} == {201}
    stage.die_working(failpoint)
    assert stage.client.put(session, picture("late")).status_code == 409
    stage.open(worker=True)


@told("http", "shard.kept", "snapshot.stored", "snapshot.committed")
def the_last_shard_breaks_off_before_it_is_answered(stage: Stage, failpoint: str) -> None:
    """Two jobs upload a shard each; the second sees an error. It hands its part in again, and whichever step the server
    died at there is one snapshot, and it is whole."""
    stage.open()
    images = {"one.png": picture("shard one"), "two.png": picture("shard two")}
    bodies = [manifest("sharded", {name: image}, "c" * 40) for name, image in images.items()]
    session = stage.client.upload_options(group="night", shards="2")
    assert {part.status for part in stage.client.insert(session, list(images.values()))} == {201}
    assert stage.client.shard(session, 1, bodies[0]).json()["missing"] == [2]
    stage.cut_off(failpoint, lambda client: client.shard(moved(session, client), 2, bodies[1]))
    stage.open()  # no worker yet, which could end the session before the job is back
    made = expect(stage.client.shard(moved(session, stage.client), 2, bodies[1]), 200)
    assert (made["imageCount"], made["missing"]) == (2, [])
    newest = expect(stage.client.by_commit("c" * 40), 200)
    assert newest["head_artifact_id"] == made["artifactId"]
    stage.open(worker=True)
    expect(stage.client.order(project="main", everything=True), 202)


@told("http", "hold.stored", "hold.committed")
def a_hold_breaks_off_before_it_is_answered(stage: Stage, failpoint: str) -> None:
    """Somebody places a hold and sees an error. Either it stands, and then the snapshot cannot be deleted, or it does
    not, and then nothing of it is left; asking again makes sure."""
    stage.open()
    stage.upload()
    head = stage.head or ""
    stage.cut_off(failpoint, lambda client: client.hold(head))
    stage.open(worker=True)
    standing = stage.client.holds()
    assert [hold["snapshot"] for hold in standing] == ([head] if failpoint == "hold.committed" else [])
    standing.append(expect(stage.client.hold(head, "asked again"), 201))
    assert stage.client.delete(head).status_code == 409
    for hold in standing:
        assert stage.client.release_hold(hold["id"]).status_code == 204


@told("http", "deletion.marked", "deletion.released", "deletion.journaled")
def a_withdrawal_breaks_off_before_it_is_answered(stage: Stage, failpoint: str) -> None:
    """A screenshot shows a password and is withdrawn; whoever asked sees an error. After the restart the image is gone
    for everybody and its snapshot is not."""
    stage.open()
    stage.upload()
    stage.compared_by_another_worker()
    stage.cut_off(failpoint, lambda client: client.order(project="main", image=AFTER.digest))
    stage.open(worker=True)
    assert_withdrawn(stage)


@told("worker", "condemn.committed", "removal.sent", "receipt.closed")
def a_worker_dies_over_a_withdrawal(stage: Stage, failpoint: str) -> None:
    """The withdrawal is answered; the worker that removes the image and its mask dies over it."""
    stage.open()
    stage.upload()
    stage.compared_by_another_worker()
    expect(stage.client.order(project="main", image=AFTER.digest), 202)
    stage.die_working(failpoint)
    stage.open(worker=True)
    assert_withdrawn(stage)


def assert_withdrawn(stage: Stage) -> None:
    """The image cannot be read or promised, its receipt comes to say complete, and its snapshot can still be deleted."""
    session = stage.client.upload_options()
    assert stage.client.promised(session, [AFTER.digest]) == []
    assert stage.client.image(session, AFTER.digest).status_code == 404
    (receipt,) = stage.client.deletions(stage.head)
    wait_until(lambda: stage.client.receipt(receipt["id"])["state"] == "complete", 60, "the receipt")
    assert stage.client.receipt(receipt["id"])["objects"]["mask"]["removed"] == 1
    assert not list(stage.installation.data.rglob(f"{AFTER.digest}.*"))
    expect(stage.client.details(stage.head or ""), 200)
    stage.delete_head()


@told("http", "upload.announced", "snapshot.stored", "snapshot.committed")
def a_build_breaks_off_before_it_is_answered(stage: Stage, failpoint: str) -> None:
    """An app is uploaded and the connection breaks. It is uploaded again; then the whole project is deleted, and what
    nobody was told of goes with it."""
    stage.open()
    stage.cut_off(failpoint, lambda client: client.build(b"an app"))
    stage.open(worker=True)
    build = str(expect(stage.client.build(b"an app"), 201)["artifactId"])
    assert stage.client.builds_file(build).content == b"an app"
    receipt = expect(stage.client.order(project="main", everything=True), 202)
    assert receipt["rows"]["builds"] == (2 if failpoint == "snapshot.committed" else 1)
    assert stage.client.builds_file(build).status_code == 404


@told("operator", "deletion.marked")
def a_repair_dies_over_an_object_that_no_row_explains(stage: Stage, failpoint: str) -> None:
    """Somebody copies a file into the store. The repair that found it dies just after writing it down as released; what
    is written down is carried out, and the file goes with a receipt of its own."""
    stage.open()
    stage.upload()
    known = next(stage.installation.data.joinpath("objects").rglob(f"{SAME.digest}.*"))
    copy = known.with_name(f"{'0' * 64}.{uuid4()}")
    copy.write_bytes(b"not ours")
    stage.installation.command("reconcile", "--repair", failpoint=f"{failpoint}=kill").assert_killed_at(failpoint)
    assert copy.exists()
    stage.open(worker=True)
    wait_until(lambda: not copy.exists(), 30, "the removal of the file")
    (receipt,) = stage.client.deletions()
    wait_until(lambda: stage.client.receipt(receipt["id"])["state"] == "complete", 60, "the receipt of the repair")


@told("http", "upload.announced", "upload.stored", "upload.finalised")
def an_object_breaks_off_and_is_sent_again(stage: Stage, failpoint: str) -> None:
    """A program stores an object of its own over the same door, in place of an older one, and the connection breaks. It
    reads the old one whole or the new one whole; it sends the new one again and reads that; and when it removes it,
    nothing of any attempt stays."""
    stage.open()
    private, public = grants.key_pair(Ed25519PrivateKey.generate())
    place = stage.installation.folder / "programs.pem"
    place.write_text(public)
    stage.installation.run("key", "add", "programs", str(place))

    def reports() -> objectstore_client.Session:
        client = objectstore_client.Client(stage.client.address, token=SecretKey("programs", private), retries=0)
        return client.session(objectstore_client.Usecase("reports"), org=42)

    reports().put(b"old", key="report")
    stage.open(failpoint=failpoint)
    with pytest.raises(urllib3.exceptions.HTTPError):
        reports().put(b"new", key="report")
    assert stage.server is not None
    stage.server.assert_killed_at(failpoint)
    stage.open(worker=True)
    assert reports().get("report").payload.read() == (b"new" if failpoint == "upload.finalised" else b"old")
    reports().put(b"new", key="report")
    assert reports().get("report").payload.read() == b"new"
    reports().delete("report")


@told("operator", "rebuild.begun", "rebuild.filled", "rebuild.adopted")
def a_rebuild_dies_half_way(stage: Stage, failpoint: str) -> None:
    """The disk of the database dies while a deletion is under way, and the rebuild from the store dies too: with the new
    epoch begun, with one snapshot back, or with everything back and nothing opened. It is run again, and ends."""
    stage.open()
    stage.upload()
    stage.compared_by_another_worker()
    stage.delete_head()
    stage.installation.lose_database()
    stage.server = None
    stage.installation.command("rebuild", failpoint=f"{failpoint}=kill").assert_killed_at(failpoint)
    assert "rebuild" in stage.installation.refused("serve")
    stage.installation.run("rebuild")
    stage.open(worker=True)
    assert set(stage.deleted.values()) <= {receipt["id"] for receipt in stage.client.deletions()}


def moved(session: Session, client: Client) -> Session:
    """The same session at the address of the server that came after: an installation that is used keeps its own."""
    return replace(session, address=client.address)


TABLE = crash_table(ARCHITECTURE.read_text())
CASES = sorted(STORIES, key=lambda case: TABLE.index(case[0]))


@pytest.mark.parametrize(("failpoint", "process", "story"), CASES, ids=["-".join(case) for case in CASES])
def test_no_promise_is_broken_by_a_kill_just_after(
    installation: Installation, failpoint: str, process: Kind, story: str
) -> None:
    """Kill one process at one step, start again, and look at every promise: no hole, nothing promised is lost, gone
    means gone, nothing leaks, nothing comes back."""
    stage = Stage(installation)
    STORIES[failpoint, process, story](stage)
    stage.finish()


def test_a_deletion_completes_although_every_worker_dies_at_every_beat(installation: Installation) -> None:
    """The server keeps starting workers and each is killed at the first beat it passes. Each beat is committed before
    the kill, so the work goes on from death to death, and the receipt is completed by processes none of which lived
    to see it."""
    stage = Stage(installation)
    stage.open()
    stage.upload()
    stage.compared_by_another_worker()
    beats = ("condemn.committed", "removal.confirmed", "session.expired")
    stage.open(worker=True, failpoint="=kill,".join(beats))
    stage.delete_head()
    (deletion,) = stage.deleted.values()
    wait_until(lambda: stage.client.receipt(deletion)["state"] == "complete", 60, "the receipt")
    assert stage.server is not None
    assert stage.server.log.count(" kill\n") >= 2, stage.server.log
    stage.open(worker=True)
    stage.finish()


# --- The table itself ---------------------------------------------------------------------------------------------------


def test_the_crash_table_of_the_architecture_has_every_step_and_every_step_has_a_story() -> None:
    """A step that is named in the code, in the table and here is understood; one that is missing somewhere is not."""
    assert sorted(TABLE) == sorted(failpoints.NAMES)
    assert {name for name, _, _ in STORIES} == set(TABLE)


def test_a_crash_table_with_a_gap_is_refused() -> None:
    """The parser is strict, or the test above would prove nothing."""
    head = "\n## Crash table\n\n| step | after | what is left | who tidies |\n|---|---|---|---|\n"
    assert crash_table(f"{head}| `a.b` | T1 | a row | T8 |\n\n## Next\n| `c.d` | x | y | z |\n") == ["a.b"]
    with pytest.raises(AssertionError, match="unsaid"):
        crash_table(f"{head}| `a.b` | T1 |  | T8 |\n")
    with pytest.raises(AssertionError, match="no section"):
        crash_table("# Architecture\n")

"""Webhooks: told once something is so, signed, by nobody's leave told to a private network, and never in anybody's way."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from api_fixtures import Project, Service, commit_sha, png, running

from snapshed import posting
from snapshed.domain.webhooks import EVENTS, is_public
from snapshed.errors import Invalid
from snapshed.work import webhooks


@dataclass
class Receiver:
    """A program that is told, and answers with a status of its own."""

    address: str = ""
    status: int = 204
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]


@contextmanager
def listening() -> Generator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.status)
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.address = f"http://127.0.0.1:{server.server_port}/hook?from=snapshed"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("hooks") / "data", SNAPSHED_WEBHOOK_TARGETS="any") as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


def add(project: Project, url: str) -> str:
    """A webhook for everything; its secret."""
    return webhooks.add(project.service.resources, project.org, project.slug, url, EVENTS)[1]


def test_a_receiver_is_told_what_happened_and_can_tell_that_it_is_us(
    service: Service, project: Project, receiver: Receiver
) -> None:
    secret = add(project, receiver.address)
    elsewhere = service.new_project()  # of which it is told nothing
    base = project.snapshot({"a.png": png(1)}, head_sha=commit_sha("b"), head_repo_name="x/y")
    head = project.snapshot(
        {"a.png": png(2)},
        head_sha=commit_sha("h"),
        base_sha=commit_sha("b"),
        head_repo_name="x/y",
        base_repo_name="x/y",
    )
    service.compare()
    path = f"/api/0/organizations/main/preprodartifacts/{head}/approve/"
    assert project.ask("POST", path, json={"feature_type": "snapshots"}).status_code == 201
    elsewhere.delete(elsewhere.snapshot({"a.png": png(3)}))
    deletion = project.delete(base)["id"]
    service.settle()
    compared, decided, deleted = receiver.events
    assert compared == {
        "event": "comparison.finished",
        "snapshot": str(head),
        "base": str(base),
        "state": "done",
        "counts": compared["counts"],
    }
    assert compared["counts"]["changed"] == 1
    assert (decided["event"], decided["snapshot"], decided["decision"]) == ("review.decided", str(head), "approved")
    assert deleted == {"event": "deletion.completed", "deletion": deletion, "snapshots": [str(base)]}
    for headers, body in receiver.heard:
        moment, mac = (part.split("=", 1)[1] for part in headers["snapshed-signature"].split(","))
        assert hmac.compare_digest(
            mac, hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        )
        assert abs(int(moment) - service.clock.now().timestamp()) < 60
    assert len({headers["snapshed-delivery"] for headers, _ in receiver.heard}) == 3


def test_what_did_not_happen_is_not_told(service: Service, project: Project, receiver: Receiver) -> None:
    """The message commits with the event: a decision that is rolled back leaves none."""
    add(project, receiver.address)
    number = project.snapshot({"a.png": png("kept")})
    path = f"/api/0/organizations/main/preprodartifacts/{number}/approve/"
    stranger = project.seen_with(service.token("read"))
    assert stranger.ask("POST", path, json={"feature_type": "snapshots"}).status_code == 403
    for _ in range(2):  # the second decides nothing new
        project.ask("POST", path, json={"feature_type": "snapshots"})
    service.settle()
    assert [event["event"] for event in receiver.events] == ["review.decided"]


def test_a_receiver_that_fails_is_asked_again_later_and_delays_nobody(
    service: Service, project: Project, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = add(project, receiver.address)
    receiver.status = 500
    with listening() as other:
        add(project, other.address)
        first = project.delete(project.snapshot({"a.png": png("one")}))["id"]
        second = project.delete(project.snapshot({"a.png": png("two")}))["id"]
        service.settle()
        assert {event["deletion"] for event in other.events} == {first, second}
        for deletion in (first, second):
            assert project.receipt(deletion)["state"] == "complete"
    assert len(receiver.heard) == 1  # the second message does not hammer a receiver that just failed
    receiver.status = 302  # whoever sends us elsewhere has not taken it
    service.clock.push(timedelta(minutes=1))
    service.settle()
    assert len(receiver.heard) == 2
    receiver.status = 200
    service.clock.push(timedelta(minutes=2))
    service.settle()
    assert {event["deletion"] for event in receiver.events[2:]} == {first, second}
    said = "".join(capfd.readouterr())
    assert "webhook put off" in said
    assert secret not in said
    assert "/hook" not in said


def test_a_receiver_that_never_takes_it_is_given_up_and_a_revoked_one_is_told_nothing(
    service: Service, project: Project, receiver: Receiver
) -> None:
    add(project, receiver.address)
    receiver.status = 500
    project.delete(project.snapshot({"a.png": png("lost")}))
    service.settle()
    service.clock.push(timedelta(days=4))
    service.settle()
    assert service.rows("SELECT count(*) FROM webhook_delivery") == [(0,)]
    assert len(receiver.heard) == 2
    project.delete(project.snapshot({"a.png": png("untold")}))
    mine = [one for one in webhooks.list_webhooks(service.resources) if one.project_slug == project.slug]
    webhooks.revoke(service.resources, mine[0].id)
    service.settle()
    assert len(receiver.heard) == 2


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1", "fe80::1%eth0",  # noqa: S104
     "fd00::1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1"],
)  # fmt: skip
def test_an_address_of_no_public_network_is_known_as_one(address: str) -> None:
    assert not is_public(address)
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


def test_a_name_that_changes_its_mind_reaches_no_private_address(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is public when it is looked at and private when it is connected to. It is asked once, and what was looked
    at is what is connected to."""
    port = int(receiver.address.split(":")[2].split("/")[0])
    answers = iter(["93.184.216.34", "127.0.0.1"])
    connected: list[Any] = []

    def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (next(answers), port))]

    def connect(address: Any, **_: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(posting.Failed, match="unreachable"):
        posting.post(f"http://rebound.example:{port}/", {}, b"{}", only_public=True)
    assert connected == [("93.184.216.34", port)]
    with pytest.raises(posting.Failed, match="address not public"):  # its second answer
        posting.post(f"http://rebound.example:{port}/", {}, b"{}", only_public=True)
    assert receiver.heard == []


def test_a_private_address_is_refused_unless_the_operator_allows_it(receiver: Receiver) -> None:
    for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433"):
        url = receiver.address.replace("127.0.0.1", host)
        with pytest.raises(posting.Failed, match="address not public"):
            posting.post(url, {}, b"{}", only_public=True)
    posting.post(receiver.address, {}, b"{}", only_public=False)
    assert len(receiver.heard) == 1


def test_a_receiver_that_answers_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_SECONDS", 0.5)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            taken, _ = listener.accept()
            with taken:
                taken.recv(65536)
                while not ended.wait(0.05):
                    try:
                        taken.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(posting.Failed):
            posting.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", {}, b"{}", only_public=False)
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "https://",
        "https://me:secret@x/",
        "https://x/#y",
        "https://x y/",
        "http://x:99999/",
        "https://é/",
        "x",
    ],
)
def test_an_address_that_cannot_be_posted_to_is_refused(service: Service, project: Project, url: str) -> None:
    with pytest.raises(Invalid):
        add(project, url)


def test_the_commands_show_a_secret_once_and_of_an_address_only_the_host(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from snapshed.cli import app

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["webhook", *words, "--data", str(tmp_path / "data")])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    known, secret = run("add", "main/main", "https://ci.example.com/hook/t0ken", "--event", "review.decided").split()
    assert secret.startswith("whsec_")
    listed = run("list") + run("list", "--json")
    assert "ci.example.com" in listed
    assert "review.decided" in listed
    assert secret not in listed
    assert "t0ken" not in listed
    run("revoke", known)
    assert "revoked" in run("list")

"""A real server in this process, and small clients that speak to it over real sockets.

The worker does not run beside it: `Service.settle` takes its steps when a test says so, so that nothing depends on who
was faster. The time is the installation's own clock, which a test may push forward.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import uvicorn
import zstandard

from snapshed import web, worker
from snapshed.domain.grants import Scope
from snapshed.engine import Engine
from snapshed.resources import Resources, opened
from snapshed.settings import Settings
from snapshed.work import access, compare, reconcile

Json = Any
CRLF = b"\r\n"

# --- Images ----------------------------------------------------------------------------------------------------------


def png(seed: object, width: int = 8, height: int = 8, *, at_least: int = 0) -> bytes:
    """A small valid PNG whose bytes depend on `seed`; an ancillary chunk fills it up to `at_least` bytes."""
    colour = hashlib.sha256(str(seed).encode()).digest()[:3]
    rows = (b"\0" + colour * width) * height
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        _chunk(b"tEXt", b"seed\0" + hashlib.sha256(str(seed).encode()).hexdigest().encode()),
        _chunk(b"IDAT", zlib.compress(rows)),
        _chunk(b"IEND", b""),
    ]
    missing = at_least - sum(map(len, parts))
    if missing > 0:
        filler = hashlib.shake_128(str(seed).encode()).digest(max(0, missing - 12))
        parts.insert(3, _chunk(b"fiLr", filler))
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def frames(data: bytes, pieces: int = 1) -> bytes:
    """`data` as zstd as clients send it: streamed, so without content size, in one or more frames."""
    step = max(1, -(-len(data) // pieces))
    packed = b""
    for start in range(0, max(1, len(data)), step):
        compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
        packed += compressor.compress(data[start : start + step]) + compressor.flush()
    return packed


def sized(data: bytes) -> bytes:
    """`data` as one zstd frame that tells its size."""
    return zstandard.ZstdCompressor(write_content_size=True).compress(data)


def entry(data: bytes, width: int = 8, height: int = 8, **facts: Json) -> dict[str, Json]:
    """What a manifest says of an image."""
    return {"content_hash": sha(data), "width": width, "height": height, **facts}


def commit_sha(seed: object) -> str:
    return hashlib.sha1(str(seed).encode(), usedforsecurity=False).hexdigest()


# --- The server --------------------------------------------------------------------------------------------------------


class Clock:
    """The installation's time: the real one, plus what a test has pushed it forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def push(self, by: timedelta) -> None:
        self.ahead += by


@dataclass(frozen=True)
class Kept:
    """What rows and store hold of content: for comparing before with after."""

    blobs: frozenset[str]
    tombstones: frozenset[str]
    artifacts: int
    files: frozenset[str]


@dataclass
class Service:
    """A running server and what stands behind it."""

    resources: Resources
    address: str
    clock: Clock
    engine: Engine
    admin: str
    http: httpx.Client
    """One connection pool for all who ask; who they are is said with each request."""

    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    @property
    def objects(self) -> Path:
        return self.resources.settings.data / "objects"

    def token(self, *scopes: Scope, org: str = "main", project: str | None = None, name: str = "test") -> str:
        return access.add_token(self.resources, org, project, name, list(scopes), self.address)

    def new_project(self, org: str = "main", *scopes: Scope) -> Project:
        """A project of its own for one test, and somebody who may do everything in its organization, or less."""
        slug = f"p{next(self._numbers)}"
        made = access.add_project(self.resources, org, slug)
        return Project(self, org, slug, made.org_id, made.id, self.token(*(scopes or ("admin",)), org=org))

    @contextmanager
    def signed_in(self, token: str) -> Generator[httpx.Client]:
        """A browser that has signed in with this token on the page made for it."""
        with httpx.Client(base_url=self.address, timeout=120) as browser:
            form = browser.get("/sign-in").text
            hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
            assert browser.post("/sign-in", data={**hidden, "token": token}).status_code == 303
            yield browser

    # --- What a worker does ---

    def settle(self) -> None:
        """Take every step of the worker until none has anything left to do that is due now."""
        for _ in range(200):
            if not sum(step(self.resources) for _, step in worker._STEPS):
                return
        raise AssertionError("the worker never comes to rest")

    def step(self, name: str) -> int:
        """Take one of the worker's steps once."""
        return dict(worker._STEPS)[name](self.resources)

    def compare(self) -> int:
        """Do every comparison that waits. Returns how many."""
        waiting = compare.unclaimed(self.resources, 100)
        for comparison_id in waiting:
            compare.compare(self.resources, self.engine, comparison_id, lambda: False)
        return len(waiting)

    # --- What is left ---

    def rows(self, sql: str) -> list[tuple[Json, ...]]:
        with self.resources.database.transaction() as tx:
            return tx.execute(sql.encode()).fetchall()

    def files(self) -> set[str]:
        """The keys of every stored object that is content."""
        found = (path.relative_to(self.objects).as_posix() for path in self.objects.rglob("*") if path.is_file())
        return {key for key in found if not key.startswith(".snapshed/")}

    def files_of(self, data: bytes) -> set[str]:
        return {key for key in self.files() if f"/{sha(data)}." in key}

    def kept(self) -> Kept:
        return Kept(
            blobs=frozenset(key for (key,) in self.rows("SELECT storage_key FROM blob")),
            tombstones=frozenset(key for (key,) in self.rows("SELECT storage_key FROM tombstone")),
            artifacts=self.rows("SELECT count(*) FROM artifact")[0][0],
            files=frozenset(self.files()),
        )

    def disagreements(self) -> list[reconcile.Disagreement]:
        return list(reconcile.disagreements(self.resources, 2))

    def scratch(self) -> list[str]:
        folder = self.resources.settings.data / "scratch"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@contextmanager
def running(data: Path, **environ: str) -> Generator[Service]:
    """Serve `data` with these settings. At the end, once every session is over, rows and store must agree, and every
    object must be named by something that lives."""
    clock = Clock()
    engine = Engine(workers=1, seconds_per_pair=60, memory_bytes=2**30, max_pixels=40_000_000)
    settings = Settings.from_env(environ, data=data)
    with opened(settings) as really_opened, engine, _listening() as listener:
        resources = replace(really_opened, now=clock.now)
        address = settings.url or f"http://127.0.0.1:{listener.getsockname()[1]}"
        access.first_start(resources, address)
        access.serve_at(resources, address)
        server = uvicorn.Server(
            uvicorn.Config(
                web.app(resources),
                log_config=None,
                access_log=False,
                timeout_keep_alive=web._KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=4,
                server_header=False,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            here = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=here, timeout=120) as http:
                service = Service(
                    resources=resources,
                    address=here,
                    clock=clock,
                    engine=engine,
                    admin=(data / "admin-token").read_text().strip(),
                    http=http,
                )
                yield service
                _prove_nothing_leaked(service)
        finally:
            server.should_exit = True
            thread.join()


def _prove_nothing_leaked(service: Service) -> None:
    service.clock.push(timedelta(hours=7))
    service.compare()
    service.settle()
    assert service.disagreements() == []
    assert service.scratch() == []
    named = service.rows("SELECT storage_key FROM blob b JOIN live_reference r ON r.blob_id = b.id")
    assert service.files() == {key for (key,) in named}


def _listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Return once `true()`; fail if it does not become so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# --- Who asks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One part of a batch request."""

    kind: str
    digest: str = ""
    body: bytes = b""
    encoding: str | None = None
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One part of a batch answer."""

    index: int
    status: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.status.split()[0])


@dataclass(frozen=True)
class Project:
    """A project as seen with one organization token."""

    service: Service
    org: str
    slug: str
    org_id: int
    id: int
    token: str

    def seen_with(self, token: str) -> Project:
        return replace(self, token=token)

    @property
    def snapshots_path(self) -> str:
        return f"/api/0/projects/{self.org}/{self.slug}/preprodartifacts/snapshots/"

    @property
    def deletions_path(self) -> str:
        return f"/api/0/organizations/{self.org}/deletions/"

    @property
    def holds_path(self) -> str:
        return f"/api/0/organizations/{self.org}/holds/"

    @property
    def builds_path(self) -> str:
        return f"/api/0/projects/{self.org}/{self.slug}/preprodartifacts/builds/"

    def build_path(self, number: int | str) -> str:
        return f"/api/0/organizations/{self.org}/preprodartifacts/builds/{number}/"

    def build(self, data: bytes, **said: str) -> int:
        """Upload a file as a build and return its number."""
        said = {"app_id": "app", "file_name": "app.apk", **said}
        answer = self.service.http.post(
            self.builds_path, params=said, content=data, headers={"authorization": f"Bearer {self.token}"}
        )
        assert answer.status_code == 201, answer.text
        return int(answer.json()["artifactId"])

    def snapshot_path(self, number: int | str) -> str:
        return f"/api/0/organizations/{self.org}/preprodartifacts/snapshots/{number}/"

    def ask(self, method: str, path: str, **options: Json) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.service.http.request(method, path, headers=headers, **options)

    def get(self, path: str) -> Json:
        """The JSON behind a path that must be there."""
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def details(self, number: int | str) -> Json:
        return self.get(self.snapshot_path(number))

    # --- Uploading ---

    def session(self) -> Session:
        options = self.get(f"{self.snapshots_path}upload-options/?usecase=auto")["objectstore"]
        return Session(self, options["authToken"])

    def create(self, manifest: Json, **options: Json) -> httpx.Response:
        """Ask for a snapshot; a body that is no mapping is sent as it is."""
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        return self.ask("POST", self.snapshots_path, content=body, **options)

    def snapshot(self, images: Mapping[str, bytes], **fields: Json) -> int:
        """Upload these images in a session of their own and create a snapshot of them; its number."""
        session = self.session()
        session.upload(*images.values())
        return self.named(images, **fields)

    def named(self, images: Mapping[str, bytes], **fields: Json) -> int:
        """Create a snapshot of images that are there already; its number."""
        answer = self.create(manifest_of(images, **fields))
        assert answer.status_code == 200, answer.text
        return int(answer.json()["artifactId"])

    # --- Deleting ---

    def order(self, document: Json, **options: Json) -> httpx.Response:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", self.deletions_path, content=body, **options)

    def delete(self, *numbers: int, **fields: Json) -> Json:
        """Order the deletion of these snapshots; its receipt."""
        answer = self.order({"snapshots": [str(number) for number in numbers], **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def receipt(self, deletion_id: str) -> Json:
        return self.get(f"{self.deletions_path}{deletion_id}/")


def manifest_of(images: Mapping[str, bytes], **fields: Json) -> dict[str, Json]:
    return {"app_id": "web", "images": {name: entry(data) for name, data in images.items()}, **fields}


@dataclass(frozen=True)
class Session:
    """An upload session, carried by its token."""

    project: Project
    token: str

    @property
    def scopes(self) -> str:
        return f"org={self.project.org_id};project={self.project.id}"

    def key(self, digest: str) -> str:
        return f"{self.project.org_id}/{self.project.id}/{digest}"

    def path(self, digest: str) -> str:
        return f"/v1/objects/preprod/{self.scopes}/{self.key(digest)}"

    @property
    def batch_path(self) -> str:
        return f"/v1/objects:batch/preprod/{self.scopes}/"

    def ask(self, method: str, path: str, **options: Json) -> httpx.Response:
        headers = {"x-os-auth": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.project.service.http.request(method, path, headers=headers, **options)

    def put(
        self, data: bytes, *, digest: str | None = None, body: bytes | None = None, encoding: str | None = None
    ) -> httpx.Response:
        headers = {"content-encoding": encoding} if encoding else {}
        return self.ask("PUT", self.path(digest or sha(data)), content=data if body is None else body, headers=headers)

    def head(self, data: bytes) -> int:
        return self.ask("HEAD", self.path(sha(data))).status_code

    def read(self, data: bytes) -> httpx.Response:
        return self.ask("GET", self.path(sha(data)))

    def upload(self, *images: bytes) -> None:
        """Store images as clients do, in one batch."""
        parts = self.batch([Operation("insert", sha(data), frames(data), "zstd") for data in images])
        assert [part.code for part in parts] == [201] * len(images), parts

    def batch(self, operations: Sequence[Operation]) -> list[Part]:
        """The parts of the answer, in the order of their operations."""
        return sorted(self.batch_answer(operations)[1], key=lambda part: part.index)

    def batch_answer(self, operations: Sequence[Operation]) -> tuple[httpx.Response, list[Part]]:
        boundary = f"b-{uuid4().hex}"
        answer = self.ask(
            "POST",
            self.batch_path,
            content=self.batch_body(operations, boundary),
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
        )
        return answer, parts_of(answer)

    def batch_body(self, operations: Sequence[Operation], boundary: str) -> bytes:
        out = io.BytesIO()
        for operation in operations:
            out.write(f'--{boundary}\r\nContent-Disposition: form-data; name="part"\r\n'.encode())
            headers = {"x-sn-batch-operation-kind": operation.kind} if operation.kind else {}
            if operation.key or operation.digest:
                headers["x-sn-batch-operation-key"] = quote(operation.key or self.key(operation.digest), safe="")
            if operation.kind == "insert":
                headers["content-type"] = "application/octet-stream"
            if operation.encoding:
                headers["content-encoding"] = operation.encoding
            for name, value in (headers | dict(operation.headers)).items():
                out.write(f"{name}: {value}\r\n".encode())
            out.write(CRLF + operation.body + CRLF)
        out.write(f"--{boundary}--\r\n".encode())
        return out.getvalue()


def parts_of(answer: httpx.Response) -> list[Part]:
    """The parts of a batch answer, read as strictly as the clients do."""
    assert answer.status_code == 200, answer.text
    kind, _, boundary = answer.headers["content-type"].partition('; boundary="')
    assert kind == "multipart/form-data"
    marker = b"--" + boundary.removesuffix('"').encode()
    first, *pieces, last = (CRLF + answer.content).split(CRLF + marker)
    assert first == b""
    assert last.startswith(b"--")
    found: list[Part] = []
    for piece in pieces:
        assert piece.startswith(CRLF)
        lines, _, body = piece.removeprefix(CRLF).partition(CRLF + CRLF)
        headers = dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))
        index, status = headers["x-sn-batch-operation-index"], headers["x-sn-batch-operation-status"]
        found.append(Part(int(index), status, headers, body))
    return found


# --- Raw sockets -----------------------------------------------------------------------------------------------------------


def raw(service: Service, request: bytes, *, until_closed: bool = True) -> bytes:
    """What comes back on the wire for exactly these bytes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as wire:
        wire.sendall(request)
        answer = b""
        while piece := wire.recv(65536):
            answer += piece
            if not until_closed and CRLF * 2 in answer:
                break
        return answer


def cut_off(service: Service, request: bytes) -> None:
    """Send the beginning of a request, and leave."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as wire:
        wire.sendall(request)
        # An abrupt end, not an orderly one: what a killed client or a lost network leaves.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def clean_environment(**more: str) -> dict[str, str]:
    """What a program needs to run, and nothing that tells it about this machine's own services."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ} | more

"""Uploading a folder: ask what is already there, send the rest, create the snapshot.

No file is held in memory whole, and nothing is created unless every image is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import httpx
from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,  # pyright: ignore[reportUnknownVariableType]  untyped options
)

from snapshed.cli.http import Content, Document, Server, failure, inner
from snapshed.cli.images import File, Scan
from snapshed.cli.terminal import Output, counted, sized
from snapshed.domain import manifest
from snapshed.errors import Broken, Invalid, Refused

MOST_PARTS = 1000
MOST_BATCH = 64 * 2**20
MOST_PART = 1_000_000
"""The blob API takes parts of up to a mebibyte; what is larger travels alone."""

_THREADS = 4
_CHUNK = 2**18
_BOUNDARY = "snapshed-part-4f1d0c6a9be24d7e8a53"

_SNAPSHOTS = "preprodartifacts/snapshots/"


@dataclass(frozen=True, slots=True)
class Place:
    """Where images go, and the upload session's own token."""

    url: str
    use_case: str
    scopes: tuple[tuple[str, str], ...]
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """Use case and scopes as they stand in every address."""
        return f"{self.use_case}/{';'.join(f'{name}={value}' for name, value in self.scopes)}"

    def key(self, digest: str) -> str:
        """What the blob API calls an image."""
        named = dict(self.scopes)
        return f"{named['org']}/{named['project']}/{digest}"

    def address(self, digest: str) -> str:
        """An image's own address."""
        return f"{self.url}/v1/objects/{self.path}/{self.key(digest)}"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A snapshot that was created; `already` counts the image files that did not have to be sent."""

    number: str
    url: str
    images: int
    already: int
    sent: int


def wanted(app_id: str, files: Iterable[File], options: dict[str, Any]) -> bytes:
    """The create request as JSON. Raises Invalid where the server would, before anything was sent."""
    body = json.dumps({"app_id": app_id, "images": {file.name: file.entry for file in files}, **options}).encode()
    manifest.parse(body)
    return body


def upload(server: Server, project: str, scan: Scan, body: bytes, output: Output) -> Uploaded:
    """Store every image that is not there yet and create the snapshot that `body` describes."""
    place = open_session(server, project)
    already, sent = store_missing(server, place, scan, output)
    answer = server.post_to_project(project, _SNAPSHOTS, body, place.headers)
    return created(server, answer, already, sent, output)


def store_missing(server: Server, place: Place, scan: Scan, output: Output) -> tuple[int, int]:
    """Store every image that is not there yet. Returns how many files were, and how many images were sent."""
    by_digest = {file.digest: file for file in scan.files}
    promised = ask(server, place, list(by_digest))
    already = sum(1 for file in scan.files if file.digest in promised)
    missing = [file for digest, file in by_digest.items() if digest not in promised]
    summary = f"{already:,} of {counted(len(scan.files), 'image')} already uploaded"
    size = sum(file.size for file in missing)
    output.say(f"{summary}, uploading {len(missing):,} ({sized(size)})." if missing else f"{summary}.")
    send(server, place, missing, output)
    return already, len(missing)


def created(server: Server, answer: Document, already: int, sent: int, output: Output) -> Uploaded:
    """The snapshot that an answer says was made."""
    number = str(answer.get("artifactId"))
    url = str(answer.get("snapshotUrl") or server.page(number))
    images = int(answer.get("imageCount") or 0)
    output.say(f"Created snapshot {number} with {counted(images, 'image')}.")
    output.say(url)
    return Uploaded(number, url, images, already, sent)


def open_session(server: Server, project: str, **group: str) -> Place:
    """Open an upload session, or join that of a `group` of `shards`. Raises NotFound if the token does not reach the
    project."""
    answer = server.get_of_project(project, f"{_SNAPSHOTS}upload-options/", usecase="auto", **group)
    try:
        options = answer["objectstore"]
        place = Place(
            url=str(options["url"]).rstrip("/"),
            use_case=str(options["usecase"]),
            scopes=tuple((str(name), str(value)) for name, value in options["scopes"]),
            headers={"x-os-auth": f"Bearer {options['authToken']}"} if options.get("authToken") else {},
        )
        place.key("")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Invalid(f"{server.url} does not answer like a Snapshed server; check the address.") from None
    return place


# --- What is there ---------------------------------------------------------------------------------------------------


def ask(server: Server, place: Place, digests: Sequence[str]) -> set[str]:
    """Which images the session may name without sending them. They stay that long."""
    promised: set[str] = set()
    for start in range(0, len(digests), MOST_PARTS):
        group = digests[start : start + MOST_PARTS]
        parts = b"".join(_head_of_part("head", place.key(digest)) + b"\r\n" for digest in group)
        body = parts + f"--{_BOUNDARY}--\r\n".encode()
        for digest, answer in zip(group, _batch(server, place, partial(bytes, body), len(group)), strict=True):
            if answer.status < 400:
                promised.add(digest)
            elif answer.status != 404:
                raise answer.error(server.url)
    return promised


# --- Sending ---------------------------------------------------------------------------------------------------------


def send(server: Server, place: Place, files: Sequence[File], output: Output) -> None:
    """Store these images, several requests at a time. The first that fails stops the rest and is raised."""
    if not files:
        return
    pool = ThreadPoolExecutor(max_workers=_THREADS)
    try:
        with output.progress("Uploading", len(files)) as tell:
            alone = [pool.submit(_put, server, place, file) for file in files if file.size > MOST_PART]
            grouped = [pool.submit(_insert, server, place, group) for group in batches(files)]
            for done in as_completed([*alone, *grouped]):
                tell(done.result())
    finally:
        pool.shutdown(cancel_futures=True)
    output.say(f"Uploaded {counted(len(files), 'image')}.")


def batches(files: Iterable[File]) -> Iterator[list[File]]:
    """The files that travel together, in groups that one request may carry."""
    group: list[File] = []
    size = 0
    for file in files:
        if file.size > MOST_PART:
            continue
        if group and (len(group) == MOST_PARTS or size + file.size > MOST_BATCH):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _put(server: Server, place: Place, file: File) -> int:
    headers = {**place.headers, "content-type": "application/octet-stream"}
    try:
        server.send("PUT", place.address(file.digest), headers, lambda: _chunks(file), repeat=True)
    except Refused as refused:
        raise type(refused)(f"{file.name} was not stored: {refused}") from None
    return 1


def _insert(server: Server, place: Place, files: Sequence[File]) -> int:
    def body() -> Iterator[bytes]:
        for file in files:
            yield _head_of_part("insert", place.key(file.digest), "content-type: application/octet-stream\r\n")
            yield from _chunks(file)
            yield b"\r\n"
        yield f"--{_BOUNDARY}--\r\n".encode()

    for file, answer in zip(files, _batch(server, place, body, len(files)), strict=True):
        if answer.status >= 400:
            raise answer.error(f"{file.name} was not stored")
    return len(files)


def _chunks(file: File) -> Iterator[bytes]:
    try:
        with file.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise Invalid(f"{file.name} can no longer be read ({error.strerror}); nothing was created.") from None


def _head_of_part(kind: str, key: str, more: str = "") -> bytes:
    return (
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="part"\r\nx-sn-batch-operation-kind: {kind}\r\n'
        f"x-sn-batch-operation-key: {quote(key, safe='')}\r\n{more}\r\n"
    ).encode()


# --- Batches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one part of a batch."""

    status: int
    body: bytes

    def error(self, who: str) -> Exception:
        """The error a status of 400 or more stands for."""
        try:
            detail = inner({"body": json.loads(self.body)}, "body").get("detail")
        except ValueError:
            detail = None
        return failure(self.status, f"{who}: {detail}" if detail else None, who)


def _batch(server: Server, place: Place, body: Content, operations: int) -> list[Answer]:
    headers = {**place.headers, "content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
    # Both kinds bear repeating: a promise made twice is one promise, and an image stored twice is one image.
    response = server.send("POST", f"{place.url}/v1/objects:batch/{place.path}/", headers, body, repeat=True)
    try:
        answers = dict(_answers(response))
        return [answers[index] for index in range(operations)]
    except (MultipartError, KeyError, ValueError):
        raise Broken(f"{server.url} did not answer for every image it was asked about; nothing was created.") from None


def _answers(response: httpx.Response) -> Iterator[tuple[int, Answer]]:
    kind = str(response.headers.get("content-type", ""))
    _, options = cast("tuple[str, dict[str, str]]", parse_options_header(kind))
    segment: MultipartSegment | None = None
    data = bytearray()
    with PushMultipartParser(options["boundary"], max_header_count=64) as parser:
        for event in parser.parse(response.content):
            if isinstance(event, MultipartSegment):
                segment, data = event, bytearray()
            elif event is not None:
                data += event
            elif segment is not None:
                headers = {name.lower(): value for name, value in segment.headerlist}
                status = headers["x-sn-batch-operation-status"].partition(" ")[0]
                yield int(headers["x-sn-batch-operation-index"]), Answer(int(status), bytes(data))

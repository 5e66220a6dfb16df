"""The form of a batch: a multipart body of at most a thousand operations, answered part by part.

What an operation does is up to `image_batch` and `object_batch`; here bodies are read and answers written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, cast
from urllib.parse import quote, unquote

from fastapi import Depends
from fastapi.responses import StreamingResponse
from multipart import (
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,  # pyright: ignore[reportUnknownVariableType]  untyped options
)

from snapshed import problems
from snapshed.bodies import Body, spooled
from snapshed.errors import Invalid, SnapshedError, TooLarge

MOST_PARTS = 1000
MOST_PART = 2 * 2**20
"""Clients put at most 1 MiB into a part; compression may add a little."""

MOST_BODY = 256 * 2**20
_BOUNDARY = "os-boundary-snapshed-9b1c4e7a2f5d4c60"
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}
_CHUNK = 2**16

Sent = Annotated[Body, Depends(spooled(lambda _: MOST_BODY))]

Kind = Literal["head", "insert", "get", "delete"]
_KINDS: dict[str, Kind] = {"head": "head", "insert": "insert", "get": "get", "delete": "delete"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One part of the request, in its place. `headers` are all of the part's, by lower-case name."""

    index: int
    kind: Kind
    key: str | None
    headers: Mapping[str, str]
    data: bytes

    @property
    def needs_read(self) -> bool:
        return self.kind in ("head", "get")


@dataclass(frozen=True, slots=True)
class Refused:
    """A part of the request that is no operation."""

    index: int
    error: SnapshedError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is answered for one part. `open` gives its body, once; None from it means that nothing is there."""

    status: int
    headers: Mapping[str, str]
    key: str | None = None
    kind: str | None = None
    open: Callable[[], Iterator[bytes] | None] | None = None


def boundary_in(content_type: str) -> str:
    """The boundary of the request's parts. Raises Invalid."""
    kind, options = cast("tuple[str, dict[str, str]]", parse_options_header(content_type))
    if kind.lower() != "multipart/form-data" or not options.get("boundary"):
        raise Invalid("The Content-Type must be multipart/form-data with a boundary.")
    return options["boundary"]


def operations(boundary: str, body: Body) -> Iterator[Operation | Refused]:
    """The parts of the body in order, one in memory at a time. Raises MultipartError for a body that is none."""
    index = 0
    segment: MultipartSegment | None = None
    data = bytearray()
    with PushMultipartParser(boundary, max_header_count=64) as parser:
        for chunk in body.chunks():
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    segment, data = event, bytearray()
                elif event is not None:
                    if len(data) <= MOST_PART:
                        data += event
                elif segment is not None:
                    yield _operation(index, segment, bytes(data))
                    index += 1


def unreadable() -> Invalid:
    """What is told of a body that is no multipart."""
    return Invalid("The body is not the multipart/form-data its Content-Type says.")


def _operation(index: int, segment: MultipartSegment, data: bytes) -> Operation | Refused:
    if index >= MOST_PARTS:
        return Refused(index, TooLarge(f"A batch may hold {MOST_PARTS} operations; send the rest in another one."))
    if len(data) > MOST_PART:
        return Refused(index, TooLarge(f"A part may hold {MOST_PART} bytes; send larger objects one by one."))
    headers = {name.lower(): value for name, value in segment.headerlist}
    said = headers.get("x-sn-batch-operation-kind", "").lower()
    kind = _KINDS.get(said)
    if kind is None:
        return Refused(index, Invalid("x-sn-batch-operation-kind must be head, insert, get or delete."))
    key = headers.get("x-sn-batch-operation-key")
    if key is None and kind != "insert":
        return Refused(index, Invalid("x-sn-batch-operation-key is missing."))
    try:
        decoded = None if key is None else unquote(key, errors="strict")
    except UnicodeDecodeError:
        return Refused(index, Invalid("x-sn-batch-operation-key is percent-encoded, but not as UTF-8."))
    return Operation(index, kind, decoded, headers, data)


# --- Answering -------------------------------------------------------------------------------------------------------


def failure(error: SnapshedError) -> Outcome:
    """What is answered for an operation that failed."""
    text = json.dumps({"detail": problems.sentence_of(error)}).encode()
    return Outcome(problems.status_of(error), {"content-type": "application/json"}, open=lambda: iter((text,)))


def answer(outcomes: Mapping[int, Outcome]) -> StreamingResponse:
    """All outcomes as multipart/form-data, in the order of their operations."""
    return StreamingResponse(_in_chunks(_written(outcomes)), media_type=f'multipart/form-data; boundary="{_BOUNDARY}"')


def _written(outcomes: Mapping[int, Outcome]) -> Iterator[bytes]:
    for index in sorted(outcomes):
        outcome, pieces = _opened(outcomes[index])
        headers = {
            "x-sn-batch-operation-index": str(index),
            "x-sn-batch-operation-status": f"{outcome.status} {_REASONS.get(outcome.status, 'Error')}",
            "content-disposition": "form-data; name=part",
            **outcome.headers,
        }
        if outcome.key is not None:
            headers["x-sn-batch-operation-key"] = quote(outcome.key, safe="")
        if outcome.kind is not None:
            headers["x-sn-batch-operation-kind"] = outcome.kind
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"--{_BOUNDARY}\r\n{lines}\r\n".encode()
        yield from pieces
        yield b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()


def _opened(outcome: Outcome) -> tuple[Outcome, Iterator[bytes]]:
    """An outcome whose body has begun: only now is it known whether there is one."""
    try:
        pieces = outcome.open() if outcome.open else iter(())
    except SnapshedError as error:
        return _opened(failure(error))
    return (outcome, pieces) if pieces is not None else (Outcome(404, {}, outcome.key, outcome.kind), iter(()))


def _in_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= _CHUNK:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)

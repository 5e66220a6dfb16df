"""The blob API for up to a thousand objects in one request: a multipart body of operations, answered part by part.

One bad part never harms the others; a bad token or a body that is no multipart fails them all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, cast
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,  # pyright: ignore[reportUnknownVariableType]  untyped options
)

from snapshed import problems
from snapshed.api.objects import check_use_case, digest_in, facts_of, parse_scopes, verified
from snapshed.auth import Granted, Res
from snapshed.bodies import Body, spooled, unpacked
from snapshed.domain.grants import Grant
from snapshed.errors import Forbidden, Invalid, SnapshedError, TooLarge
from snapshed.ledger import ForSession
from snapshed.resources import Resources
from snapshed.work import uploads
from snapshed.work.uploads import Upload

router = APIRouter(prefix="/v1", tags=["objects"])

MOST_PARTS = 1000
MOST_PART = 2 * 2**20
"""Clients put at most 1 MiB into a part; compression may add a little."""

MOST_BODY = 256 * 2**20
_BOUNDARY = "os-boundary-snapshed-9b1c4e7a2f5d4c60"
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}

Sent = Annotated[Body, Depends(spooled(lambda _: MOST_BODY))]


@dataclass(frozen=True, slots=True)
class Operation:
    """One part of the request, in its place."""

    index: int
    kind: str
    key: str
    encoding: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is answered for one part."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@router.post("/objects:batch/{use_case}/{scopes}/")
@router.post("/objects:batch/{use_case}/{scopes}", include_in_schema=False)
def batch(use_case: str, scopes: str, request: Request, resources: Res, grant: Granted, body: Sent) -> Response:
    """Carry out every part: `head`, `insert`, `get`, `delete`. Answered as multipart/form-data, a part each."""
    check_use_case(use_case)
    boundary = _boundary_in(request.headers.get("content-type", ""))
    owner = uploads.keep_open(resources, grant)
    outcomes: dict[int, tuple[Operation | None, Outcome]] = {}
    allowed = parse_scopes(scopes) == {"org": str(grant.org_id), "project": str(grant.project_id)}
    asked: list[Operation] = []

    def inserts() -> Iterator[Operation]:
        for operation in _operations(boundary, body):
            if isinstance(operation, _Refused):
                outcomes[operation.index] = (None, _failure(operation.error))
            elif operation.kind == "insert":
                yield operation
            else:
                asked.append(operation)

    try:
        _insert(resources, owner, grant, allowed, inserts(), outcomes)
    except MultipartError:
        raise Invalid("The body is not the multipart/form-data its Content-Type says.") from None
    _ask(resources, owner, grant, allowed, asked, outcomes)
    return Response(
        b"".join(_rendered(outcomes)),
        media_type=f'multipart/form-data; boundary="{_BOUNDARY}"',
    )


# --- Reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Refused:
    index: int
    error: SnapshedError


def _boundary_in(content_type: str) -> str:
    kind, options = cast("tuple[str, dict[str, str]]", parse_options_header(content_type))
    if kind.lower() != "multipart/form-data" or not options.get("boundary"):
        raise Invalid("The Content-Type must be multipart/form-data with a boundary.")
    return options["boundary"]


def _operations(boundary: str, body: Body) -> Iterator[Operation | _Refused]:
    """The parts of the body in order, one in memory at a time. Raises MultipartError."""
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


def _operation(index: int, segment: MultipartSegment, data: bytes) -> Operation | _Refused:
    if index >= MOST_PARTS:
        return _Refused(index, TooLarge(f"A batch may hold {MOST_PARTS} operations; send the rest in another one."))
    if len(data) > MOST_PART:
        return _Refused(index, TooLarge(f"A part may hold {MOST_PART} bytes; send larger objects one by one."))
    headers = {name.lower(): value for name, value in segment.headerlist}
    kind = headers.get("x-sn-batch-operation-kind", "").lower()
    key = headers.get("x-sn-batch-operation-key")
    if kind not in ("head", "insert", "get", "delete"):
        return _Refused(index, Invalid("x-sn-batch-operation-kind must be head, insert, get or delete."))
    if key is None:
        return _Refused(index, Invalid("x-sn-batch-operation-key is missing."))
    return Operation(index, kind, unquote(key), headers.get("content-encoding"), data)


# --- Doing ---------------------------------------------------------------------------------------------------------

_Outcomes = dict[int, tuple[Operation | None, Outcome]]


def _insert(
    resources: Resources,
    owner: ForSession,
    grant: Grant,
    allowed: bool,  # noqa: FBT001
    operations: Iterable[Operation],
    outcomes: _Outcomes,
) -> None:
    by_digest: dict[str, list[Operation]] = {}

    def good() -> Iterator[Upload]:
        for operation in operations:
            try:
                upload = _unpacked(resources, grant, allowed, operation)
            except SnapshedError as error:
                outcomes[operation.index] = (None, _failure(error))
                continue
            by_digest.setdefault(upload.digest, []).append(operation)
            yield upload

    def kept(digests: list[str]) -> None:
        for digest in digests:
            for operation in by_digest.pop(digest, []):
                outcomes[operation.index] = (operation, Outcome(201, {}))

    uploads_to_keep = good()
    try:
        uploads.keep(resources, owner, uploads_to_keep, kept)
    except SnapshedError as error:
        # What was kept before stays kept. The rest of the body is still read, so that every part is answered.
        for _ in uploads_to_keep:
            pass
        for waiting in by_digest.values():
            for operation in waiting:
                outcomes[operation.index] = (None, _failure(error))


def _unpacked(resources: Resources, grant: Grant, allowed: bool, operation: Operation) -> Upload:  # noqa: FBT001
    _check(grant, allowed, "object.write")
    digest = digest_in(grant, operation.key)
    most = resources.settings.max_file
    return verified(digest, unpacked(io.BytesIO(operation.data), operation.encoding, most, "The object"))


def _check(grant: Grant, allowed: bool, permission: str) -> None:  # noqa: FBT001
    if not allowed or permission not in grant.permissions:
        raise Forbidden(f"The upload token does not carry {permission} for this project.")


def _ask(
    resources: Resources,
    owner: ForSession,
    grant: Grant,
    allowed: bool,  # noqa: FBT001
    operations: list[Operation],
    outcomes: _Outcomes,
) -> None:
    digests: dict[int, str] = {}
    for operation in operations:
        try:
            _check(grant, allowed, "object.write" if operation.kind == "delete" else "object.read")
            digests[operation.index] = digest_in(grant, operation.key)
        except SnapshedError as error:
            outcomes[operation.index] = (None, _failure(error))
    heads = [digests[item.index] for item in operations if item.kind == "head" and item.index in digests]
    promised = uploads.ask(resources, owner, heads) if heads else {}
    for operation in operations:
        digest = digests.get(operation.index)
        if digest is None:
            continue
        if operation.kind == "head":
            stored = promised.get(digest)
            outcome = Outcome(204, facts_of(stored)) if stored else Outcome(404, {})
        elif operation.kind == "get":
            outcome = _got(resources, grant, digest)
        else:
            uploads.drop(resources, owner, digest)
            outcome = Outcome(204, {})
        outcomes[operation.index] = (operation, outcome)


def _got(resources: Resources, grant: Grant, digest: str) -> Outcome:
    stored = uploads.read(resources, grant.project_id, digest, grant.session_id)
    data = resources.store.get(stored.storage_key) if stored else None
    return Outcome(200, facts_of(stored), data) if stored and data is not None else Outcome(404, {})


def _failure(error: SnapshedError) -> Outcome:
    body = json.dumps({"detail": problems.sentence_of(error)}).encode()
    return Outcome(problems.status_of(error), {"content-type": "application/json"}, body)


# --- Answering -------------------------------------------------------------------------------------------------------


def _rendered(outcomes: _Outcomes) -> Iterator[bytes]:
    for index in sorted(outcomes):
        operation, outcome = outcomes[index]
        headers = {
            "x-sn-batch-operation-index": str(index),
            "x-sn-batch-operation-status": f"{outcome.status} {_REASONS.get(outcome.status, 'Error')}",
            "content-disposition": "form-data; name=part",
            **outcome.headers,
        }
        if operation is not None:
            headers["x-sn-batch-operation-key"] = quote(operation.key, safe="")
            headers["x-sn-batch-operation-kind"] = operation.kind
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"--{_BOUNDARY}\r\n{lines}\r\n".encode() + outcome.body + b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()

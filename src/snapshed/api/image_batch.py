"""Batches of images of snapshots: promised, verified and stored with one set of statements, never one an image.

One bad part never harms the others; a bad token or a body that is no multipart fails them all.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request
from fastapi.responses import Response
from multipart import MultipartError

from snapshed.api.batch import Operation, Outcome, Refused, Sent, answer, boundary_in, failure, operations, unreadable
from snapshed.api.image_objects import digest_in, facts_of, is_for, verified
from snapshed.auth import Granted, Res
from snapshed.bodies import unpacked
from snapshed.domain.grants import Grant
from snapshed.errors import Forbidden, Invalid, SnapshedError
from snapshed.ledger import ForSession
from snapshed.resources import Resources
from snapshed.work import uploads
from snapshed.work.uploads import Upload

router = APIRouter(prefix="/v1", tags=["images"])

_Outcomes = dict[int, Outcome]


@router.post("/objects:batch/preprod/{scopes}/")
@router.post("/objects:batch/preprod/{scopes}", include_in_schema=False)
def batch(scopes: str, request: Request, resources: Res, grant: Granted, body: Sent) -> Response:
    """Carry out every part: `head`, `insert`, `get`, `delete`. Answered as multipart/form-data, a part each."""
    boundary = boundary_in(request.headers.get("content-type", ""))
    owner = uploads.keep_open(resources, grant)
    outcomes: _Outcomes = {}
    allowed = is_for(grant, scopes)
    asked: list[Operation] = []

    def inserts() -> Iterator[Operation]:
        for operation in operations(boundary, body):
            if isinstance(operation, Refused):
                outcomes[operation.index] = failure(operation.error)
            elif operation.kind == "insert":
                yield operation
            else:
                asked.append(operation)

    try:
        _insert(resources, owner, grant, allowed, inserts(), outcomes)
    except MultipartError:
        raise unreadable() from None
    _ask(resources, owner, grant, allowed, asked, outcomes)
    return answer(outcomes)


def _insert(
    resources: Resources,
    owner: ForSession,
    grant: Grant,
    allowed: bool,  # noqa: FBT001
    wanted: Iterable[Operation],
    outcomes: _Outcomes,
) -> None:
    by_digest: dict[str, list[Operation]] = {}

    def good() -> Iterator[Upload]:
        for operation in wanted:
            try:
                upload = _unpacked(resources, grant, allowed, operation)
            except SnapshedError as error:
                outcomes[operation.index] = failure(error)
                continue
            by_digest.setdefault(upload.digest, []).append(operation)
            yield upload

    def kept(digests: list[str]) -> None:
        for digest in digests:
            for operation in by_digest.pop(digest, []):
                outcomes[operation.index] = Outcome(201, {}, operation.key, "insert")

    uploads_to_keep = good()
    try:
        uploads.keep(resources, owner, uploads_to_keep, kept)
    except SnapshedError as error:
        # What was kept before stays kept. The rest of the body is still read, so that every part is answered.
        for _ in uploads_to_keep:
            pass
        for waiting in by_digest.values():
            for operation in waiting:
                outcomes[operation.index] = failure(error)


def _unpacked(resources: Resources, grant: Grant, allowed: bool, operation: Operation) -> Upload:  # noqa: FBT001
    _check(grant, allowed, "object.write")
    digest = digest_in(grant, _key_of(operation))
    most = resources.settings.max_file
    encoding = operation.headers.get("content-encoding")
    return verified(digest, unpacked(io.BytesIO(operation.data), encoding, most, "The object"))


def _check(grant: Grant, allowed: bool, permission: str) -> None:  # noqa: FBT001
    if not allowed or permission not in grant.permissions:
        raise Forbidden(f"The upload token does not carry {permission} for this project.")


def _key_of(operation: Operation) -> str:
    if operation.key is None:
        raise Invalid("x-sn-batch-operation-key is missing.")
    return operation.key


def _ask(
    resources: Resources,
    owner: ForSession,
    grant: Grant,
    allowed: bool,  # noqa: FBT001
    asked: list[Operation],
    outcomes: _Outcomes,
) -> None:
    digests: dict[int, str] = {}
    for operation in asked:
        try:
            _check(grant, allowed, "object.read" if operation.needs_read else "object.write")
            digests[operation.index] = digest_in(grant, _key_of(operation))
        except SnapshedError as error:
            outcomes[operation.index] = failure(error)
    heads = [digests[item.index] for item in asked if item.kind == "head" and item.index in digests]
    promised = uploads.ask(resources, owner, heads) if heads else {}
    for operation in asked:
        digest = digests.get(operation.index)
        if digest is None:
            continue
        if operation.kind == "head":
            stored = promised.get(digest)
            status, facts = (204, facts_of(stored)) if stored else (404, {})
            outcomes[operation.index] = Outcome(status, facts, operation.key, "head")
        elif operation.kind == "get":
            outcomes[operation.index] = _got(resources, grant, digest, operation.key)
        else:
            uploads.drop(resources, owner, digest)
            outcomes[operation.index] = Outcome(204, {}, operation.key, "delete")


def _got(resources: Resources, grant: Grant, digest: str, key: str | None) -> Outcome:
    stored = uploads.read(resources, grant.project_id, digest, grant.session_id)
    if stored is None:
        return Outcome(404, {}, key, "get")
    return Outcome(200, facts_of(stored), key, "get", lambda: resources.store.stream(stored.storage_key))

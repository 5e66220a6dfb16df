"""The blob API for objects that are uploaded in parts: begin, send and list parts, complete or abort."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from snapshed.api.objects import KEY, OTHER, described_in, digest_of, json_in, place_of
from snapshed.auth import Keyed, Res
from snapshed.bodies import Body, spooled
from snapshed.domain import namespaces
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid, NotFound
from snapshed.work import objects
from snapshed.work.objects import MOST_PARTS, Completion

router = APIRouter(prefix="/v1", tags=["objects"])

_UPLOADS = f"/objects:multipart/{OTHER}/{{scopes}}/"
_UPLOAD = f"/objects:multipart/{OTHER}/{{scopes}}/{KEY}"
_PARTS = f"/objects:multipart:parts/{OTHER}/{{scopes}}/{KEY}"
_COMPLETE = f"/objects:multipart:complete/{OTHER}/{{scopes}}/{KEY}"

_MOST_LISTED = 1000

Sent = Annotated[Body, Depends(spooled(lambda settings: settings.max_file))]
Asked = Annotated[Body, Depends(spooled(lambda _: 2**21))]


@router.post(_UPLOADS.rstrip("/"), include_in_schema=False)
@router.post(_UPLOADS)
def begin_anywhere(use_case: str, scopes: str, request: Request, resources: Res, grant: Keyed) -> JSONResponse:
    """Begin an upload of an object whose key the server chooses."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    key = str(uuid.uuid4())
    upload_id = objects.begin(resources, place, key, described_in(request), grant.principal)
    return JSONResponse({"key": key, "upload_id": str(upload_id)})


@router.put(_UPLOAD)
def begin(use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed) -> JSONResponse:
    """Begin an upload of an object; until it is completed, the key names what it named before."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    namespaces.check_key(key)
    upload_id = objects.begin(resources, place, key, described_in(request), grant.principal)
    return JSONResponse({"key": key, "upload_id": str(upload_id)})


@router.put(_PARTS)
def put_part(
    use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed, body: Sent
) -> JSONResponse:
    """Store one part; a second one of the same number takes its place."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    if "content-length" not in request.headers:
        raise Invalid("A part needs the header content-length.")
    number = _number(request, "part_number", None)
    if not 1 <= number <= MOST_PARTS:
        raise Invalid(f"part_number needs to be from 1 to {MOST_PARTS}.")
    _check_md5(request, body)
    with body.mapped() as data:
        etag = objects.put_part(resources, place, key, _upload_id(request), number, digest_of(body), data)
    return JSONResponse({"etag": etag})


@router.get(_PARTS)
def list_parts(use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed) -> JSONResponse:
    """The stored parts in their order, a page at a time."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    limit = min(_MOST_LISTED, max(1, _number(request, "max_parts", _MOST_LISTED)))
    after = _number(request, "part_number_marker", 0)
    parts, more = objects.stored_parts(resources, place, key, _upload_id(request), after, limit)
    document: dict[str, Any] = {
        "parts": [
            {
                "part_number": part.number,
                "etag": part.digest,
                "last_modified": moment(part.stored_at),
                "size": part.size,
            }
            for part in parts
        ],
        "is_truncated": more,
    }
    if more:
        document["next_part_number_marker"] = parts[-1].number
    return JSONResponse(document)


@router.post(_COMPLETE)
def complete(
    use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed, body: Asked
) -> JSONResponse:
    """Put the parts together. What is wrong with them is told in the body of a 200, as clients of this protocol
    expect; the upload then stays as it is."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    problem = objects.complete(resources, place, key, _upload_id(request), _named_in(body))
    if problem is not None:
        return JSONResponse({"error": {"code": problem.code, "message": problem.message}})
    return JSONResponse({"key": key})


@router.delete(_UPLOAD, status_code=204)
def abort(use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed) -> Response:
    """Give an upload up; its parts go at once."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    objects.abort(resources, place, key, _upload_id(request))
    return Response(status_code=204)


def _upload_id(request: Request) -> UUID:
    text = request.query_params.get("upload_id", "")
    if not text or ".." in text or text.startswith("/"):
        raise Invalid("The parameter upload_id is missing or malformed.")
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("This multipart upload does not exist, or has ended; begin a new one.") from None


def _number(request: Request, name: str, default: int | None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise Invalid(f"The parameter {name} needs to be a whole number.")
    return int(text)


def _check_md5(request: Request, body: Body) -> None:
    said = request.headers.get("content-md5")
    if said is None:
        return
    try:
        expected = base64.b64decode(said, validate=True)
    except binascii.Error:
        expected = b""
    if len(expected) != 16:
        raise Invalid("The header content-md5 needs the base64 of 16 bytes.")
    digest = hashlib.md5(usedforsecurity=False)
    for piece in body.chunks():
        digest.update(piece)
    if digest.digest() != expected:
        raise Invalid("The part's bytes do not have the MD5 that content-md5 says; nothing was stored.")


def _named_in(body: Body) -> list[Completion]:
    parts = json_in(body).get("parts")
    named: list[Completion] = []
    for part in cast("list[object]", parts) if isinstance(parts, list) else [None]:
        match part:
            case {"part_number": int(number), "etag": str(etag)}:
                named.append(Completion(number, etag))
            case _:
                raise Invalid('The body needs the form {"parts": [{"part_number": 1, "etag": "…"}]}.')
    return named

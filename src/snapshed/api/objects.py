"""The blob API for single objects of every use case but that of snapshots: a general object store.

Objects are kept and given back exactly as they were received, with the headers that describe them.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.convertors import StringConvertor, register_url_convertor

from snapshed.auth import Keyed, Res
from snapshed.bodies import Body, spooled
from snapshed.db.objects import Object
from snapshed.domain import durations, key_tokens, metadata, namespaces, ranges
from snapshed.domain.grants import USE_CASE, Permission
from snapshed.domain.key_tokens import KeyGrant
from snapshed.domain.namespaces import Place
from snapshed.errors import Invalid, Unsupported
from snapshed.resources import Resources
from snapshed.work import objects
from snapshed.work.objects import NewObject, Until


class _OtherUseCase(StringConvertor):
    """Every use case but that of snapshots, whose routes are in `image_objects`."""

    regex = f"(?!{USE_CASE}(?:/|$))[^/]+"


class _Key(StringConvertor):
    """Everything after the scopes: slashes, dots and line ends too, which are judged and not passed over."""

    regex = "(?s:.+)"


register_url_convertor("other_use_case", _OtherUseCase())
register_url_convertor("object_key", _Key())

OTHER = "{use_case:other_use_case}"
KEY = "{key:object_key}"

router = APIRouter(prefix="/v1", tags=["objects"])

_COLLECTION = f"/objects/{OTHER}/{{scopes}}/"
_OBJECT = f"/objects/{OTHER}/{{scopes}}/{KEY}"

Sent = Annotated[Body, Depends(spooled(lambda settings: settings.max_file))]
Asked = Annotated[Body, Depends(spooled(lambda _: 2**16))]

_HARMLESS = {
    # Whatever was uploaded is shown on this host, so it may do nothing here.
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-cache",
    # An address may carry a token.
    "referrer-policy": "no-referrer",
}


def place_of(request: Request, grant: KeyGrant, use_case: str, scopes: str, permission: Permission) -> Place:
    """Where the request is about, once it is known that it may be. Raises Invalid and Forbidden."""
    namespaces.check_use_case(use_case)
    place = Place(use_case, scopes)
    key_tokens.check(grant, place, permission)
    try:
        unquote_to_bytes(request.scope["raw_path"]).decode()
    except UnicodeDecodeError:
        raise Invalid("The object's key in the path is percent-encoded, but not as UTF-8.") from None
    return place


def described_in(request: Request) -> metadata.Described:
    """What the request says about the object it sends. Raises Invalid, and Unsupported for a resumable upload."""
    if "upload_type" in request.query_params or "session" in request.query_params:
        raise Unsupported("Resumable uploads are not supported; send the object in one request or in parts.")
    return metadata.read(request.headers)


def digest_of(body: Body) -> str:
    """The SHA-256 of a body."""
    digest = hashlib.sha256()
    for piece in body.chunks():
        digest.update(piece)
    return digest.hexdigest()


def facts_of(item: Object) -> dict[str, str]:
    """The headers that tell of a stored object."""
    return metadata.shown(item.described, item.size, item.created_at, item.expires_at)


def _headers_of(item: Object) -> dict[str, str]:
    headers = facts_of(item) | _HARMLESS | {"accept-ranges": "bytes"}
    if disposition := metadata.disposition(item.described):
        headers["content-disposition"] = disposition
    return headers


# --- Storing ---------------------------------------------------------------------------------------------------------


@router.post(_COLLECTION.rstrip("/"), include_in_schema=False, status_code=201)
@router.post(_COLLECTION, status_code=201)
def post(use_case: str, scopes: str, request: Request, resources: Res, grant: Keyed, body: Sent) -> JSONResponse:
    """Store an object under a key that the server chooses."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    key = str(uuid.uuid4())
    _store(resources, grant, place, key, request, body)
    return JSONResponse({"key": key}, 201)


@router.put(_OBJECT)
def put(
    use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed, body: Sent
) -> JSONResponse:
    """Store an object, or replace it with all that was said about it."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    namespaces.check_key(key)
    _store(resources, grant, place, key, request, body)
    return JSONResponse({"key": key})


def _store(resources: Resources, grant: KeyGrant, place: Place, key: str, request: Request, body: Body) -> None:
    described = described_in(request)
    digest = digest_of(body)
    with body.mapped() as data:
        objects.put(resources, place, grant.principal, [NewObject(key, described, digest, data)])


# --- Reading ---------------------------------------------------------------------------------------------------------


@router.head(_OBJECT)
def head(use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed) -> Response:
    """What is known about an object. A reading, for what expires when it is not read."""
    place = place_of(request, grant, use_case, scopes, "object.read")
    namespaces.check_key(key)
    item = objects.find(resources, place, [key]).get(key)
    return Response(status_code=404) if item is None else Response(status_code=204, headers=_headers_of(item))


@router.get(_OBJECT)
def get(use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed) -> Response:
    """The stored bytes of an object, or one range of them, with what is known about it."""
    place = place_of(request, grant, use_case, scopes, "object.read")
    namespaces.check_key(key)
    item = objects.find(resources, place, [key]).get(key)
    if item is None:
        return Response(status_code=404)
    span = ranges.parse(request.headers.get("range"), item.size)
    if span == "beyond":
        return Response(status_code=416, headers={"content-range": f"bytes */{item.size}", "accept-ranges": "bytes"})
    headers = _headers_of(item)
    if span == "whole":
        pieces = objects.open_bytes(resources, item)
        headers["content-length"] = str(item.size)
    else:
        pieces = objects.open_bytes(resources, item, span)
        headers |= {"content-length": str(span.end - span.start), "content-range": span.content_range(item.size)}
    if pieces is None:
        return Response(status_code=404)
    return StreamingResponse(pieces, 200 if span == "whole" else 206, headers)


# --- Changing --------------------------------------------------------------------------------------------------------


@router.delete(_OBJECT, status_code=204)
def delete(use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed) -> Response:
    """Remove an object, if it is there."""
    place = place_of(request, grant, use_case, scopes, "object.delete")
    namespaces.check_key(key)
    objects.remove(resources, place, [key])
    return Response(status_code=204)


@router.patch(_OBJECT, status_code=204)
def patch(
    use_case: str, scopes: str, key: str, request: Request, resources: Res, grant: Keyed, body: Asked
) -> Response:
    """Put off an object's end: `{"extend_expiry": {"after": "30d", "from": "now"}}`, from `creation`, or `{"at": …}`."""
    place = place_of(request, grant, use_case, scopes, "object.write")
    namespaces.check_key(key)
    objects.extend(resources, place, key, _until(body))
    return Response(status_code=204)


def json_in(body: Body) -> dict[str, Any]:
    """The JSON object of a body. Raises Invalid."""
    try:
        document = json.loads(body.open().read())
    except (ValueError, RecursionError):
        raise Invalid("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise Invalid("The body needs to be one JSON object.")
    return cast("dict[str, Any]", document)


def _until(body: Body) -> Until:
    asked = json_in(body).get("extend_expiry")
    fields = cast("dict[str, Any]", asked) if isinstance(asked, dict) else {}
    match fields:
        case {"at": str(text)} if set(fields) == {"at"}:
            return Until(at=_moment(text))
        case {"after": str(text), "from": "now" | "creation" as since} if set(fields) == {"after", "from"}:
            return _from(text, since)
        case _:
            raise Invalid('extend_expiry needs either "at", or "after" and "from", which is "now" or "creation".')


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Invalid("extend_expiry.at needs a time with its zone, such as 2027-01-02T03:04:05Z.")
    return at


def _from(text: str, since: Literal["now", "creation"]) -> Until:
    try:
        return Until(after=durations.parse(text), since=since)
    except ValueError as problem:
        raise Invalid(f"extend_expiry.after needs to be {problem}.") from None

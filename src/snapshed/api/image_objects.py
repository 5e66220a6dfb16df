"""The blob API for single images of snapshots, as `sentry-cli` and other clients of its protocol speak it.

An image's bytes are verified against the digest in its key and stored as the client had them; nothing else is stored
under the use case of snapshots. Other use cases are in `objects`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from snapshed.auth import Granted, Res
from snapshed.bodies import Body, spooled, unpacked
from snapshed.db.blobs import Stored
from snapshed.domain import keys, namespaces
from snapshed.domain.grants import Grant
from snapshed.domain.receipt import moment
from snapshed.errors import Forbidden, Invalid, Unsupported
from snapshed.ledger import sha256
from snapshed.work import uploads
from snapshed.work.uploads import Upload

router = APIRouter(prefix="/v1", tags=["images"])

_SLACK = 2**20
"""A compressed body may be a little larger than the object it unfolds to."""

Sent = Annotated[Body, Depends(spooled(lambda settings: settings.max_file + _SLACK))]


def check_place(grant: Grant, scopes: str, permission: str) -> None:
    """Raise Forbidden unless the token is for these scopes and carries the permission."""
    if not is_for(grant, scopes):
        raise Forbidden("The upload token is for another project.")
    if permission not in grant.permissions:
        raise Forbidden(f"The upload token does not carry {permission}.")


def is_for(grant: Grant, scopes: str) -> bool:
    """Whether the token is for the project these scopes name. Raises Invalid."""
    named = dict(namespaces.parse_scopes(scopes))
    if not named:
        raise Invalid("An image needs the scopes org and project in its path, such as org=1;project=2.")
    return named == {"org": str(grant.org_id), "project": str(grant.project_id)}


def digest_in(grant: Grant, key: str) -> str:
    """The digest an image's key names. Raises Invalid for a key that is not `org/project/sha256`."""
    digest = key.rsplit("/", 1)[-1]
    if key != f"{grant.org_id}/{grant.project_id}/{digest}" or not keys.is_digest(digest):
        raise Invalid(f"An image's key is {grant.org_id}/{grant.project_id}/ and the SHA-256 of its bytes.")
    return digest


def verified(digest: str, data: bytes) -> Upload:
    """Bytes that are what their key says. Raises Invalid, and nothing is kept."""
    actual = sha256(data)
    if actual != digest:
        raise Invalid(f"The bytes have the SHA-256 {actual}, not {digest} as their key says; nothing was stored.")
    return Upload(digest, data)


def facts_of(stored: Stored) -> dict[str, str]:
    """The headers that describe a stored image."""
    return {
        "content-type": "application/octet-stream",
        "x-sn-time-created": moment(stored.announced_at) or "",
        "x-sn-size": str(stored.size),
    }


@router.put("/objects/preprod/{scopes}/{key:path}")
def put(scopes: str, key: str, request: Request, resources: Res, grant: Granted, body: Sent) -> JSONResponse:
    """Store one image in the token's session."""
    check_place(grant, scopes, "object.write")
    if "upload_type" in request.query_params:
        raise Unsupported("Resumable uploads are not supported; send the object in one request.")
    digest = digest_in(grant, key)
    owner = uploads.keep_open(resources, grant)
    encoding = request.headers.get("content-encoding")
    data = unpacked(body.open(), encoding, resources.settings.max_file, "The object")
    uploads.keep(resources, owner, [verified(digest, data)])
    return JSONResponse({"key": key})


@router.post("/objects/preprod/{scopes}")
@router.post("/objects/preprod/{scopes}/")
def post(scopes: str, grant: Granted, request: Request) -> JSONResponse:
    """Images are named by what they contain, so the server never chooses a key for one."""
    check_place(grant, scopes, "object.write")
    if "upload_type" in request.query_params:
        raise Unsupported("Resumable uploads are not supported; send the object in one request.")
    raise Invalid("An image needs a key of the form org/project/sha256; use PUT.")


@router.head("/objects/preprod/{scopes}/{key:path}")
def head(scopes: str, key: str, resources: Res, grant: Granted) -> Response:
    """Whether the session may name this image; a yes is a promise that lasts as long as the session."""
    check_place(grant, scopes, "object.read")
    owner = uploads.keep_open(resources, grant)
    digest = digest_in(grant, key)
    stored = uploads.ask(resources, owner, [digest]).get(digest)
    return Response(status_code=204, headers=facts_of(stored)) if stored else Response(status_code=404)


@router.get("/objects/preprod/{scopes}/{key:path}")
def get(scopes: str, key: str, resources: Res, grant: Granted) -> Response:
    """The bytes of an image that a live snapshot names, or that the caller's own open session stored."""
    check_place(grant, scopes, "object.read")
    stored = uploads.read(resources, grant.project_id, digest_in(grant, key), grant.session_id)
    pieces = resources.store.stream(stored.storage_key) if stored else None
    if stored is None or pieces is None:
        return Response(status_code=404)
    return StreamingResponse(pieces, headers=facts_of(stored) | {"content-length": str(stored.size)})


@router.delete("/objects/preprod/{scopes}/{key:path}", status_code=204)
def delete(scopes: str, key: str, resources: Res, grant: Granted) -> Response:
    """Give up the session's own claim on an image; whatever else names it keeps it."""
    check_place(grant, scopes, "object.write")
    owner = uploads.keep_open(resources, grant)
    uploads.drop(resources, owner, digest_in(grant, key))
    return Response(status_code=204)

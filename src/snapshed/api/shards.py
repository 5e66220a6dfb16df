"""Sharded uploads over HTTP: hand in one part of a snapshot, and ask which parts are still missing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from snapshed.api.snapshots import MOST_MANIFEST, created_document
from snapshed.auth import Asker, Res, project_of, upload_grant
from snapshed.bodies import Body, spooled, unpacked
from snapshed.domain.receipt import moment
from snapshed.errors import Forbidden, Invalid, NotFound
from snapshed.work import shards, snapshots
from snapshed.work.shards import Standing

router = APIRouter(prefix="/api/0", tags=["snapshots"])

Manifest = Annotated[Body, Depends(spooled(lambda _: MOST_MANIFEST))]

_SNAPSHOTS = "/projects/{org}/{project}/preprodartifacts/snapshots"


@router.put(f"{_SNAPSHOTS}/shards/{{number}}/")
def keep(
    org: str, project: str, number: str, request: Request, resources: Res, actor: Asker, body: Manifest
) -> JSONResponse:
    """Hand in one shard's part of the manifest, in the upload session of its group: 202 while others are missing; the
    last one creates the snapshot and is answered as a create is."""
    found = project_of(resources, actor, org, project, "upload")
    if not number.isascii() or not number.isdigit() or len(number) > 4:
        raise NotFound("There is no such shard.")
    if "x-os-auth" not in request.headers:
        raise Invalid("Say in x-os-auth which upload session the shard belongs to; upload options give its token.")
    grant = upload_grant(request, resources)
    if grant.project_id != found.id:
        raise Forbidden("The upload token is for another project.")
    text = unpacked(body.open(), request.headers.get("content-encoding"), MOST_MANIFEST, "The manifest")
    standing = shards.keep(resources, grant, int(number), text)
    document = _document(standing)
    if standing.body is not None:
        created = snapshots.create(
            resources, found, actor.principal, standing.body, grant.session_id, is_whole_group=True
        )
        return JSONResponse(document | {"state": "committed"} | created_document(request, created))
    if standing.number is not None:
        return JSONResponse(document | created_document(request, snapshots.made(resources, found, standing.number)))
    return JSONResponse(document, 202)


@router.get(f"{_SNAPSHOTS}/group/")
def show(org: str, project: str, resources: Res, actor: Asker, key: str = "") -> dict[str, Any]:
    """How a group stands: the shards that are missing, or the snapshot they made."""
    found = project_of(resources, actor, org, project, "read")
    return _document(shards.find(resources, [found.id], key))


def _document(standing: Standing) -> dict[str, Any]:
    return {
        "group": standing.key,
        "shards": standing.shards,
        "state": standing.state,
        "missing": standing.missing,
        "ends_at": moment(standing.ends_at),
        "artifactId": None if standing.number is None else str(standing.number),
    }

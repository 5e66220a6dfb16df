"""Builds: one file with its metadata, uploaded as it is, read back, and deleted like a snapshot."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse

from snapshed.api.snapshots import number_of
from snapshed.auth import Asker, Res, check_org, project_of, projects_of, require
from snapshed.bodies import Body, spooled
from snapshed.domain import build
from snapshed.domain.receipt import moment
from snapshed.resources import Resources
from snapshed.work import builds, deletion
from snapshed.work.access import Actor
from snapshed.work.deletion import Order

router = APIRouter(prefix="/api/0", tags=["builds"])

_BUILD = "/organizations/{org}/preprodartifacts/builds/{number}/"

File = Annotated[Body, Depends(spooled(lambda settings: settings.max_file))]


@router.post("/projects/{org}/{project}/preprodartifacts/builds/", status_code=201)
def upload(org: str, project: str, request: Request, resources: Res, actor: Asker, body: File) -> dict[str, Any]:
    """Upload one file; the query says what it is: app_id, file_name, and head_sha, head_repo_name, head_ref, metadata
    (a JSON object) where they are known."""
    found = project_of(resources, actor, org, project, "upload")
    digest = hashlib.sha256()
    for piece in body.chunks():
        digest.update(piece)
    wanted = build.parse(dict(request.query_params), body.size, digest.hexdigest())
    with body.mapped() as data:
        number = builds.add(resources, found, actor.principal, wanted, data)
    return {"artifactId": str(number), "kind": "build", "sha256": wanted.digest, "size": wanted.size}


@router.get(_BUILD)
def show(org: str, number: str, resources: Res, actor: Asker) -> dict[str, Any]:
    """A build and what is known about its file."""
    found = builds.find(resources, _reach(org, resources, actor), number_of(number))
    return {
        "artifact_id": str(found.number),
        "kind": "build",
        "project_id": str(found.project_id),
        "app_id": found.app_id,
        "file_name": found.file_name,
        "size": found.size,
        "sha256": found.digest,
        "vcs_info": {
            "head_sha": found.head_sha,
            "head_repo_name": found.head_repo_name,
            "head_ref": found.head_ref,
        },
        "metadata": found.facts,
        "date_added": moment(found.created_at),
        "created_by": found.created_by,
    }


@router.get(_BUILD + "file")
def download(org: str, number: str, resources: Res, actor: Asker) -> Response:
    """The file, byte for byte, always as something to save and never as something to show."""
    found = builds.open_file(resources, _reach(org, resources, actor), number_of(number))
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
        "content-length": str(found.size),
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cache-control": "private, no-cache",
    }
    return StreamingResponse(found.pieces, media_type="application/octet-stream", headers=headers)


@router.delete(_BUILD, status_code=204)
def delete(org: str, number: str, resources: Res, actor: Asker) -> Response:
    """Delete a build and everything that belonged to it; Location names the receipt."""
    found = builds.find(resources, _reach(org, resources, actor), number_of(number))
    require(actor, "delete")
    order = Order(actor.org_id, projects_of(resources, actor), actor.principal, snapshots=[found.number])
    deletion_id = deletion.request(resources, order)
    return Response(status_code=204, headers={"location": f"/api/0/organizations/{org}/deletions/{deletion_id}/"})


def _reach(org: str, resources: Resources, actor: Actor) -> list[int]:
    check_org(actor, org)
    require(actor, "read")
    return [project.id for project in projects_of(resources, actor)]

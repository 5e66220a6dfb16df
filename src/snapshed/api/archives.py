"""A snapshot's images as one zip, made while it is read: nothing is stored, so there is nothing to delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from snapshed.api.snapshots import number_of
from snapshed.auth import Asker, Res, check_org, projects_of, require
from snapshed.resources import Resources
from snapshed.work import archive, snapshots
from snapshed.work.access import Actor

router = APIRouter(prefix="/api/0", tags=["snapshots"])

_ARCHIVE = "/organizations/{org}/preprodartifacts/snapshots/{number}/archive/"


@router.get(_ARCHIVE, response_model=None)
def download(org: str, number: str, request: Request, resources: Res, actor: Asker) -> Response | dict[str, Any]:
    """With `?download` the zip; without, that it is ready, which it always is."""
    reach = _reach(org, resources, actor)
    found = snapshots.find(resources, reach, number_of(number))
    if "download" not in request.query_params:
        return {"ready": True}
    headers = {
        "content-disposition": f'attachment; filename="snapshot_images_{found.number}.zip"',
        "cache-control": "private, no-cache",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
    }
    pieces = archive.pieces(resources, reach, found.number)
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


@router.post(_ARCHIVE, status_code=202)
def build(org: str, number: str, resources: Res, actor: Asker) -> JSONResponse:
    """For clients that ask for a build first: there is none to wait for."""
    found = snapshots.find(resources, _reach(org, resources, actor), number_of(number))
    return JSONResponse({"detail": f"The archive of snapshot {found.number} is made while it is downloaded."}, 202)


def _reach(org: str, resources: Resources, actor: Actor) -> list[int]:
    check_org(actor, org)
    require(actor, "read")
    return [project.id for project in projects_of(resources, actor)]

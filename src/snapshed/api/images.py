"""One image at a time: what is known about it, and its bytes."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response

from snapshed import serving
from snapshed.api.representations import image_document
from snapshed.api.snapshots import number_of
from snapshed.auth import Asker, Res, check_org, project_of, projects_of, require
from snapshed.errors import Invalid, NotFound
from snapshed.work import snapshots

router = APIRouter(prefix="/api/0", tags=["snapshots"])

_TYPES = frozenset({None, "preprod_snapshots", "preprod_size_app_icon"})
_CONTROLS = re.compile('[\0-\x1f\x7f"\\\\]')


@router.get("/organizations/{org}/preprodartifacts/snapshots/{number}/images/{identifier:path}/")
def detail(org: str, number: str, identifier: str, resources: Res, actor: Asker) -> dict[str, Any]:
    """One image of a snapshot, by its name or its digest: what became of it, and where its bytes are."""
    check_org(actor, org)
    require(actor, "read")
    reach = [project.id for project in projects_of(resources, actor)]
    return image_document(snapshots.image_detail(resources, reach, number_of(number), identifier))


@router.get("/projects/{org}/{project}/files/images/{image_id:path}/")
def image(
    org: str,
    project: str,
    image_id: str,
    request: Request,
    resources: Res,
    actor: Asker,
    image_type: str | None = None,
    filename: str | None = None,
) -> Response:
    """The bytes of an image that a live snapshot names, by digest, or of a mask by its id."""
    found = project_of(resources, actor, org, project, "read")
    if image_type not in _TYPES:
        raise Invalid("Invalid image_type")
    key = snapshots.image_key(resources, found.id, image_id) if serving.is_reference(image_id) else None
    if key is None:
        raise NotFound("Image not found")
    name = _CONTROLS.sub("", (filename or "").rsplit("/", 1)[-1])[:255]
    return serving.image(request, resources, key, image_id, name or None)

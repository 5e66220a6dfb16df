"""The bytes behind `<img>`: images and masks of projects within the browser's reach."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from snapshed import serving
from snapshed.auth import Reader, Res, projects_of
from snapshed.errors import NotFound
from snapshed.work import snapshots

router = APIRouter(include_in_schema=False)


@router.get("/images/{project_id}/{image}")
def image(request: Request, project_id: int, image: str, resources: Res, reader: Reader) -> Response:
    """An image by digest, or a mask by id. Foreign and absent are the same 404."""
    reach = {project.id for project in projects_of(resources, reader.actor)}
    is_here = project_id in reach and serving.is_reference(image)
    key = snapshots.image_key(resources, project_id, image) if is_here else None
    if key is None:
        raise NotFound("There is no such image here.")
    return serving.image(request, resources, key, image)

"""The bytes behind `<img>`: images and masks of projects within the browser's reach.

Nothing is answered from a cache before it was asked again whether something live still names it.
"""

from __future__ import annotations

from itertools import chain

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from snapshed.auth import Reader, Res, projects_of
from snapshed.domain.keys import is_digest
from snapshed.errors import NotFound
from snapshed.work import snapshots

router = APIRouter(include_in_schema=False)


@router.get("/images/{project_id}/{image}")
def image(request: Request, project_id: int, image: str, resources: Res, reader: Reader) -> Response:
    """An image by digest, or a mask by id. Foreign and absent are the same 404."""
    reach = {project.id for project in projects_of(resources, reader.actor)}
    key = snapshots.image_key(resources, project_id, image) if project_id in reach and _is_reference(image) else None
    if key is None:
        raise NotFound("There is no such image here.")
    headers = {
        # Kept by the browser, but never shown again without this door's word: a deleted image is gone at once.
        "cache-control": "private, no-cache",
        "etag": f'"{image}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "same-origin",
    }
    if _is_known(request.headers.get("if-none-match", ""), headers["etag"]):
        return Response(status_code=304, headers=headers)
    pieces = resources.store.stream(key)
    if pieces is None:  # a deletion was faster
        raise NotFound("There is no such image here.")
    first, second = next(pieces, b""), next(pieces, None)
    media_type = sniffed(first)
    if media_type is None:
        media_type = "application/octet-stream"
        headers["content-disposition"] = "attachment"
    if second is None:  # most are this small, and then their length can be said
        return Response(first, media_type=media_type, headers=headers)
    return StreamingResponse(chain((first, second), pieces), media_type=media_type, headers=headers)


def sniffed(head: bytes) -> str | None:
    """The type of an image that browsers show safely, by its first bytes; None for everything else.

    >>> sniffed(b"GIF89a..."), sniffed(b"<svg onload=alert(1)>")
    ('image/gif', None)
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def _is_reference(image: str) -> bool:
    return is_digest(image) or (len(image) == 36 and set(image) <= set("0123456789abcdef-"))


def _is_known(asked: str, etag: str) -> bool:
    return any(known.strip().removeprefix("W/") in (etag, "*") for known in asked.split(","))

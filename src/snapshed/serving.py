"""Images as answers: the type is sniffed, never believed; private, inert, and asked for again every time."""

from __future__ import annotations

from itertools import chain
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from snapshed.errors import NotFound
from snapshed.resources import Resources

_HEADERS = {
    # Kept by the client, but never shown again without the server's word: a deleted image is gone at once.
    "cache-control": "private, no-cache",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
}


def image(request: Request, resources: Resources, key: str, image_id: str, file_name: str | None = None) -> Response:
    """The bytes of the object `key`, under the entity tag `image_id`; 304 if the client has them. The caller has just
    seen that something live names it. Raises NotFound when a deletion was faster."""
    headers = _HEADERS | {"etag": f'"{image_id}"'}
    if _is_known(request.headers.get("if-none-match", ""), headers["etag"]):
        return Response(status_code=304, headers=headers)
    pieces = resources.store.stream(key)
    if pieces is None:
        raise NotFound("Image not found")
    first, second = next(pieces, b""), next(pieces, None)
    media_type = sniffed(first)
    name = f"; filename*=UTF-8''{quote(file_name, safe='')}" if file_name else ""
    if media_type is None:
        media_type = "application/octet-stream"
        headers["content-disposition"] = f"attachment{name}"
    elif name:
        headers["content-disposition"] = f"inline{name}"
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


def is_reference(image: str) -> bool:
    """Whether a text can name an image at all: a digest, or the id of a mask."""
    return (len(image) == 64 and set(image) <= set("0123456789abcdef")) or (
        len(image) == 36 and set(image) <= set("0123456789abcdef-")
    )


def _is_known(asked: str, etag: str) -> bool:
    return any(known.strip().removeprefix("W/") in (etag, "*") for known in asked.split(","))

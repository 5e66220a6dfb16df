"""Our own stylesheet, module and icon, under an address that carries their hash.

Nothing is fetched from elsewhere, and nothing here depends on who asks.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Response

from snapshed.errors import NotFound

_TYPES = {
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
_FILES = {name: files("snapshed.ui").joinpath("static", name).read_bytes() for name in _TYPES}
_HASHES = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in _FILES.items()}

router = APIRouter(include_in_schema=False)


def address(name: str) -> str:
    """Where a file of ours is; the address changes with its content."""
    return f"/static/{_HASHES[name]}/{name}"


@router.get("/static/{content}/{name}")
def static(content: str, name: str) -> Response:
    if name not in _FILES:
        raise NotFound("There is no such file.")
    # A page of another version may ask for its own file: it gets ours, which must then not be kept under that address.
    is_current = content == _HASHES[name]
    headers = {
        "cache-control": "public, max-age=31536000, immutable" if is_current else "no-store",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    return Response(_FILES[name], media_type=_TYPES[name], headers=headers)

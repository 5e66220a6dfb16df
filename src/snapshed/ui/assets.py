"""Our own stylesheets, modules and icon, under an address that carries their hash.

Nothing is fetched from elsewhere, and nothing here depends on who asks.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Response

from snapshed.errors import NotFound

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FILES = {item.name: item.read_bytes() for item in files("snapshed.ui").joinpath("static").iterdir() if item.is_file()}

_HASH = hashlib.sha256(b"\0".join(name.encode() + b"\0" + _FILES[name] for name in sorted(_FILES))).hexdigest()[:16]
"""Of all files together, so that modules find each other beside themselves, all of one version."""

router = APIRouter(include_in_schema=False)


def address(name: str) -> str:
    """Where a file of ours is; the address changes with the content of any of them."""
    if name not in _FILES:
        raise KeyError(name)
    return f"/static/{_HASH}/{name}"


@router.get("/static/{content}/{name}")
def static(content: str, name: str) -> Response:
    if name not in _FILES:
        raise NotFound("There is no such file.")
    # A page of another version may ask for its own file: it gets ours, which must then not be kept under that address.
    headers = {
        "cache-control": "public, max-age=31536000, immutable" if content == _HASH else "no-store",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    return Response(_FILES[name], media_type=_TYPES[name.rpartition(".")[2]], headers=headers)

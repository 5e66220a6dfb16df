"""Turning templates into answers, with the headers that every page carries.

Every text is escaped; no template marks anything as safe, since names and metadata come from strangers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from snapshed.ui import assets, words

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "private, no-store",
}

AGAIN_SECONDS = 3
"""How soon a page about work under way looks again. Sent as a header, so that no markup depends on it."""

_templates = Environment(
    loader=PackageLoader("snapshed.ui", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
cast("dict[str, Any]", _templates.globals)["asset"] = assets.address
cast("dict[str, Any]", _templates.filters).update(
    amount=words.amount,
    counted=words.count,
    moment=words.moment,
    iso=words.iso,
    short=words.short_sha,
    percent=words.percent,
)


def page(
    request: Request,
    template: str,
    status: int = 200,
    *,
    looks_again: bool = False,
    **facts: Any,  # noqa: ANN401  whatever the template shows
) -> Response:
    """A page of ours. `facts` always holds `browser`, who is signed in or None."""
    facts.setdefault("browser", None)
    text = _templates.get_template(template).render(path=request.url.path, **facts)
    response = HTMLResponse(text, status, headers=dict(HEADERS))
    if looks_again:
        response.headers["refresh"] = str(AGAIN_SECONDS)
    return response


def json_answer(document: Mapping[str, Any]) -> Response:
    """What a module of ours asked for, with the headers of a page."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), media_type="application/json", headers=dict(HEADERS))


def redirect(path: str) -> Response:
    """Send the browser on to a page of ours, with a GET."""
    return RedirectResponse(path, 303, headers=dict(HEADERS))

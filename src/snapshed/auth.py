"""Who is asking, and whether they may: dependencies for the doors.

A thing that belongs to somebody else and a thing that does not exist are the same 404, told before any scope is.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from snapshed.db.access import Project
from snapshed.domain import key_tokens
from snapshed.domain.grants import Grant, Scope, allows
from snapshed.domain.key_tokens import KeyGrant
from snapshed.errors import Forbidden, Invalid, NotFound, Unauthenticated
from snapshed.resources import Resources
from snapshed.work import access, keys
from snapshed.work.access import Actor, Browser

COOKIE = "snapshed"
"""The browser's cookie; pages only, never `/api` or `/v1`."""


def resources_of(request: Request) -> Resources:
    """What this process opened at its start."""
    return request.app.state.resources


Res = Annotated[Resources, Depends(resources_of)]


def address_of(request: Request) -> str:
    """The public base address, without a trailing slash: SNAPSHED_URL, else the address the request came to."""
    resources: Resources = request.app.state.resources
    return resources.settings.url or str(request.base_url).rstrip("/")


# --- /api: organization tokens ---------------------------------------------------------------------------------------


def bearer(request: Request, resources: Res) -> Actor:
    """Whose token the Authorization header carries. Raises Unauthenticated."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Authentication credentials were not provided.")
    return access.actor(resources, token.strip())


Asker = Annotated[Actor, Depends(bearer)]


def check_org(actor: Actor, org: str) -> None:
    """Raise NotFound unless `org`, a slug or id, is the actor's own."""
    if org not in (actor.org_slug, str(actor.org_id)):
        raise NotFound("The requested resource does not exist")


def project_of(resources: Resources, actor: Actor, org: str, project: str, scope: Scope) -> Project:
    """The project of that slug or id, if it exists within the actor's reach. Raises NotFound, then Forbidden."""
    check_org(actor, org)
    # PostgreSQL cannot even be asked for a name with a NUL in it.
    found = None if "\0" in project else access.find_project(resources, actor.org_id, project)
    if found is None or found.state != "active" or actor.project_id not in (None, found.id):
        raise NotFound("Project not found")
    require(actor, scope)
    return found


def projects_of(resources: Resources, actor: Actor) -> list[Project]:
    """Every project within the actor's reach."""
    reach = access.list_projects(resources, actor.org_id)
    return [project for project in reach if actor.project_id in (None, project.id) and project.state == "active"]


def require(actor: Actor, scope: Scope) -> None:
    """Raise Forbidden unless the actor has the scope."""
    if not allows(actor.scopes, scope):
        raise Forbidden(f"This token may not do that: it needs the scope {scope}.")


# --- /v1: upload tokens and tokens of registered keys ----------------------------------------------------------------


def upload_grant(request: Request, resources: Res) -> Grant:
    """What the upload token allows. Raises Invalid without a token and Unauthenticated with a bad one."""
    return access.grant(resources, _token_in(request))


def key_grant(request: Request, resources: Res) -> KeyGrant:
    """What a registered key's token or pre-signed address allows. Raises Invalid without one, Unauthenticated with a
    bad one, and Forbidden for an upload token."""
    query = request.scope["query_string"].decode("latin-1")
    if key_tokens.is_signed(query):
        path = request.scope["raw_path"].decode("latin-1")
        return keys.signed_grant(resources, key_tokens.read_signed(request.method, path, query))
    token = _token_in(request)
    found = keys.grant(resources, token)
    if found is None:
        access.grant(resources, token)
        raise Forbidden("An upload token is for snapshots only; this use case needs a token of a registered key.")
    return found


def _token_in(request: Request) -> str:
    """The request's token: `x-os-auth` first, then Authorization, then the query's `os_auth`."""
    header = request.headers.get("x-os-auth", request.headers.get("authorization"))
    if header is not None:
        scheme, _, token = header.partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
    else:
        token = ""
    token = token or request.query_params.get("os_auth", "")
    if not token:
        raise Invalid("No authorization token provided")
    return token


Granted = Annotated[Grant, Depends(upload_grant)]
Keyed = Annotated[KeyGrant, Depends(key_grant)]


# --- Pages: browsers ---------------------------------------------------------------------------------------------------


def browser_of(request: Request, resources: Res) -> Browser | None:
    """Who the cookie is, or None."""
    secret = request.cookies.get(COOKIE)
    return access.browser(resources, secret) if secret else None


def signed_in(browser: Annotated[Browser | None, Depends(browser_of)]) -> Browser:
    """Who the cookie is. Raises Unauthenticated, which a page answers by asking to sign in."""
    if browser is None:
        raise Unauthenticated("Please sign in.")
    return browser


Reader = Annotated[Browser, Depends(signed_in)]


def check_csrf(browser: Browser, word: str) -> None:
    """Raise Forbidden unless a form carries its browser's own word."""
    if word != browser.csrf:
        raise Forbidden("This form is too old or came from another site; reload the page and try again.")

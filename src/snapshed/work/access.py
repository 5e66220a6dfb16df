"""Who may ask: organizations, projects, tokens, and people's browsers.

A secret is shown once, when it is made; only its hash is kept.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from snapshed.db import access, installation
from snapshed.db.access import Org, Project, SignIn, Token
from snapshed.db.pool import Tx
from snapshed.domain import grants, keys, names
from snapshed.domain.grants import Grant, Scope
from snapshed.errors import Conflict, Invalid, NotFound, StoreUnavailable, Unauthenticated
from snapshed.resources import Resources

_BROWSER_LIFE = timedelta(days=14)
_ONCE_LIFE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody we know: a token, its reach, and the name under which what it does is remembered."""

    token_id: int
    org_id: int
    org_slug: str
    project_id: int | None
    scopes: frozenset[str]
    name: str

    @property
    def principal(self) -> str:
        return f"token:{self.name}"


@dataclass(frozen=True, slots=True)
class Browser:
    """A signed-in browser: who it acts as, and the word its forms must carry."""

    actor: Actor
    csrf: str


def first_start(resources: Resources, address: str) -> str | None:
    """On a first start: organization and project `main`, an admin token in DIR/admin-token (mode 0600), and a path
    that signs a person in once, which is returned. None on every later start."""
    with resources.database.transaction() as tx:
        installation.lock(tx)
        if access.find_org(tx, "main") is not None:
            return None
        org = access.add_org(tx, "main", resources.now())
        access.add_project(tx, org.id, "main", resources.now())
        installation.remember_address(tx, address)
        once = _let_in(resources, tx, org, address)
    with suppress(StoreUnavailable):  # then a worker does it
        note_names(resources)
    return once


def let_in_again(resources: Resources, address: str) -> str | None:
    """After a rebuild, which has no tokens: a new admin token in DIR/admin-token, of the organization `main` or else the
    oldest, and a path that signs a person in once. None if there is no organization."""

    def write(tx: Tx) -> str | None:
        installation.remember_address(tx, address)
        org = access.find_org(tx, "main") or access.oldest_org(tx)
        return None if org is None else _let_in(resources, tx, org, address)

    return resources.database.run(write)


def _let_in(resources: Resources, tx: Tx, org: Org, address: str) -> str:
    secret, token_id = _new_token(resources, tx, org.id, org.slug, None, "admin", ["admin"], address)
    once = secrets.token_urlsafe(32)
    sign_in = SignIn(token_id, secrets.token_urlsafe(16), resources.now() + _ONCE_LIFE)
    access.add_sign_in(tx, "once", grants.digest(once), sign_in)
    # Inside the transaction on purpose: if the file cannot be written, nobody has been let in.
    _write_private(resources.settings.data / "admin-token", secret + "\n")
    return f"/sign-in/once/{once}"


def note_names(resources: Resources) -> int:
    """Write the names of projects into the store, so that a rebuild knows what the numbers in its keys stand for.
    Returns how many were new to it. Raises StoreUnavailable; a worker tries again."""
    with resources.database.transaction() as tx:
        unnamed = access.unnamed_projects(tx)
    for project in unnamed:
        resources.store.note(keys.project_names(project.id), names.written(project))
        resources.database.run(lambda tx, project=project: access.project_named(tx, project.id, resources.now()))
    return len(unnamed)


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)


def serve_at(resources: Resources, address: str) -> None:
    """Remember where the service answers, so that new tokens carry the address."""
    resources.database.run(lambda tx: installation.remember_address(tx, address))


def add_project(resources: Resources, org_slug: str, project_slug: str) -> Project:
    """Add a project, and its organization if it is new. Raises Invalid or Conflict."""
    for slug in (org_slug, project_slug):
        if not _is_slug(slug):
            raise Invalid(f"{slug!r} is no name: use 1 to 63 lower-case letters, digits, '-' and '_', a letter first.")

    def add(tx: Tx) -> Project:
        org = access.add_org(tx, org_slug, resources.now())
        if not access.add_project(tx, org.id, project_slug, resources.now()):
            raise Conflict(f"The project {org_slug}/{project_slug} exists already.")
        project = access.find_project(tx, org.id, project_slug)
        assert project is not None  # noqa: S101  inserted above
        return project

    added = resources.database.run(add)
    with suppress(StoreUnavailable):  # then a worker does it
        note_names(resources)
    return added


def _is_slug(text: str) -> bool:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    return 0 < len(text) <= 63 and text[0].isalpha() and text[0].islower() and set(text) <= allowed


def list_projects(resources: Resources, org_id: int | None = None) -> list[Project]:
    with resources.database.transaction() as tx:
        return access.list_projects(tx, org_id)


def find_project(resources: Resources, org_id: int, name: str) -> Project | None:
    """By slug or id, within an organization."""
    with resources.database.transaction() as tx:
        return access.find_project(tx, org_id, name)


def add_token(
    resources: Resources, org_slug: str, project_slug: str | None, name: str, scopes: list[Scope], address: str | None
) -> str:
    """Add a token and return it, the only time it is ever shown. Raises NotFound or Invalid."""
    if not name or len(name) > 100:
        raise Invalid("The token's name must have 1 to 100 characters.")

    def add(tx: Tx) -> str:
        org = access.find_org(tx, org_slug)
        if org is None:
            raise NotFound(f"There is no organization {org_slug}; `snapshed project list` shows those there are.")
        project = access.find_project(tx, org.id, project_slug) if project_slug else None
        if project_slug and project is None:
            raise NotFound(f"There is no project {org_slug}/{project_slug}; `snapshed project list` shows all.")
        known = installation.find(tx)
        url = address or (known.address if known else None) or "http://127.0.0.1:8400"
        secret, _ = _new_token(
            resources, tx, org.id, org.slug, project.id if project else None, name, list(scopes), url
        )
        return secret

    return resources.database.run(add)


def _new_token(
    resources: Resources,
    tx: Tx,
    org_id: int,
    org_slug: str,
    project_id: int | None,
    name: str,
    scopes: list[str],
    address: str,
) -> tuple[str, int]:
    now = resources.now()
    token = grants.org_token(address, org_slug, now, grants.new_secret(secrets.token_bytes(32)))
    token_id = access.add_token(tx, org_id, project_id, name, scopes, grants.digest(token), now)
    return token, token_id


def list_tokens(resources: Resources) -> list[Token]:
    with resources.database.transaction() as tx:
        return access.list_tokens(tx)


def revoke_token(resources: Resources, token_id: int) -> None:
    """Revoke a token and sign its browsers out. Raises NotFound."""
    if not resources.database.run(lambda tx: access.revoke_token(tx, token_id, resources.now())):
        raise NotFound(f"There is no token {token_id} that is not revoked; `snapshed token list` shows all.")


# --- Asking who it is ------------------------------------------------------------------------------------------------


def actor(resources: Resources, token: str) -> Actor:
    """Who a token is. Raises Unauthenticated for one that is unknown or revoked."""
    with resources.database.transaction() as tx:
        found = access.find_token(tx, grants.digest(token))
    if found is None:
        raise Unauthenticated("Invalid token")
    return _actor(found)


def _actor(token: Token) -> Actor:
    return Actor(token.id, token.org_id, token.org_slug, token.project_id, frozenset(token.scopes), token.name)


def grant(resources: Resources, token: str) -> Grant:
    """What an upload token allows. Raises Unauthenticated."""
    kid = grants.kid_of(token)
    with resources.database.transaction() as tx:
        public_pem = installation.public_pem(tx, "upload", kid)
    if public_pem is None:
        raise Unauthenticated("The upload token is not one of this server's; ask for new upload options.")
    return grants.read_upload_token(token, public_pem, resources.now())


def sign_in(resources: Resources, token: str) -> str:
    """Start a browser's session with a token; returns the cookie's secret. Raises Unauthenticated."""
    known = actor(resources, token)
    return resources.database.run(lambda tx: _start_browser(resources, tx, known.token_id))


def sign_in_once(resources: Resources, once: str) -> str:
    """Start a browser's session with an address that works once. Raises Unauthenticated."""

    def take(tx: Tx) -> str:
        token_id = access.take_sign_in_once(tx, grants.digest(once), resources.now())
        if token_id is None:
            raise Unauthenticated("This address has been used or is too old; sign in with a token.")
        return _start_browser(resources, tx, token_id)

    return resources.database.run(take)


def _start_browser(resources: Resources, tx: Tx, token_id: int) -> str:
    secret = secrets.token_urlsafe(32)
    sign_in = SignIn(token_id, secrets.token_urlsafe(24), resources.now() + _BROWSER_LIFE)
    access.add_sign_in(tx, "browser", grants.digest(secret), sign_in)
    return secret


def browser(resources: Resources, secret: str) -> Browser | None:
    """Who a browser's cookie is; None if it is unknown, over, or its token is revoked."""
    with resources.database.transaction() as tx:
        found = access.find_sign_in(tx, grants.digest(secret), resources.now())
        token = access.find_token_by_id(tx, found.token_id) if found else None
    return Browser(_actor(token), found.csrf) if found and token else None


def sign_out(resources: Resources, secret: str) -> None:
    """End a browser's session."""
    resources.database.run(lambda tx: access.end_sign_in(tx, grants.digest(secret)))

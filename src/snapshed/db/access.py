"""Rows about who may ask: organizations, projects, tokens and sign-ins.

Secrets are looked up by their SHA-256; none is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from snapshed.db import rows
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Org:
    id: int
    slug: str


@dataclass(frozen=True, slots=True)
class Project:
    id: int
    org_id: int
    org_slug: str
    slug: str
    state: Literal["active", "deleting"]


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    org_id: int
    org_slug: str
    project_id: int | None
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class SignIn:
    token_id: int
    csrf: str
    ends_at: datetime


def add_org(tx: Tx, slug: str, now: datetime) -> Org:
    """The organization of that slug, made if there is none."""
    rows.run(
        tx,
        "INSERT INTO org (slug, created_at) VALUES (%(slug)s, %(now)s) ON CONFLICT ON CONSTRAINT org_slug_is_unique DO NOTHING",
        {"slug": slug, "now": now},
    )
    org = find_org(tx, slug)
    assert org is not None  # noqa: S101  inserted or found one statement ago
    return org


def find_org(tx: Tx, name: str) -> Org | None:
    """By slug, or by id in digits. The installation's own place for objects, number 0, is nobody's to find."""
    return rows.one(
        tx,
        Org,
        "SELECT id, slug FROM org WHERE (slug = %(name)s OR id::text = %(name)s) AND id > 0",
        {"name": name},
    )


def oldest_org(tx: Tx) -> Org | None:
    """The organization that was there first."""
    return rows.one(tx, Org, "SELECT id, slug FROM org WHERE id > 0 ORDER BY id LIMIT 1")


def add_project(tx: Tx, org_id: int, slug: str, now: datetime) -> bool:
    """Add a project; False if the organization has one of that slug already."""
    return (
        rows.run(
            tx,
            """
            INSERT INTO project (org_id, slug, created_at) VALUES (%(org)s, %(slug)s, %(now)s)
                ON CONFLICT ON CONSTRAINT project_slug_is_unique DO NOTHING
            """,
            {"org": org_id, "slug": slug, "now": now},
        )
        == 1
    )


def find_project(tx: Tx, org_id: int, name: str) -> Project | None:
    """By slug, or by id in digits, within one organization."""
    return rows.one(
        tx,
        Project,
        """
        SELECT p.id, p.org_id, o.slug AS org_slug, p.slug, p.state
          FROM project p JOIN org o ON o.id = p.org_id
         WHERE p.org_id = %(org)s AND (p.slug = %(name)s OR p.id::text = %(name)s)
        """,
        {"org": org_id, "name": name},
    )


def project_by_id(tx: Tx, project_id: int) -> Project | None:
    return rows.one(
        tx,
        Project,
        """
        SELECT p.id, p.org_id, o.slug AS org_slug, p.slug, p.state
          FROM project p JOIN org o ON o.id = p.org_id WHERE p.id = %(id)s
        """,
        {"id": project_id},
    )


def list_projects(tx: Tx, org_id: int | None = None) -> list[Project]:
    """Every project, of one organization or of all; never the installation's own place for objects."""
    return rows.many(
        tx,
        Project,
        """
        SELECT p.id, p.org_id, o.slug AS org_slug, p.slug, p.state
          FROM project p JOIN org o ON o.id = p.org_id
         WHERE (%(org)s::bigint IS NULL OR p.org_id = %(org)s) AND p.id > 0
         ORDER BY o.slug, p.slug
        """,
        {"org": org_id},
    )


def lock_project_shared(tx: Tx, project_id: int) -> str | None:
    """The project's state, share-locked: no deletion by filter evaluates its target beside this transaction."""
    return rows.value(tx, str, "SELECT state FROM project WHERE id = %(id)s FOR SHARE", {"id": project_id})


def lock_project(tx: Tx, project_id: int) -> None:
    """Keep every commit of a snapshot out of this project until this transaction ends."""
    rows.run(tx, "SELECT 1 FROM project WHERE id = %(id)s FOR NO KEY UPDATE", {"id": project_id})


def add_token(
    tx: Tx, org_id: int, project_id: int | None, name: str, scopes: list[str], token_hash: bytes, now: datetime
) -> int:
    """Add a token and return its id."""
    token_id = rows.value(
        tx,
        int,
        """
        INSERT INTO token (org_id, project_id, name, scopes, hash, created_at)
        VALUES (%(org)s, %(project)s, %(name)s, %(scopes)s, %(hash)s, %(now)s) RETURNING id
        """,
        {"org": org_id, "project": project_id, "name": name, "scopes": scopes, "hash": token_hash, "now": now},
    )
    assert token_id is not None  # noqa: S101  RETURNING of one inserted row
    return token_id


def find_token(tx: Tx, token_hash: bytes) -> Token | None:
    """The token that is not revoked and has this hash."""
    return rows.one(
        tx,
        Token,
        """
        SELECT t.id, t.org_id, o.slug AS org_slug, t.project_id, t.name, t.scopes, t.created_at, t.revoked_at
          FROM token t JOIN org o ON o.id = t.org_id
         WHERE t.hash = %(hash)s AND t.revoked_at IS NULL
        """,
        {"hash": token_hash},
    )


def list_tokens(tx: Tx) -> list[Token]:
    return rows.many(
        tx,
        Token,
        """
        SELECT t.id, t.org_id, o.slug AS org_slug, t.project_id, t.name, t.scopes, t.created_at, t.revoked_at
          FROM token t JOIN org o ON o.id = t.org_id ORDER BY t.id
        """,
    )


def revoke_token(tx: Tx, token_id: int, now: datetime) -> bool:
    """Revoke a token and end its browsers' sessions. False if there is no such token or it is revoked already."""
    rows.run(tx, "DELETE FROM sign_in WHERE token_id = %(id)s", {"id": token_id})
    return (
        rows.run(
            tx,
            "UPDATE token SET revoked_at = %(now)s WHERE id = %(id)s AND revoked_at IS NULL",
            {"id": token_id, "now": now},
        )
        == 1
    )


def add_sign_in(tx: Tx, kind: Literal["once", "browser"], secret_hash: bytes, sign_in: SignIn) -> None:
    rows.run(
        tx,
        """
        INSERT INTO sign_in (hash, token_id, kind, csrf, ends_at)
        VALUES (%(hash)s, %(token)s, %(kind)s, %(csrf)s, %(ends_at)s)
        """,
        {
            "hash": secret_hash,
            "token": sign_in.token_id,
            "kind": kind,
            "csrf": sign_in.csrf,
            "ends_at": sign_in.ends_at,
        },
    )


def take_sign_in_once(tx: Tx, secret_hash: bytes, now: datetime) -> int | None:
    """Use up an address that signs a person in once; its token's id, or None if used, unknown or too old."""
    return rows.value(
        tx,
        int,
        "DELETE FROM sign_in WHERE hash = %(hash)s AND kind = 'once' AND ends_at > %(now)s RETURNING token_id",
        {"hash": secret_hash, "now": now},
    )


def find_sign_in(tx: Tx, secret_hash: bytes, now: datetime) -> SignIn | None:
    return rows.one(
        tx,
        SignIn,
        """
        SELECT token_id, csrf, ends_at FROM sign_in
         WHERE hash = %(hash)s AND kind = 'browser' AND ends_at > %(now)s
        """,
        {"hash": secret_hash, "now": now},
    )


def find_token_by_id(tx: Tx, token_id: int) -> Token | None:
    return rows.one(
        tx,
        Token,
        """
        SELECT t.id, t.org_id, o.slug AS org_slug, t.project_id, t.name, t.scopes, t.created_at, t.revoked_at
          FROM token t JOIN org o ON o.id = t.org_id
         WHERE t.id = %(id)s AND t.revoked_at IS NULL
        """,
        {"id": token_id},
    )


def end_sign_in(tx: Tx, secret_hash: bytes) -> None:
    rows.run(tx, "DELETE FROM sign_in WHERE hash = %(hash)s", {"hash": secret_hash})


def forget_old_sign_ins(tx: Tx, now: datetime) -> None:
    rows.run(tx, "DELETE FROM sign_in WHERE ends_at <= %(now)s", {"now": now})


def unnamed_projects(tx: Tx) -> list[Project]:
    """Projects whose names the store does not have yet."""
    return rows.many(
        tx,
        Project,
        """
        SELECT p.id, p.org_id, o.slug AS org_slug, p.slug, p.state
          FROM project p JOIN org o ON o.id = p.org_id WHERE p.named_at IS NULL AND p.id > 0 ORDER BY p.id
        """,
    )


def project_named(tx: Tx, project_id: int, now: datetime) -> None:
    """The store has the project's name."""
    rows.run(tx, "UPDATE project SET named_at = %(now)s WHERE id = %(id)s", {"id": project_id, "now": now})


def bring_back(tx: Tx, project: Project, now: datetime) -> None:
    """Add a project and its organization under the ids they had, unless they are here."""
    values = {
        "org": project.org_id,
        "org_slug": project.org_slug,
        "id": project.id,
        "slug": project.slug,
        "now": now,
    }
    rows.run(
        tx,
        """
        INSERT INTO org (id, slug, created_at) OVERRIDING SYSTEM VALUE VALUES (%(org)s, %(org_slug)s, %(now)s)
            ON CONFLICT (id) DO NOTHING
        """,
        values,
    )
    rows.run(
        tx,
        """
        INSERT INTO project (id, org_id, slug, created_at) OVERRIDING SYSTEM VALUE
        VALUES (%(id)s, %(org)s, %(slug)s, %(now)s) ON CONFLICT (id) DO NOTHING
        """,
        values,
    )

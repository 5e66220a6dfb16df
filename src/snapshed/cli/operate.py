"""Operator commands: they work on the installation itself, beside a running server or without one.

What opens an installation is imported inside the commands, so that client commands start without it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from snapshed import logs
from snapshed.domain.grants import SCOPES, Scope
from snapshed.errors import Invalid, NotFound
from snapshed.settings import Settings

if TYPE_CHECKING:
    from snapshed.db.access import Project
    from snapshed.resources import Resources

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the installation; SNAPSHED_DATA, else ./snapshed-data.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the operator commands."""
    app.command()(serve)
    app.command()(worker)
    project = typer.Typer(help="Add and list projects.", no_args_is_help=True)
    project.command("add")(project_add)
    project.command("list")(project_list)
    app.add_typer(project, name="project")
    token = typer.Typer(help="Add, list and revoke tokens.", no_args_is_help=True)
    token.command("add")(token_add)
    token.command("list")(token_list)
    token.command("revoke")(token_revoke)
    app.add_typer(token, name="token")


@contextmanager
def installation(data: Path | None) -> Generator[Resources]:
    """The installation of these settings, opened and founded; the first command ever also makes its first token."""
    from snapshed.resources import opened
    from snapshed.work import access

    logs.configure()
    settings = Settings.from_env(os.environ, data=data)
    with opened(settings, connections=4) as resources:
        address = settings.url or "http://127.0.0.1:8400"
        if once := access.first_start(resources, address):
            sys.stderr.write(f"This is a new installation. Once it is served, sign in once at {address}{once}\n")
        yield resources


def project_named(resources: Resources, name: str | None) -> Project:
    """The project that ORG/PROJECT names, or its own name alone where only one organization has it; without a name the
    only one there is. Raises Invalid and NotFound."""
    from snapshed.work import access

    known = access.list_projects(resources)
    found = [item for item in known if name in (None, item.slug, f"{item.org_slug}/{item.slug}")]
    if not found:
        raise NotFound(f"There is no project {name}; `snapshed project list` shows all.")
    if len(found) > 1:
        raise Invalid("Say which project is meant with --project ORG/PROJECT; `snapshed project list` shows all.")
    return found[0]


def serve(
    data: Data = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8400,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Run no worker beside.")] = False,
) -> None:
    """Serve HTTP, and run a worker beside it."""
    from snapshed import web

    logs.configure()
    web.serve(Settings.from_env(os.environ, data=data), host, port, with_worker=not no_worker)


def worker(
    data: Data = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Run one more worker."""
    from snapshed import worker as process

    logs.configure()
    process.run(Settings.from_env(os.environ, data=data), stop_with_parent=with_parent)


def project_add(name: Annotated[str, typer.Argument(metavar="ORG/PROJECT")], data: Data = None) -> None:
    """Add a project, and its organization if that is new."""
    from snapshed.work import access

    org, slash, project = name.partition("/")
    if not slash:
        raise Invalid("Name the project as ORG/PROJECT, such as main/web.")
    with installation(data) as resources:
        added = access.add_project(resources, org, project)
    sys.stdout.write(f"{added.org_slug}/{added.slug}\n")


def project_list(data: Data = None, as_json: Json = False) -> None:
    """List every project."""
    from snapshed.work import access

    with installation(data) as resources:
        found = access.list_projects(resources)
    if as_json:
        document = [{"id": item.id, "org": item.org_slug, "project": item.slug} for item in found]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for item in found:
        sys.stdout.write(f"{item.id}  {item.org_slug}/{item.slug}\n")


def token_add(
    org: Annotated[str, typer.Option(help="Organization.")],
    name: Annotated[str, typer.Option(help="What the token is for; shown wherever it acts.")],
    scope: Annotated[list[str], typer.Option(help=f"One of {', '.join(SCOPES)}; may be repeated.")],
    project: Annotated[str | None, typer.Option(help="Only this project of the organization.")] = None,
    data: Data = None,
) -> None:
    """Add a token and print it, once."""
    from snapshed.work import access

    if unknown := sorted(set(scope) - set(SCOPES)):
        raise Invalid(f"There is no scope {unknown[0]!r}; use {', '.join(SCOPES)}.")
    with installation(data) as resources:
        scopes = cast("list[Scope]", sorted(set(scope)))
        address = resources.settings.url
        secret = access.add_token(resources, org, project, name, scopes, address)
    sys.stdout.write(f"{secret}\n")


def token_list(data: Data = None, as_json: Json = False) -> None:
    """List every token, without its secret."""
    from snapshed.work import access

    with installation(data) as resources:
        found = access.list_tokens(resources)
    state: Literal["revoked", "active"]
    if as_json:
        document = [
            {
                "id": item.id,
                "org": item.org_slug,
                "project_id": item.project_id,
                "name": item.name,
                "scopes": item.scopes,
                "created_at": item.created_at.isoformat(),
                "revoked_at": item.revoked_at.isoformat() if item.revoked_at else None,
            }
            for item in found
        ]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for item in found:
        state = "revoked" if item.revoked_at else "active"
        reach = item.org_slug if item.project_id is None else f"{item.org_slug} project {item.project_id}"
        sys.stdout.write(f"{item.id}  {item.name}  {reach}  {','.join(item.scopes)}  {state}\n")


def token_revoke(token_id: Annotated[int, typer.Argument(metavar="ID")], data: Data = None) -> None:
    """Revoke a token; it is refused from now on."""
    from snapshed.work import access

    with installation(data) as resources:
        access.revoke_token(resources, token_id)
    sys.stdout.write(f"Token {token_id} is revoked.\n")

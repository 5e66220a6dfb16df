"""Operator commands about webhooks: who is told what happens in a project."""

from __future__ import annotations

import json
import sys
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

import typer

from snapshed.cli.operate import Data, Json, installation
from snapshed.domain.receipt import moment
from snapshed.domain.webhooks import EVENTS, Event
from snapshed.errors import Invalid


def register(app: typer.Typer) -> None:
    """Add the `webhook` commands."""
    webhook = typer.Typer(help="Tell other programs what happens in a project.", no_args_is_help=True)
    webhook.command("add")(add)
    webhook.command("list")(listing)
    webhook.command("revoke")(revoke)
    app.add_typer(webhook, name="webhook")


def add(
    name: Annotated[str, typer.Argument(metavar="ORG/PROJECT")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to post, such as https://ci.example.com/hook.")],
    event: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(EVENTS)}; may be repeated. Default: all.")
    ] = None,
    data: Data = None,
) -> None:
    """Add a webhook, and print the secret its messages are signed with, once."""
    from snapshed.work import webhooks

    org, _, project = name.partition("/")
    if unknown := sorted(set(event or ()) - set(EVENTS)):
        raise Invalid(f"There is no event {unknown[0]!r}; use {', '.join(EVENTS)}.")
    wanted: list[Event] = [known for known in EVENTS if not event or known in event]
    with installation(data) as resources:
        webhook_id, secret = webhooks.add(resources, org, project, url, wanted)
    sys.stdout.write(f"{webhook_id}\n{secret}\n")


def listing(data: Data = None, as_json: Json = False) -> None:
    """List every webhook, without its secret; of its address only the host, since the rest may be one too."""
    from snapshed.work import webhooks

    with installation(data) as resources:
        found = webhooks.list_webhooks(resources)
    if as_json:
        document = [
            {
                "id": str(item.id),
                "project": f"{item.org_slug}/{item.project_slug}",
                "host": urlsplit(item.url).hostname,
                "events": item.events,
                "waiting": item.waiting,
                "created_at": moment(item.created_at),
                "revoked_at": moment(item.revoked_at),
            }
            for item in found
        ]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for item in found:
        state = "revoked" if item.revoked_at else f"active, {item.waiting} waiting"
        host = urlsplit(item.url).hostname
        events = ",".join(item.events)
        sys.stdout.write(f"{item.id}  {item.org_slug}/{item.project_slug}  {host}  {events}  {state}\n")


def revoke(webhook_id: Annotated[str, typer.Argument(metavar="ID")], data: Data = None) -> None:
    """Revoke a webhook; it is told nothing more."""
    from snapshed.work import webhooks

    try:
        known = UUID(webhook_id)
    except ValueError:
        raise Invalid("The id of a webhook is what `snapshed webhook list` shows first.") from None
    with installation(data) as resources:
        webhooks.revoke(resources, known)
    sys.stdout.write(f"Webhook {known} is revoked.\n")

"""Operator commands about registered keys: whose tokens the blob API accepts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snapshed.cli.operate import Data, Json, installation
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid

if TYPE_CHECKING:
    from snapshed.domain.grants import Permission

_PERMISSIONS: dict[str, Permission] = {"read": "object.read", "write": "object.write", "delete": "object.delete"}
_MOST = 2**16
"""Bytes of a key file; a key in PEM form has a few hundred."""


def register(app: typer.Typer) -> None:
    """Add the `key` commands."""
    key = typer.Typer(help="Register keys whose tokens the blob API accepts.", no_args_is_help=True)
    key.command("add")(add)
    key.command("list")(listing)
    key.command("revoke")(revoke)
    app.add_typer(key, name="key")


def add(
    kid: Annotated[str, typer.Argument(metavar="KID", help="The key's name, as its tokens carry it.")],
    public_pem: Annotated[Path, typer.Argument(metavar="PUBLIC_PEM", help="File with the Ed25519 public key.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(help="Where its tokens work, such as 'org=*;project=*'; may be repeated. Default: everywhere."),
    ] = None,
    permission: Annotated[
        list[str] | None, typer.Option(help="read, write or delete; may be repeated. Default: all three.")
    ] = None,
    data: Data = None,
) -> None:
    """Register a public key. Whoever has its private half may sign tokens within these scopes and permissions."""
    from snapshed.work import keys

    words = permission or list(_PERMISSIONS)
    if unknown := sorted(set(words) - set(_PERMISSIONS)):
        raise Invalid(f"There is no permission {unknown[0]!r}; use {', '.join(_PERMISSIONS)}.")
    text = _text_of(public_pem)
    with installation(data) as resources:
        keys.add(resources, kid, text, scopes or ["*"], [_PERMISSIONS[word] for word in words])
    sys.stdout.write(f"Key {kid} is registered.\n")


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST).decode()
    except (OSError, UnicodeDecodeError):
        raise Invalid(f"The file {file} cannot be read as a key in PEM form.") from None


def listing(data: Data = None, as_json: Json = False) -> None:
    """List every key, revoked ones too."""
    from snapshed.work import keys

    with installation(data) as resources:
        found = keys.list_keys(resources)
    if as_json:
        document = [
            {
                "kid": key.kid,
                "scopes": key.scopes,
                "permissions": [word for word, name in _PERMISSIONS.items() if name in key.permissions],
                "created_at": moment(key.created_at),
                "revoked_at": moment(key.revoked_at),
            }
            for key in found
        ]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for key in found:
        words = ",".join(word for word, name in _PERMISSIONS.items() if name in key.permissions)
        state = "revoked" if key.revoked_at else "active"
        sys.stdout.write(f"{key.kid}  {' or '.join(key.scopes)}  {words}  {state}\n")


def revoke(kid: Annotated[str, typer.Argument(metavar="KID")], data: Data = None) -> None:
    """Revoke a key; what it signed is refused from now on."""
    from snapshed.work import keys

    with installation(data) as resources:
        keys.revoke(resources, kid)
    sys.stdout.write(f"Key {kid} is revoked.\n")

"""Registered keys: whose tokens and pre-signed addresses the blob API accepts, and what each may reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from snapshed.db import keys
from snapshed.db.keys import Listed
from snapshed.domain import grants, key_tokens, namespaces
from snapshed.domain.grants import Permission
from snapshed.domain.key_tokens import KeyGrant, RegisteredKey, Signed
from snapshed.errors import Conflict, Invalid, NotFound, Unauthenticated
from snapshed.resources import Resources


def add(
    resources: Resources, kid: str, public_pem: str, scopes: Sequence[str], permissions: Sequence[Permission]
) -> None:
    """Register a public key under a name that was never used before. Raises Invalid and Conflict."""
    if not grants.is_kid(kid):
        raise Invalid(f"{kid[:100]!r} is no name for a key; use 1 to 100 letters, digits and ._:-")
    if not scopes or not permissions or set(permissions) - set(get_args(Permission)):
        raise Invalid("A key needs at least one pattern of scopes and one permission.")
    for pattern in scopes:
        namespaces.check_pattern(pattern)
    key = RegisteredKey(kid, key_tokens.public_key(public_pem), sorted(set(scopes)), sorted(set(permissions)))
    if not resources.database.run(lambda tx: keys.add(tx, key, resources.now())):
        raise Conflict(f"A key {kid} exists already, or did; choose another name, so that old tokens stay refused.")


def list_keys(resources: Resources) -> list[Listed]:
    with resources.database.transaction() as tx:
        return keys.listing(tx)


def revoke(resources: Resources, kid: str) -> None:
    """Revoke a key: nothing it signed is accepted from now on. Raises NotFound."""
    if not grants.is_kid(kid) or not resources.database.run(lambda tx: keys.revoke(tx, kid, resources.now())):
        raise NotFound(f"There is no key {kid[:100]!r} that is not revoked; `snapshed key list` shows all.")


def grant(resources: Resources, token: str) -> KeyGrant | None:
    """What a token allows; None if it names no registered key. Raises Unauthenticated, Invalid and Forbidden."""
    key = _find(resources, grants.kid_of(token))
    return None if key is None else key_tokens.read_token(token, key, resources.now())


def signed_grant(resources: Resources, signed: Signed) -> KeyGrant:
    """What a pre-signed request allows. Raises Unauthenticated."""
    key = _find(resources, signed.kid) if grants.is_kid(signed.kid) else None
    if key is None:
        raise Unauthenticated("The signature of this address is wrong, or its time is over; ask for a new address.")
    return key_tokens.accept(signed, key, resources.now())


def _find(resources: Resources, kid: str) -> RegisteredKey | None:
    with resources.database.transaction() as tx:
        return keys.find(tx, kid)

"""Tokens and pre-signed addresses that registered keys sign: what they say, and whether it reaches a place.

Whether a key is registered or revoked is not decided here.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import unquote

import jwt
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from snapshed.domain import namespaces
from snapshed.domain.grants import Permission
from snapshed.domain.namespaces import Place
from snapshed.errors import Forbidden, Invalid, Unauthenticated

PERMISSIONS: tuple[Permission, ...] = ("object.read", "object.write", "object.delete")

LEEWAY = timedelta(seconds=60)
LONGEST_SIGNATURE = timedelta(days=7)

SIGNATURE = "os_sig"
_SIGNED_BY, _SIGNED_AT, _LASTS = "os_kid", "os_timestamp", "os_duration"

_AUDIENCE = "objectstore"
_ISSUERS = ("sentry", "relay")


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """Somebody's public key, and the most that a token it signs may do."""

    kid: str
    public_pem: str
    scopes: list[str]
    permissions: list[str]


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What a request may do: no more than its token says, and no more than the key that signed it."""

    key: RegisteredKey
    permissions: frozenset[str]
    use_case: str | None
    """None: the signature covers the address of the object itself."""

    scopes: Mapping[str, str]

    @property
    def principal(self) -> str:
        return f"key:{self.key.kid}"


def public_key(pem: str) -> str:
    """The PEM text of an Ed25519 public key, in its one standard form. Raises Invalid for anything else."""
    if "PRIVATE KEY" in pem:
        raise Invalid("This is a private key; keep it secret and register its public half.")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid("The file holds no public key in PEM form.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise Invalid("The key is not an Ed25519 key; make one with `openssl genpkey -algorithm ed25519`.")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


# --- Tokens ---------------------------------------------------------------------------------------------------------


def read_token(token: str, key: RegisteredKey, now: datetime) -> KeyGrant:
    """Check a token's signature, time and form, and read it. Raises Unauthenticated, or Forbidden for wildcards."""
    wrong = Unauthenticated("The token is invalid or over; sign a new one.")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.public_pem,
            algorithms=["EdDSA"],
            # The clock arrives as an argument, so times are judged below and not by the library.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
                "require": ["exp"],
            },
        )
    except (jwt.InvalidTokenError, ValueError, TypeError):
        raise wrong from None
    scopes, permissions = _reach(claims.get("res")), _known(claims.get("permissions"))
    if not _is_in_time(claims, now) or not _is_for_us(claims) or scopes is None or permissions is None:
        raise wrong
    use_case = scopes.pop("os:usecase")
    if namespaces.ANY in (use_case, *scopes.values()):
        raise Forbidden("A token has to name its use case and its scopes; * is not accepted in one.")
    return KeyGrant(key, permissions & frozenset(key.permissions), use_case, scopes)


def _is_in_time(claims: Mapping[str, Any], now: datetime) -> bool:
    ends, begins = claims["exp"], claims.get("nbf", 0)
    for time in (ends, begins):
        if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
            return False
    leeway = LEEWAY.total_seconds()
    return begins - leeway <= now.timestamp() <= ends + leeway


def _is_for_us(claims: Mapping[str, Any]) -> bool:
    audience, issuer = claims.get("aud"), claims.get("iss")
    return audience in (None, _AUDIENCE, [_AUDIENCE]) and issuer in (None, *_ISSUERS)


def _reach(claim: object) -> dict[str, str] | None:
    """The use case and scopes a token names, if they are texts."""
    if not isinstance(claim, dict):
        return None
    said = cast("dict[str, object]", claim)
    texts = {name: value for name, value in said.items() if isinstance(value, str)}
    return texts if "os:usecase" in texts and len(texts) == len(said) else None


def _known(claim: object) -> frozenset[str] | None:
    """The permissions a token carries, if there are none among them that we do not know."""
    if not isinstance(claim, list):
        return None
    words = cast("list[object]", claim)
    found = frozenset(word for word in PERMISSIONS if word in words)
    return found if all(word in PERMISSIONS for word in words) else None


def check(grant: KeyGrant, place: Place, permission: Permission) -> None:
    """Raise Forbidden unless token and key both reach this place and carry the permission."""
    scopes = namespaces.parse_scopes(place.scopes)
    if grant.use_case is not None:
        said = all(grant.scopes.get(name) == value for name, value in scopes)
        if grant.use_case != place.use_case or not said:
            raise Forbidden("The token is for another use case or for other scopes.")
    if not any(namespaces.matches(pattern, scopes) for pattern in grant.key.scopes):
        raise Forbidden("The key that signed this is not registered for these scopes.")
    if permission not in grant.permissions:
        raise Forbidden(f"This needs {permission}, which the token or its key does not carry.")


# --- Pre-signed addresses ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signed:
    """The signed parts of an address, read but not yet believed."""

    kid: str
    signature: bytes
    text: bytes
    begins_at: datetime
    lasts: timedelta


def is_signed(query: str) -> bool:
    """Whether a raw query carries a signature, which then alone counts."""
    return any(pair.partition("=")[0] == SIGNATURE for pair in query.split("&"))


def read_signed(method: str, path: str, query: str) -> Signed:
    """Read a pre-signed request from its raw path and query, still percent-encoded. Raises Forbidden for a method that
    cannot be signed and Invalid for parameters that are missing or make no sense."""
    if method not in ("GET", "HEAD"):
        raise Forbidden("A pre-signed address is for GET and HEAD only.")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    said = {name.lower(): unquote(value) for name, _, value in pairs}
    canonical = sorted(f"{name.lower()}{equals}{value}" for name, equals, value in pairs if name.lower() != SIGNATURE)
    try:
        seconds = int(said[_LASTS])
        begins_at = datetime.fromisoformat(said[_SIGNED_AT])
        encoded = said[SIGNATURE]
        signature = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        kid = said[_SIGNED_BY]
    except (KeyError, ValueError, binascii.Error):
        names = f"{_SIGNED_BY}, {_SIGNED_AT}, {_LASTS} and {SIGNATURE}"
        raise Invalid(f"A pre-signed address needs {names} as its client wrote them.") from None
    if begins_at.tzinfo is None or not 0 <= seconds <= LONGEST_SIGNATURE.total_seconds():
        raise Invalid(f"{_SIGNED_AT} needs a time zone, and {_LASTS} at most {LONGEST_SIGNATURE.days} days in seconds.")
    text = f"GET\n{path}\n{'&'.join(canonical)}".encode()
    return Signed(kid, signature, text, begins_at, timedelta(seconds=seconds))


def accept(signed: Signed, key: RegisteredKey, now: datetime) -> KeyGrant:
    """What a pre-signed request may do: read at its own address, within the key's reach. Raises Unauthenticated."""
    wrong = Unauthenticated("The signature of this address is wrong, or its time is over; ask for a new address.")
    public = load_pem_public_key(key.public_pem.encode())
    if not isinstance(public, Ed25519PublicKey):
        raise wrong
    try:
        public.verify(signed.signature, signed.text)
    except InvalidSignature:
        raise wrong from None
    if not -LEEWAY <= now - signed.begins_at <= signed.lasts:
        raise wrong
    return KeyGrant(key, frozenset({"object.read"}) & frozenset(key.permissions), None, {})

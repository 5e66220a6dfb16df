"""The one row about this installation, and its signing keys.

No key ever leaves here but to the room that signs with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.receipt import Keeps

Purpose = Literal["receipt", "upload"]


@dataclass(frozen=True, slots=True)
class Installation:
    id: UUID
    epoch: int
    protocol: int
    address: str | None


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    private_pem: str
    public_pem: str


def find(tx: Tx) -> Installation | None:
    return rows.one(tx, Installation, "SELECT id, epoch, protocol, address FROM installation")


def found(tx: Tx, installation_id: UUID, epoch: int, protocol: int, first_number: int, now: datetime) -> None:
    """Write the installation row and let artifact numbers begin at `first_number`."""
    rows.run(
        tx,
        "INSERT INTO installation (id, epoch, protocol, created_at) VALUES (%(id)s, %(epoch)s, %(protocol)s, %(now)s)",
        {"id": installation_id, "epoch": epoch, "protocol": protocol, "now": now},
    )
    rows.run(tx, "SELECT setval('artifact_number', %(first)s, false)", {"first": first_number})


def store_keeps(tx: Tx) -> Keeps:
    """What the store was last seen to keep of removed objects."""
    return cast("Keeps", rows.value(tx, str, "SELECT store_keeps FROM installation") or "unknown")


def note_store_keeps(tx: Tx, keeps: Keeps) -> bool:
    """Remember what a probe has seen. True if it is news."""
    return bool(
        rows.run(
            tx,
            "UPDATE installation SET store_keeps = %(keeps)s WHERE store_keeps <> %(keeps)s",
            {"keeps": keeps},
        )
    )


# --- Whether rules may delete ----------------------------------------------------------------------------------------


def retention_paused_for(tx: Tx) -> str | None:
    """Why no rule deletes anything now; None if rules work."""
    return rows.value(tx, str, "SELECT retention_paused_for FROM installation")


def retention_is_paused(tx: Tx) -> bool:
    """Whether rules delete nothing until somebody confirms them."""
    return retention_paused_for(tx) is not None


def pause_retention(tx: Tx, reason: str) -> None:
    """Let no rule delete anything until somebody confirms it; `reason` is a sentence shown to whoever asks why."""
    rows.run(tx, "UPDATE installation SET retention_paused_for = %(reason)s", {"reason": reason})


def confirm_retention(tx: Tx) -> bool:
    """Let rules work. False if they did already."""
    return bool(
        rows.run(tx, "UPDATE installation SET retention_paused_for = NULL WHERE retention_paused_for IS NOT NULL")
    )


def has_objects(tx: Tx) -> bool:
    """Whether anything was ever stored, condemned or deleted here."""
    return bool(
        rows.value(
            tx,
            bool,
            """
            SELECT EXISTS (SELECT FROM blob) OR EXISTS (SELECT FROM tombstone) OR EXISTS (SELECT FROM deletion)
            """,
        )
    )


def lock(tx: Tx) -> None:
    """Let one process at a time look whether the installation is founded, and found it."""
    rows.run(tx, "SELECT pg_advisory_xact_lock(3, 0)")


def remember_address(tx: Tx, address: str) -> None:
    rows.run(tx, "UPDATE installation SET address = %(address)s", {"address": address})


def add_key(tx: Tx, purpose: Purpose, key: SigningKey, now: datetime) -> None:
    rows.run(
        tx,
        """
        INSERT INTO signing_key (kid, purpose, private_pem, public_pem, created_at)
        VALUES (%(kid)s, %(purpose)s, %(private)s, %(public)s, %(now)s)
        """,
        {"kid": key.kid, "purpose": purpose, "private": key.private_pem, "public": key.public_pem, "now": now},
    )


def newest_key(tx: Tx, purpose: Purpose) -> SigningKey | None:
    return rows.one(
        tx,
        SigningKey,
        """
        SELECT kid, private_pem, public_pem FROM signing_key
         WHERE purpose = %(purpose)s ORDER BY created_at DESC LIMIT 1
        """,
        {"purpose": purpose},
    )


def public_pem(tx: Tx, purpose: Purpose, kid: str) -> str | None:
    return rows.value(
        tx,
        str,
        "SELECT public_pem FROM signing_key WHERE purpose = %(purpose)s AND kid = %(kid)s",
        {"purpose": purpose, "kid": kid},
    )

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
from snapshed.domain import ids
from snapshed.domain.receipt import Keeps

Purpose = Literal["receipt", "upload"]


@dataclass(frozen=True, slots=True)
class Installation:
    id: UUID
    epoch: int
    protocol: int
    address: str | None
    recovering: bool
    mark: int = 0


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    private_pem: str
    public_pem: str


def find(tx: Tx) -> Installation | None:
    return rows.one(tx, Installation, "SELECT id, epoch, protocol, address, recovering, mark FROM installation")


def found(tx: Tx, installation_id: UUID, epoch: int, protocol: int, first_number: int, now: datetime) -> None:
    """Write the installation row and let artifact numbers begin at `first_number`."""
    rows.run(
        tx,
        "INSERT INTO installation (id, epoch, protocol, created_at) VALUES (%(id)s, %(epoch)s, %(protocol)s, %(now)s)",
        {"id": installation_id, "epoch": epoch, "protocol": protocol, "now": now},
    )
    rows.run(tx, "SELECT setval('artifact_number', %(first)s, false)", {"first": first_number})


def take_over(tx: Tx, installation_id: UUID, epoch: int, protocol: int, why: str, now: datetime) -> None:
    """Begin to recover under a new epoch: until `recovered`, nobody else may open this database. Numbers and ids of rows
    begin above everything that an earlier epoch can have issued. No rule deletes
    anything, and `why` says so, until a person confirms what came back."""
    rows.run(
        tx,
        """
        INSERT INTO installation (id, epoch, protocol, created_at, recovering, retention_paused_for)
        VALUES (%(id)s, %(epoch)s, %(protocol)s, %(now)s, true, %(why)s)
            ON CONFLICT (only_one) DO UPDATE
                    SET epoch = excluded.epoch, recovering = true, retention_paused_for = excluded.retention_paused_for
        """,
        {"id": installation_id, "epoch": epoch, "protocol": protocol, "now": now, "why": why},
    )
    rows.run(
        tx,
        """
        SELECT setval('artifact_number', %(number)s, false),
               setval(pg_get_serial_sequence('org', 'id'), %(row)s, false),
               setval(pg_get_serial_sequence('project', 'id'), %(row)s, false),
               setval(pg_get_serial_sequence('token', 'id'), %(row)s, false)
        """,
        {"number": ids.first_number(epoch), "row": ids.first_row(epoch)},
    )


def raise_mark(tx: Tx) -> int | None:
    """Raise the mark if numbers were issued or deletions asked for since it last rose. Returns it then."""
    return rows.value(
        tx,
        int,
        """
        UPDATE installation i SET mark = i.mark + 1, marked_at_state = n.state
          -- The first number of a sequence is its last one before it was drawn, too.
          FROM (SELECT (SELECT concat_ws(' ', last_value, is_called) FROM artifact_number) || ' ' ||
                       (SELECT concat_ws(' ', last_value, is_called) FROM deletion_seq_seq) AS state) n
         WHERE i.marked_at_state <> n.state
        RETURNING i.mark
        """,
    )


def begin_recovery(tx: Tx) -> None:
    """Close the database to everybody until it is recovered."""
    rows.run(tx, "UPDATE installation SET recovering = true")


def recovered(tx: Tx) -> None:
    """Open the database to everybody again."""
    rows.run(tx, "UPDATE installation SET recovering = false")


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
         WHERE purpose = %(purpose)s AND private_pem IS NOT NULL ORDER BY created_at DESC LIMIT 1
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


@dataclass(frozen=True, slots=True)
class PublicKey:
    kid: str
    public_pem: str


def public_keys(tx: Tx, purpose: Purpose) -> list[PublicKey]:
    """Every public key of a purpose, the newest first."""
    return rows.many(
        tx,
        PublicKey,
        "SELECT kid, public_pem FROM signing_key WHERE purpose = %(purpose)s ORDER BY created_at DESC, kid DESC",
        {"purpose": purpose},
    )


def add_public_key(tx: Tx, purpose: Purpose, key: PublicKey) -> None:
    """Keep the public half of a key whose private half is lost, so that what it signed can be checked."""
    rows.run(
        tx,
        """
        INSERT INTO signing_key (kid, purpose, public_pem, created_at)
        VALUES (%(kid)s, %(purpose)s, %(public)s, '-infinity') ON CONFLICT (kid) DO NOTHING
        """,
        {"kid": key.kid, "purpose": purpose, "public": key.public_pem},
    )

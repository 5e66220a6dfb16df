"""Level 0: the rows alone, and objects that are marked as lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from snapshed.blobs import Store
from snapshed.db import invariants, lost
from snapshed.db.invariants import Breach
from snapshed.db.lost import Lost
from snapshed.domain.disagreement import Disagreement, Kind
from snapshed.resources import Resources

IDLE = timedelta(hours=1)
"""Work that waited so long is waited for in vain: workers look every second."""

_PAGE = 1000
_FIRST = UUID(int=0)


def breaches(resources: Resources) -> Iterator[Disagreement]:
    """Every statement about rows that is broken, and whatever nobody has worked on for an hour."""
    since = resources.now() - IDLE
    with resources.database.transaction() as tx:
        found: list[tuple[Kind, list[Breach], str]] = [
            ("unowned-row", invariants.unowned(tx), "no row names this {0} and none is queued to remove it"),
            ("named-before-stored", invariants.referenced_pending(tx), "a row names this {0}, which was never stored"),
            ("stuck-announcement", invariants.stuck(tx, since), "this {0} was announced and its maker is gone"),
            ("stale-pin", invariants.stale_pins(tx), "this upload session is {0} and still holds images"),
            ("idle-work", invariants.idle_candidates(tx, since), "waits for {0} for more than an hour: run a worker"),
            ("idle-work", invariants.idle_tombstones(tx, since), "waits for {0} for more than an hour: run a worker"),
            ("idle-work", invariants.idle_sessions(tx, since), "waits for {0} for more than an hour: run a worker"),
            ("idle-work", invariants.idle_objects(tx, since), "waits for {0} for more than an hour: run a worker"),
            (
                "unjournaled-deletion",
                invariants.unjournaled(tx, since),
                "asked for by {0} and not in the store's journal yet: run a worker, and see that the store can be written",
            ),
            (
                "unbalanced-receipt",
                invariants.unbalanced(tx),
                "the signed receipt and the rows count the {0}s differently",
            ),
            ("broken-receipt", invariants.broken_receipts(tx), "said to be complete, and {0} it took still stands"),
        ]
    for kind, broken, sentence in found:
        for breach in broken:
            yield Disagreement(kind, breach.key, _advice(kind, sentence.format(breach.detail)), about=breach.about)


def _advice(kind: Kind, sentence: str) -> str:
    match kind:
        case "unowned-row" | "stuck-announcement" | "stale-pin":
            return f"{sentence}; mend it with --repair"
        case "named-before-stored" | "unbalanced-receipt" | "broken-receipt":
            return f"{sentence}; nothing mends this, please report it"
        case _:
            return sentence


def lost_objects(resources: Resources, *, look: bool) -> Iterator[Disagreement]:
    """Objects marked as lost that something still names; with `look`, those whose bytes are back are told apart."""
    after = _FIRST
    while True:
        with resources.database.transaction() as tx:
            page = lost.page_after(tx, after, _PAGE)
            suffering = lost.suffering(tx, [row.id for row in page])
        if not page:
            return
        for row in page:
            if look and is_whole(resources.store, row):
                advice = f"the {row.kind} was marked as lost, and its bytes are back; --repair takes the mark away"
                kind: Kind = "found-again"
            else:
                advice, kind = f"the {row.kind} is lost; {remedy(row.kind)}", "lost"
            yield Disagreement(kind, row.storage_key, advice, suffering.get(row.id, ()), row.id)
        after = page[-1].id


def remedy(kind: str) -> str:
    """What makes an object whole again once it is marked as lost."""
    match kind:
        case "image":
            return "the next upload of the same image heals it"
        case "file":
            return "upload the file again and delete what names this one"
        case _:
            return "--repair makes it anew where the rows hold everything"


def is_whole(store: Store, row: Lost) -> bool:
    """Whether the store has exactly the bytes this row speaks of."""
    found = store.head(row.storage_key)
    if found is None or found.size != row.size:
        return False
    return digest_of(store, row.storage_key) == row.digest


def digest_of(store: Store, key: str) -> str | None:
    """The SHA-256 of what the store has under a key, or None if it has nothing."""
    pieces = store.stream(key)
    if pieces is None:
        return None
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()

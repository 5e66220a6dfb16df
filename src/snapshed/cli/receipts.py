"""Deletions as a client asks for them, and receipts as people read them.

A receipt is shown as the server wrote it; nothing is added up anew.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from snapshed.cli.http import Document, Server, inner, items
from snapshed.cli.terminal import Output, counted, printable, sized
from snapshed.cli.waiting import patiently
from snapshed.errors import Invalid

_POLL_SECONDS = 0.5
_COLUMNS = ("released", "removed", "kept_shared", "kept_pinned", "waiting")
_HEADER = ("", "released", "removed", "kept, shared", "kept, pinned", "waiting")
_PREVIEW = ("", "released", "removed", "kept, shared", "kept, pinned", "would go")


# --- Asking ----------------------------------------------------------------------------------------------------------


def preview(server: Server, numbers: Sequence[str], reason: str | None, *, urgent: bool) -> Document:
    """What deleting these snapshots would let go of; nothing is deleted."""
    return server.post("deletions/", {**_target(numbers, reason, urgent=urgent), "dry_run": True})


def delete(
    server: Server, numbers: Sequence[str], reason: str | None, *, urgent: bool, plan: str | None = None
) -> Document:
    """Delete these snapshots, or with `plan` exactly what a preview showed, and return the receipt."""
    fields = _target(numbers, reason, urgent=urgent) | ({"plan": plan} if plan else {})
    # The request may be repeated after a lost answer; its id makes that the same deletion.
    return server.post("deletions/", fields | {"request_id": str(uuid.uuid4())})


def _target(numbers: Sequence[str], reason: str | None, *, urgent: bool) -> dict[str, object]:
    for number in numbers:
        if not number.isascii() or not number.isdigit():
            raise Invalid(f"{printable(number)!r} is no snapshot; a snapshot is a number, such as 12.")
    fields: dict[str, object] = {"snapshots": list(numbers)}
    if reason is not None:
        fields["reason"] = reason
    if urgent:
        fields["urgent"] = True
    return fields


def find(server: Server, deletion: str) -> Document:
    """A deletion's receipt as it stands now. Raises NotFound."""
    return server.get(f"deletions/{_id(deletion)}/")


def verify(server: Server, deletion: str) -> Document:
    """The server's word on the signature, and the store's on every object that is said to be gone."""
    return server.get(f"deletions/{_id(deletion)}/verification")


def _id(deletion: str) -> str:
    try:
        return str(uuid.UUID(deletion))
    except ValueError:
        raise Invalid(f"{printable(deletion)!r} is no deletion's id; `snapshed delete` prints it.") from None


def complete(server: Server, receipt: Document, output: Output) -> Document:
    """Ask until the receipt says complete; what holds it up is told meanwhile."""
    deletion = str(receipt["id"])
    if receipt.get("state") == "complete":
        return receipt
    with output.waiting(_standing(receipt)) as tell:
        while receipt.get("state") != "complete":
            tell(_standing(receipt))
            time.sleep(_POLL_SECONDS)
            receipt = patiently(lambda: find(server, deletion), output)
    return receipt


def _standing(receipt: Document) -> str:
    return " ".join(["The deletion is not complete yet.", *holding(receipt)])


# --- Reading ---------------------------------------------------------------------------------------------------------


def holding(receipt: Document) -> list[str]:
    """A sentence for everything that keeps a deletion from being complete and is not just under way."""
    found: list[str] = []
    if receipt.get("pins_end_at"):
        found.append(
            "An upload in progress was promised some of its images; they go when it ends, "
            f"at {receipt['pins_end_at']} at the latest. An urgent deletion would end it now."
        )
    found += [
        f"The store has not removed some objects of kind {failure.get('kind')} ({failure.get('class')}, "
        f"{counted(int(failure.get('attempts') or 0), 'attempt')}); the next attempt is at "
        f"{failure.get('next_attempt_at')}."
        for failure in items(receipt, "failures")
    ]
    if receipt.get("state") == "removing" and not receipt.get("journaled_at"):
        found.append("The store could not be reached to journal it; the deletion holds, and that is tried again.")
    return found


def show(receipt: Document, output: Output) -> None:
    """The whole receipt for people: what it is about, a table of what became of it, and when."""
    is_preview = receipt.get("state") == "preview"
    numbers = [str(number) for number in items(receipt, "snapshots")]
    what = f"{counted(len(numbers), 'snapshot')} ({', '.join(numbers[:20])}{', …' if len(numbers) > 20 else ''})"
    if is_preview:
        output.say(f"Preview: deleting {what} would let go of the following. Nothing has been deleted.")
    else:
        state = "complete" if receipt.get("state") == "complete" else "not complete yet"
        output.say(f"Deletion {receipt.get('id')} of {what} is {state}.")
        output.say(f"Asked for by {receipt.get('requested_by')} at {receipt.get('requested_at')}.")
    if receipt.get("reason"):
        output.say(f"Reason: {receipt['reason']}")
    output.say()
    output.table(_PREVIEW if is_preview else _HEADER, _rows(receipt))
    output.say()
    _say_rest(receipt, output, is_preview=is_preview)


def _rows(receipt: Document) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for kind, counts in inner(receipt, "objects").items():
        if counts.get("released"):
            rows.append((f"{kind}s", *(f"{counts.get(column, 0):,}" for column in _COLUMNS)))
    traces = inner(receipt, "traces")
    if traces.get("released"):
        rows.append(("trace rows", *(f"{traces[name]:,}" if name in traces else "" for name in _COLUMNS)))
    sizes = inner(receipt, "bytes")
    rows.append(("bytes", *(sized(sizes[name]) if name in sizes else "" for name in _COLUMNS)))
    return rows


def _say_rest(receipt: Document, output: Output, *, is_preview: bool) -> None:
    rows = [counted(count, name.replace("_", " ")[:-1]) for name, count in inner(receipt, "rows").items() if count]
    if rows:
        output.say(f"Database rows{' that would go' if is_preview else ''}: {', '.join(rows)}.")
    if is_preview:
        output.say(f"Plan {receipt.get('plan')}")
        return
    moments = [("journaled", "journaled_at"), ("completed", "completed_at"), ("verified", "verified_at")]
    told = [f"{word} {receipt[name]}" for word, name in moments if receipt.get(name)]
    if told:
        line = ", ".join(told)
        output.say(f"{line[0].upper()}{line[1:]}.")
    for sentence in holding(receipt):
        output.say(sentence)
    if receipt.get("signature"):
        output.say(f"Signature: {receipt['signature']}")
    for sentence in items(receipt, "scope"):
        output.say(str(sentence))

"""Waiting for a verdict: what a snapshot's details say in words, and which exit code a gate makes of them.

Nothing is decided here; the server's word is passed on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from snapshed.cli.http import Document, Server, inner
from snapshed.cli.terminal import Output, printable
from snapshed.errors import Invalid, Unavailable

CATEGORIES = ("changed", "added", "removed", "renamed", "errored", "unchanged", "skipped")
_POLL_SECONDS = 1.0
_FIRST_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0
"""How long a server may be away, to be started again for instance, before waiting for it makes no sense."""

# | verdict           | exit | because                                       |
# | passed, approved  | 0    | no change that nobody approved                |
# | no_base           | 0    | there is nothing to compare with, and it says so |
# | changed, rejected | 1    | a person has to look, or has said no          |
# | failed            | 2    | nobody knows                                  |
EXIT = {"passed": 0, "approved": 0, "no_base": 0, "changed": 1, "rejected": 1, "failed": 2}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How waiting ended."""

    number: str
    verdict: str
    counts: dict[str, int]
    url: str

    @property
    def exit_code(self) -> int:
        """What a gate makes of the verdict."""
        return EXIT.get(self.verdict, 2)

    @property
    def document(self) -> dict[str, object]:
        """The outcome for programs."""
        return {"snapshot": self.number, "verdict": self.verdict, "counts": self.counts, "url": self.url}


def number_of(text: str) -> str:
    """A snapshot's number as it was typed. Raises Invalid for anything else."""
    if not text.isascii() or not text.isdigit():
        raise Invalid(f"{printable(text)!r} is no snapshot; a snapshot is a number, such as 12.")
    return text


def details(server: Server, number: str, *, compact: bool = False) -> Document:
    """What the server knows of a snapshot. Raises NotFound."""
    number_of(number)
    query = {"compact_metadata": "1"} if compact else {}
    return server.get(f"preprodartifacts/snapshots/{number}/", **query)


def newest_of_commit(server: Server, head_sha: str, app_id: str | None) -> str:
    """The number of the newest snapshot of a commit. Raises NotFound."""
    query = {"head_sha": head_sha} | ({"app_id": app_id} if app_id else {})
    return str(server.get("preprodartifacts/snapshots/by-commit/", **query).get("head_artifact_id"))


def verdict(server: Server, number: str, seconds: float, output: Output) -> Outcome:
    """Ask every second until there is a verdict. Raises Unavailable when the time is over."""
    deadline = time.monotonic() + seconds
    known = details(server, number, compact=True)
    pause = _FIRST_SECONDS
    with output.waiting(_standing(number, known)) as tell:
        while known.get("verdict") == "pending":
            if time.monotonic() + pause > deadline:
                raise Unavailable(f"{_standing(number, known)} The time to wait is over; try again later.")
            time.sleep(pause)
            pause = _POLL_SECONDS
            known = patiently(lambda: details(server, number, compact=True), output)
            if known.get("verdict") == "pending":
                tell(_standing(number, known))
    counts = {category: int(known.get(f"{category}_count") or 0) for category in CATEGORIES}
    return Outcome(number, str(known.get("verdict")), counts, server.page(number))


def patiently(ask: Callable[[], Document], output: Output) -> Document:
    """Ask, again and again while the server is away for a moment. Raises Unavailable when it is away for long."""
    away_until = time.monotonic() + _PATIENCE_SECONDS
    warned = False
    while True:
        try:
            return ask()
        except Unavailable as error:
            if time.monotonic() > away_until:
                raise
            if not warned:
                output.warn(f"{error} Still trying.")
                warned = True
            time.sleep(_POLL_SECONDS)


def _standing(number: str, known: Document) -> str:
    """Why there is no verdict yet."""
    if known.get("comparison_state") == "waiting_for_base":
        base = str(inner(known, "vcs_info").get("base_sha") or "")
        return f"Snapshot {number} waits for a snapshot of its base, commit {base[:12]}."
    return f"Snapshot {number} is being compared with its base."


def sentence(outcome: Outcome) -> str:
    """The verdict for people, with what it rests on."""
    what = f"Snapshot {outcome.number}"
    found = [f"{outcome.counts[name]:,} {name}" for name in CATEGORIES if outcome.counts.get(name)]
    details = f": {', '.join(found)}" if found else ""
    match outcome.verdict:
        case "passed":
            return f"{what} passed{details}."
        case "approved":
            return f"{what} is approved{details}."
        case "no_base":
            return f"{what} has no base, so there is nothing to compare it with."
        case "changed":
            return f"{what} has changes that need review{details}."
        case "rejected":
            return f"{what} was rejected{details}."
        case "failed":
            return f"{what} could not be compared{details}."
        case other:
            return f"{what} is {printable(other)}{details}."

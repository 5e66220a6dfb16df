"""What reconcile may find, in the words of its command, and how much may be mended without asking a person. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Level = Literal[0, 1, 2]
"""0: rows only. 1: rows, listing and trace rows. 2: every object read as well."""

Kind = Literal[
    # Rows alone.
    "unowned-row",
    "named-before-stored",
    "stuck-announcement",
    "stale-pin",
    "idle-work",
    "unjournaled-deletion",
    "unbalanced-receipt",
    "broken-receipt",
    "lost",
    # Rows and objects.
    "orphan",
    "foreign",
    "half-written",
    "wrong-size",
    "found-again",
    "unlisted",
    # Bytes and content.
    "altered",
    "edited",
    "contradicting",
    # Rows and traces.
    "stray-trace",
    "missing-trace",
]

DAMAGES: tuple[Kind, ...] = ("lost", "wrong-size", "altered", "edited")
"""Kinds that say that an object's bytes are not what its row says."""

_FEWEST = 20
_MOST = 1000
_SHARE = 100


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One thing that is not as it should be: its kind, the key it is about, what to do, and the numbers of the live
    snapshots and builds that suffer. `about` is the id of the row concerned, for whoever mends it."""

    kind: Kind
    key: str
    advice: str
    snapshots: tuple[int, ...] = ()
    about: UUID | None = None


@dataclass(frozen=True, slots=True)
class Mended:
    """One thing that was mended, and how."""

    kind: Kind
    key: str
    done: str


def most_unasked(objects: int) -> int:
    """How many of so many stored objects may be taken for orphans, or for damaged, without a person's word: one in a
    hundred, at least 20 and at most 1,000. More than that is rather the wrong database or store, or a lying listing.

    >>> most_unasked(10), most_unasked(5_000), most_unasked(1_000_000)
    (20, 50, 1000)
    """
    return max(_FEWEST, min(_MOST, objects // _SHARE))

"""What clients were told so far, in plain sets and dictionaries. Knows nothing of how the product works.

An image is called by its digest, a snapshot by its public number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from property.beats import Run

from snapshed.ledger import ForSession


@dataclass
class Session:
    """`promised` was answered to its client; `touched` may be pinned besides, by requests nobody heard the end of."""

    owner: ForSession
    ends_at: datetime
    promised: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    may_have_stored: set[str] = field(default_factory=set)
    is_over: bool = False
    is_doubtful: bool = False
    """An urgent deletion may have cancelled it, or may do so any moment."""


@dataclass
class Request:
    """One create request, which a client may send any number of times."""

    body: bytes
    images: dict[str, str]
    session_id: UUID | None
    made: dict[int, datetime] = field(default_factory=dict)
    """The snapshots it made and when; more than one only if it was answered with another session later."""


@dataclass
class Snapshot:
    request: Request
    private: set[UUID] = field(default_factory=set)
    is_gone: bool = False

    @property
    def images(self) -> dict[str, str]:
        return self.request.images


@dataclass
class Deletion:
    numbers: set[int]
    is_urgent: bool
    takes: set[str]
    """The storage keys of everything its targets had, as the rows stood when it marked them."""
    is_complete: bool = False


@dataclass
class Action:
    """One verb that was begun, and what was true meanwhile."""

    name: str
    run: Run
    named_always: set[str]
    named_ever: set[str]
    gone_before: set[int]
    weather_was_fair: bool = True
    was_frozen: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


class History:
    def __init__(self) -> None:
        self.sessions: dict[UUID, Session] = {}
        self.requests: list[Request] = []
        self.snapshots: dict[int, Snapshot] = {}
        self.deletions: dict[UUID, Deletion] = {}
        self.order_ids: dict[str, UUID] = {}
        self.frozen: list[Action] = []
        self.takes: dict[int, set[str]] = {}
        """What each snapshot would take with it, as the rows stood before the last request to delete."""

    def live(self) -> dict[int, Snapshot]:
        return {number: snapshot for number, snapshot in self.snapshots.items() if not snapshot.is_gone}

    def gone(self) -> set[int]:
        return self.snapshots.keys() - self.live().keys()

    def named(self) -> set[str]:
        """The images that a live snapshot names."""
        return {image for snapshot in self.live().values() for image in snapshot.images.values()}

    def open_sessions(self) -> list[Session]:
        return [session for session in self.sessions.values() if not session.is_over]

    def surely_open(self, now: datetime) -> list[Session]:
        """Those sessions whose promises must hold at this moment."""
        return [item for item in self.open_sessions() if not item.is_doubtful and now < item.ends_at]

    def doubt_sessions(self) -> None:
        """An urgent deletion may end whoever pins what it released."""
        for deletion in self.deletions.values():
            if deletion.is_urgent and not deletion.is_complete:
                wanted = {image for number in deletion.numbers for image in self.snapshots[number].images.values()}
                for session in self.sessions.values():
                    session.is_doubtful |= bool(wanted & session.touched)

    def time_goes_on(self, *, weather_is_fair: bool) -> None:
        """Tell the frozen ones what has become true or untrue meanwhile."""
        named = self.named()
        for action in self.frozen:
            action.named_always &= named
            action.named_ever |= named
            action.weather_was_fair &= weather_is_fair

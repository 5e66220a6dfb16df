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
class Artifact:
    """A snapshot, or with no request a build."""

    request: Request | None
    private: set[UUID] = field(default_factory=set)
    """Its manifests, reports, masks and files."""
    withdrawn: set[str] = field(default_factory=set)
    is_held: bool = False
    is_gone: bool = False

    @property
    def names(self) -> dict[str, str]:
        """What was uploaded under which name, withdrawn or not."""
        return self.request.images if self.request else {}

    @property
    def images(self) -> set[str]:
        """What can be seen of it."""
        return set(self.names.values()) - self.withdrawn


@dataclass
class Deletion:
    numbers: set[int]
    images: set[str]
    """What an urgent one may end upload sessions for."""
    takes: set[str]
    """The storage keys of everything its targets had, as the rows stood when it marked them."""
    is_urgent: bool
    is_withdrawal: bool
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
        self.artifacts: dict[int, Artifact] = {}
        self.deletions: dict[UUID, Deletion] = {}
        self.order_ids: dict[str, UUID] = {}
        self.frozen: list[Action] = []
        self.takes: dict[int | str, set[str]] = {}
        """What each artifact and each image would take with it, as the rows stood before the last order to delete."""

    def live(self) -> dict[int, Artifact]:
        return {number: artifact for number, artifact in self.artifacts.items() if not artifact.is_gone}

    def gone(self) -> set[int]:
        return self.artifacts.keys() - self.live().keys()

    def snapshots(self) -> dict[int, Artifact]:
        """The live artifacts that are snapshots."""
        return {number: artifact for number, artifact in self.live().items() if artifact.request}

    def held(self) -> set[int]:
        return {number for number, artifact in self.live().items() if artifact.is_held}

    def free(self) -> set[int]:
        return self.live().keys() - self.held()

    def naming(self, image: str) -> set[int]:
        """The live snapshots that show an image."""
        return {number for number, artifact in self.live().items() if image in artifact.images}

    def named(self) -> set[str]:
        """The images that a live snapshot shows."""
        return {image for artifact in self.live().values() for image in artifact.images}

    def open_sessions(self) -> list[Session]:
        return [session for session in self.sessions.values() if not session.is_over]

    def surely_open(self, now: datetime) -> list[Session]:
        """Those sessions whose promises must hold at this moment."""
        return [item for item in self.open_sessions() if not item.is_doubtful and now < item.ends_at]

    def doubt_sessions(self) -> None:
        """An urgent deletion may end whoever pins what it released."""
        for deletion in self.deletions.values():
            if deletion.is_urgent and not deletion.is_complete:
                for session in self.sessions.values():
                    session.is_doubtful |= bool(deletion.images & session.touched)

    def time_goes_on(self, *, weather_is_fair: bool) -> None:
        """Tell the frozen ones what has become true or untrue meanwhile."""
        named = self.named()
        for action in self.frozen:
            action.named_always &= named
            action.named_ever |= named
            action.weather_was_fair &= weather_is_fair

"""Everything that can go wrong, in three branches, because there are three answers to "what now?".

    SnapshedError
    ├── Refused       tell the caller; trying the same again will not help
    │   ├── Invalid · TooLarge · Unsupported
    │   ├── Unauthenticated · Forbidden · NotFound
    │   └── Conflict (MissingImages, SessionOver, OwnerGone, Held, PlanChanged)
    ├── Unavailable   try again later
    │   ├── DatabaseUnavailable · StoreUnavailable · Busy
    └── Broken        a promise does not hold: stop, keep everything, call a person
        └── Behind

An error carries fields and builds its own sentence. No error knows about HTTP or exit codes: those tables are in
`problems` and `cli`.
"""

from __future__ import annotations


class SnapshedError(Exception):
    """The root. `code` is stable and documented; `str(error)` is one plain sentence for a person."""

    code = "error"


# --- Refused -----------------------------------------------------------------------------------


class Refused(SnapshedError):
    """The request cannot be carried out as asked; repeating it changes nothing."""

    code = "refused"


class Invalid(Refused):
    """The input breaks a rule; the sentence names the field, the limit and what to do."""

    code = "invalid"


class TooLarge(Refused):
    """The input is larger than a limit allows."""

    code = "too-large"


class Unsupported(Refused):
    """A feature of a protocol that this server declines on purpose."""

    code = "unsupported"


class Unauthenticated(Refused):
    """Nobody we know is asking."""

    code = "unauthenticated"


class Forbidden(Refused):
    """We know who is asking, and they may not."""

    code = "forbidden"


class NotFound(Refused):
    """The thing is absent, or belongs to somebody else; the two look the same on purpose."""

    code = "not-found"


class Conflict(Refused):
    """The present state of things does not allow it."""

    code = "conflict"


class MissingImages(Conflict):
    """A manifest names images that the store does not hold for this caller."""

    code = "missing-images"

    def __init__(self, digests: list[str]) -> None:
        self.digests = digests
        count = len(digests)
        noun = "image is" if count == 1 else "images are"
        super().__init__(
            f"{count} {noun} named in the manifest but not stored; upload {'it' if count == 1 else 'them'} "
            f"in the same session and create the snapshot again."
        )


class SessionOver(Conflict):
    """The upload session has ended, so nothing more can be stored in it."""

    code = "session-over"

    def __init__(self, state: str) -> None:
        self.state = state
        super().__init__(f"This upload session is {state}; ask for new upload options and upload again.")


class OwnerGone(Conflict):
    """What an object was being made for has been deleted meanwhile, so the work is cancelled, not failed."""

    code = "owner-gone"


class Held(Conflict):
    """A held snapshot is in the target, so nothing of the target is deleted."""

    code = "held"

    def __init__(self, number: int, reason: str) -> None:
        self.number = number
        self.reason = reason
        super().__init__(f"Snapshot {number} is held ({reason}); release the hold first. Nothing was deleted.")


class PlanChanged(Conflict):
    """What would be deleted is no longer what the preview showed."""

    code = "plan-changed"

    def __init__(self, plan: str, difference: dict[str, list[str]]) -> None:
        self.plan = plan
        self.difference = difference
        super().__init__("The target has changed since the preview; look at the new preview and confirm its plan.")


# --- Unavailable -------------------------------------------------------------------------------


class Unavailable(SnapshedError):
    """A part we depend on does not answer; the same request may work later."""

    code = "unavailable"


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    code = "database-unavailable"


class StoreUnavailable(Unavailable):
    """The object store does not answer, refuses, or is full."""

    code = "store-unavailable"


class Busy(Unavailable):
    """Somebody else holds what this needs."""

    code = "busy"


# --- Broken ------------------------------------------------------------------------------------


class Broken(SnapshedError):
    """A promise does not hold. Everything is kept and a person is needed."""

    code = "broken"


class Behind(Broken):
    """The database is older than the object store, and has not caught up yet."""

    code = "behind"

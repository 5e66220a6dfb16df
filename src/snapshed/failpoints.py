"""Named steps at which a test may kill, fail or delay a process, so that every crash can be rehearsed.

Nothing here does anything unless SNAPSHED_FAILPOINT is set, and an unknown name is refused at start.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass

from snapshed.errors import Invalid, SnapshedError

NAMES = (
    "upload.promised",
    "upload.announced",
    "upload.stored",
    "upload.finalised",
    "shard.kept",
    "snapshot.stored",
    "snapshot.committed",
    "comparison.stored",
    "comparison.committed",
    "deletion.marked",
    "deletion.journaled",
    "deletion.released",
    "condemn.committed",
    "removal.claimed",
    "removal.sent",
    "removal.confirmed",
    "session.expired",
    "receipt.closed",
    "hold.stored",
    "hold.committed",
    "rebuild.begun",
    "rebuild.filled",
    "rebuild.adopted",
)
"""Each is passed just after what it says; the crash table of ARCHITECTURE.md has a line for each."""


class Failed(SnapshedError):
    """What the action `raise` raises: a bug at that step, as far as the code around it can tell."""

    code = "failpoint"


@dataclass(slots=True)
class _Armed:
    action: str
    seconds: float
    passings_left: int


class Failpoints:
    """The armed steps of one process. Thread-safe; reaching an unarmed step costs one dictionary look-up."""

    def __init__(self, text: str | None = None) -> None:
        self._armed = _parse(text) if text else {}
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """Pass the step `name`: do what was asked for its N-th passing, once."""
        armed = self._armed.get(name)
        if armed is None:
            return
        with self._lock:
            armed.passings_left -= 1
            if armed.passings_left != 0:
                return
        sys.stderr.write(f"failpoint {name} {armed.action}\n")
        sys.stderr.flush()
        if armed.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif armed.action == "raise":
            raise Failed(f"The failpoint {name} was asked to raise.")
        else:
            time.sleep(armed.seconds)


def _parse(text: str) -> dict[str, _Armed]:
    armed: dict[str, _Armed] = {}
    for item in text.split(","):
        match = re.fullmatch(r"([a-z.]+)(?:@(\d+))?=(kill|raise|sleep:(\d+(?:\.\d+)?))", item.strip())
        if not match or match[1] not in NAMES or match[2] == "0":
            raise Invalid(
                f"SNAPSHED_FAILPOINT has {item.strip()!r}; it needs NAME[@N]=kill, raise or sleep:SECONDS, "
                f"and NAME is one of {', '.join(NAMES)}."
            )
        armed[match[1]] = _Armed(action=match[3], seconds=float(match[4] or 0), passings_left=int(match[2] or 1))
    return armed

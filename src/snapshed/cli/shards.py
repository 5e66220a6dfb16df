"""Uploading one shard of several, and waiting until the others are there too."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from snapshed.cli import transfer
from snapshed.cli.http import Document, Server, items
from snapshed.cli.images import Scan
from snapshed.cli.terminal import Output, counted, printable
from snapshed.cli.waiting import patiently
from snapshed.errors import Invalid, Refused, Unavailable

_SNAPSHOTS = "preprodartifacts/snapshots/"
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several jobs that make a snapshot together."""

    group: str
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Handed:
    """A shard whose part is handed in. `made` is the snapshot, once no other shard is missing."""

    made: transfer.Uploaded | None
    missing: list[int]
    already: int
    sent: int


def read(shard: str | None, group: str | None) -> Shard | None:
    """`2/5` and a group's key as a shard; None if neither is given. Raises Invalid."""
    if shard is None and group is None:
        return None
    if shard is None or not group:
        raise Invalid("--shard and --group go together: --shard 2/5 --group KEY, with the same key in all five jobs.")
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", shard, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise Invalid(f"{printable(shard)!r} is no shard; write the second of five as 2/5.")
    return Shard(group, int(match[1]), int(match[2]))


def upload(server: Server, project: str, shard: Shard, scan: Scan, body: bytes, output: Output) -> Handed:
    """Store every image that is not there yet and hand in this shard's part; the last one creates the snapshot."""
    place = transfer.open_session(server, project, group=shard.group, shards=str(shard.count))
    already, sent = transfer.store_missing(server, place, scan, output)
    path = f"{_SNAPSHOTS}shards/{shard.number}/"
    answer = server.put_to_project(project, path, body, place.headers)
    missing = [int(number) for number in items(answer, "missing")]
    if missing or not answer.get("artifactId"):
        output.say(f"Shard {shard.number} of {shard.count} is handed in; {waits_for(missing)}.")
        return Handed(None, missing, already, sent)
    made = transfer.created(server, answer, already, sent, output)
    return Handed(made, [], already, sent)


def waits_for(missing: list[int]) -> str:
    """Which shards are missing, in words.

    >>> waits_for([3]), waits_for([1, 4])
    ('shard 3 is missing', 'shards 1, 4 are missing')
    """
    if not missing:
        return "no shard is missing"
    numbers = ", ".join(map(str, missing))
    return f"shard {numbers} is missing" if len(missing) == 1 else f"shards {numbers} are missing"


def snapshot_of(server: Server, project: str, group: str, seconds: float, output: Output) -> str:
    """The number of the snapshot that a group makes, once it is made. Raises NotFound, Refused when the group ended
    without one, and Unavailable when the time is over."""
    deadline = time.monotonic() + seconds
    found = _group(server, project, group)
    with output.waiting(_standing(found)) as tell:
        while found.get("state") == "open":
            if time.monotonic() + _POLL_SECONDS > deadline:
                raise Unavailable(f"{_standing(found)} The time to wait is over; try again later.")
            time.sleep(_POLL_SECONDS)
            found = patiently(lambda: _group(server, project, group), output)
            if found.get("state") == "open":
                tell(_standing(found))
    if not found.get("artifactId"):
        missing = [int(number) for number in items(found, "missing")]
        what = "its snapshot has been deleted" if found.get("state") == "committed" else waits_for(missing)
        raise Refused(f"Group {printable(group)} has ended, and {what}; nothing is left to wait for.")
    return str(found["artifactId"])


def _group(server: Server, project: str, group: str) -> Document:
    return server.get_of_project(project, f"{_SNAPSHOTS}group/", key=group)


def _standing(found: Document) -> str:
    missing = [int(number) for number in items(found, "missing")]
    count = counted(int(found.get("shards") or 0), "shard")
    return f"Group {printable(str(found.get('group')))} of {count}: {waits_for(missing)}."

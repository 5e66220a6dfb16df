"""Level 1: the store's listing against the rows, both ways.

Order is what makes it true. A row precedes its bytes and outlives them, so a key that was listed and that no row explains
*afterwards* is an orphan; and nothing is lost that the store has when it is asked by name.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, cast
from uuid import UUID

import numpy as np

from snapshed.blobs import Found
from snapshed.db import inventory, lost
from snapshed.db.inventory import Known
from snapshed.domain import keys
from snapshed.domain.disagreement import Disagreement, Kind
from snapshed.errors import Broken
from snapshed.resources import Resources, refuse_other_store
from snapshed.work.reconcile.rows import remedy

_PAGE = 1000
_FIRST = UUID(int=0)

Tell = Callable[[str, int], None]


def differences(resources: Resources, tell: Tell) -> Iterator[Disagreement]:
    """Objects that no row explains, and rows whose objects are gone or cut short. Raises Unavailable and Broken."""
    refuse_other_store(resources)
    started = resources.now()
    seen = _Seen()
    done = 0
    listing = resources.store.listing()
    while page := list(islice(listing, _PAGE)):
        seen.add([found.key for found in page])
        yield from _unexplained(resources, [found for found in page if not found.key.startswith(keys.SYSTEM)])
        done += len(page)
        tell("objects listed", done)
    yield from _absent(resources, seen, started, tell)


class _Seen:
    """Which keys were listed, eight bytes each. Two keys that fall together would hide a lost object: one chance in
    some 10^13 for each lost object among a million, and others in every run."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._listed = array("Q")
        self._sorted: np.ndarray[Any, np.dtype[np.uint64]] | None = None

    def _short(self, key: str) -> int:
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, key=self._salt).digest())

    def add(self, names: Sequence[str]) -> None:
        """Note keys. All are noted before the first is asked about."""
        self._listed.extend(self._short(name) for name in names)

    def among(self, names: Sequence[str]) -> list[bool]:
        """For each key, whether it was listed."""
        if self._sorted is None:
            self._sorted = (
                np.sort(np.frombuffer(self._listed, dtype=np.uint64)) if self._listed else np.empty(0, np.uint64)
            )
        if not len(self._sorted):
            return [False] * len(names)
        asked = np.array([self._short(name) for name in names], dtype=np.uint64)
        places = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
        return cast("list[bool]", (self._sorted[places] == asked).tolist())


# --- From the listing to the rows ---------------------------------------------------------------------------------


def _unexplained(resources: Resources, page: Sequence[Found]) -> Iterator[Disagreement]:
    halves = [found.key for found in page if resources.store.half_of(found.key) is not None]
    whole = [found for found in page if resources.store.half_of(found.key) is None] if halves else page
    with resources.database.transaction() as tx:
        unfit = inventory.unfit(tx, [found.key for found in whole], [found.size for found in whole])
        suspects = inventory.known(tx, [item.storage_key for item in unfit if item.row_id is not None])
    yield from orphans(resources, [item.storage_key for item in unfit if item.row_id is None])
    yield from _judged(resources, suspects)
    yield from _half_written(resources, halves)


def _half_written(resources: Resources, halves: Sequence[str]) -> Iterator[Disagreement]:
    bases = {name: resources.store.half_of(name) or name for name in halves}
    with resources.database.transaction() as tx:
        states = {row.storage_key: row.state for row in inventory.known(tx, list(bases.values()))}
    for name, base in bases.items():
        # Beside an announced or condemned row it is a put under way, or one that goes with its row.
        if states.get(base, "live") == "live" and resources.store.has_half(name):
            yield Disagreement(
                "half-written", name, "left by a process that died while storing; --repair removes the file"
            )


def orphans(resources: Resources, names: Sequence[str]) -> Iterator[Disagreement]:
    """Those of these keys that the store has when asked by name and that no row explains even then."""
    standing = resources.store.held(names) if names else set[str]()
    if not standing:
        return
    with resources.database.transaction() as tx:
        explained = {row.storage_key for row in inventory.known(tx, sorted(standing))}
    for key in sorted(standing - explained):
        _check_epoch(resources, key)
        if keys.digest_of(key) is not None:
            yield Disagreement("orphan", key, "no row explains this object; --repair has it removed, with a receipt")
        else:
            yield Disagreement(
                "foreign",
                key,
                "no row explains this object, and its name is none of ours; move it elsewhere, or have it removed with "
                "--repair --yes",
            )


def _check_epoch(resources: Resources, key: str) -> None:
    epoch = keys.epoch_of(key)
    if epoch is not None and epoch > resources.installation.epoch:
        raise Broken(
            f"The store holds objects of epoch {epoch}, and the database is of epoch {resources.installation.epoch}: it "
            "is older than the store. Nothing was changed; use the newest database, or rebuild it."
        )


# --- From the rows to the listing ------------------------------------------------------------------------------------


def _absent(resources: Resources, seen: _Seen, started: datetime, tell: Tell) -> Iterator[Disagreement]:
    # A row announced this long before the listing began had its bytes before, if it has them at all.
    settled = started - resources.settings.put_limit
    unlisted, example, done, after = 0, "", 0, _FIRST
    while True:
        with resources.database.transaction() as tx:
            page = inventory.live_keys_after(tx, after, _PAGE)
        if not page:
            break
        names = [key for _, key in page]
        missing = [key for key, is_seen in zip(names, seen.among(names), strict=True) if not is_seen]
        if missing:
            standing = resources.store.held(missing)
            with resources.database.transaction() as tx:
                rows = inventory.known(tx, missing)
            yield from _judged(resources, [row for row in rows if row.storage_key not in standing])
            hidden = [row.storage_key for row in rows if row.storage_key in standing and row.announced_at < settled]
            unlisted, example = unlisted + len(hidden), example or next(iter(hidden), "")
        done, after = done + len(page), page[-1][0]
        tell("rows looked up", done)
    if unlisted:
        yield Disagreement(
            "unlisted",
            example,
            f"the store has {unlisted} objects that its listing does not show, this one first; the listing cannot be "
            "trusted, so there may be orphans that were not found: ask whoever runs the store",
        )


def _judged(resources: Resources, suspects: Sequence[Known]) -> Iterator[Disagreement]:
    """Which of these rows have no object, or one of another size: asked by name, and then the rows once more."""
    wrong: dict[UUID, tuple[Kind, str]] = {}
    for row in suspects:
        found = resources.store.head(row.storage_key)
        if found is None:
            wrong[row.id] = ("lost", f"the {row.kind}'s bytes are gone")
        elif found.size != row.size:
            wrong[row.id] = ("wrong-size", f"the {row.kind} has {found.size} bytes, not {row.size}")
    yield from damaged(resources, [row for row in suspects if row.id in wrong], wrong)


def damaged(resources: Resources, rows: Sequence[Known], wrong: dict[UUID, tuple[Kind, str]]) -> Iterator[Disagreement]:
    """Tell what is wrong with these rows' objects, as far as they are still relied on."""
    if not rows:
        return
    with resources.database.transaction() as tx:
        relied_on = inventory.still_relied_on(tx, [row.id for row in rows])
        suffering = lost.suffering(tx, sorted(relied_on))
    for row in rows:
        if row.id in relied_on:
            kind, sentence = wrong[row.id]
            advice = f"{sentence}; --repair marks it, and {remedy(row.kind)}"
            if row.kind not in ("image", "file"):
                advice = f"{sentence}; {remedy(row.kind)}"
            yield Disagreement(kind, row.storage_key, advice, suffering.get(row.id, ()), row.id)


def live_pages(resources: Resources) -> Iterator[list[Known]]:
    """Every live row that is not marked as lost, page by page."""
    after = _FIRST
    while True:
        with resources.database.transaction() as tx:
            page = inventory.live_after(tx, after, _PAGE)
        if not page:
            return
        yield page
        after = page[-1].id

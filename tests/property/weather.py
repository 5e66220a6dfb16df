"""A real store behind bad weather: it is away for a while, loses its answers, or lets a put land late.

It also watches what is asked of it: a key is put once and never again, no key that a row names is removed, and
nothing is removed before every deletion that released it is in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psycopg
from property.beats import beat

from snapshed.blobs import Failure, Found, Item, Store
from snapshed.db.pool import refuse_inside_transaction
from snapshed.domain import keys
from snapshed.errors import StoreUnavailable

Weather = Literal["fair", "away", "late", "mute"]
"""`late`: a put fails and its bytes arrive afterwards. `mute`: everything is done, and answered as failed."""


@dataclass(frozen=True, slots=True)
class Travelling:
    """Bytes of a put that nobody waits for any more; they land before `latest` or never."""

    item: Item
    latest: datetime


class WeatheredStore:
    """Delegates to a store of the product. What it finds wrong is in `complaints`."""

    puts_settle = False

    def __init__(self, inner: Store, now: Callable[[], datetime], put_limit: timedelta, rows: Any) -> None:
        self.inner = inner
        self.weather: Weather = "fair"
        self.travelling: list[Travelling] = []
        self.complaints: list[str] = []
        self._now = now
        self._half = put_limit / 2
        self._rows: psycopg.Connection[Any] = rows
        self._used: set[str] = set()

    # --- what the product asks ---

    def put(self, items: Sequence[Item], *, begun: float | None = None) -> None:
        del begun  # the clock of these histories is another
        refuse_inside_transaction()
        beat("about to put")
        last_start = self._now() + self._half
        for item in items:
            if self._now() > last_start:
                raise StoreUnavailable("too slow")
            self._land_or_fail(item, lambda item=item: self.inner.put([item]))
            beat("put one")

    def note(self, key: str, data: bytes) -> None:
        refuse_inside_transaction()
        beat("about to note")
        self._land_or_fail(Item(key, data), lambda: self.inner.note(key, data))
        beat("noted")

    def _land_or_fail(self, item: Item, land: Callable[[], None]) -> None:
        if self.weather == "away":
            raise StoreUnavailable("away")
        if not item.key.startswith(keys.SYSTEM):
            if item.key in self._used:
                self.complaints.append(f"{item.key} is put a second time")
            self._used.add(item.key)
        if self.weather == "late":
            self.travelling.append(Travelling(item, self._now() + self._half))
            raise StoreUnavailable("no answer in time")
        land()
        if self.weather == "mute":
            raise StoreUnavailable("the answer is lost")

    def remove(self, doomed: Sequence[str]) -> dict[str, Failure]:
        refuse_inside_transaction()
        beat("about to remove")
        self._look_at_removal(doomed)
        failed = {key: Failure("unavailable", "away") for key in doomed}
        if self.weather == "away":
            return failed
        answered = self.inner.remove(doomed)
        beat("removed")
        return failed if self.weather == "mute" else answered

    def get(self, key: str) -> bytes | None:
        self._ask()
        return self.inner.get(key)

    def head(self, key: str) -> Found | None:
        self._ask()
        return self.inner.head(key)

    def held(self, asked: Sequence[str]) -> set[str]:
        self._ask()
        return self.inner.held(asked)

    def stream(self, key: str) -> Iterator[bytes] | None:
        self._ask()
        return self.inner.stream(key)

    def listing(self, prefix: str = "") -> Iterator[Found]:
        self._ask()
        return self.inner.listing(prefix)

    def path(self, key: str, folder: Path) -> Path | None:
        self._ask()
        return self.inner.path(key, folder)

    def answers(self) -> bool:
        return self.weather != "away" and self.inner.answers()

    def __getattr__(self, name: str) -> Any:
        """What else the product asks of a store, in any weather: its pace, its leftovers of half-done puts."""
        return getattr(self.inner, name)

    def _ask(self) -> None:
        refuse_inside_transaction()
        beat("about to ask")
        if self.weather == "away":
            raise StoreUnavailable("away")

    # --- what happens by itself ---

    def land(self, which: int) -> bool:
        """One late put arrives, if it still can."""
        put = self.travelling.pop(which % len(self.travelling))
        if self._now() > put.latest:
            return False
        self.inner.put([put.item])
        return True

    def stored(self) -> set[str]:
        """Every key of content that is really there."""
        return {found.key for found in self.inner.listing() if not found.key.startswith(keys.SYSTEM)}

    def _look_at_removal(self, doomed: Sequence[str]) -> None:
        named = self._rows.execute("SELECT storage_key FROM blob WHERE storage_key = ANY(%s)", [list(doomed)])
        self.complaints += [f"{key} is removed though a row names it" for (key,) in named.fetchall()]
        releasing = self._rows.execute(
            "SELECT DISTINCT deletion_id FROM release WHERE storage_key = ANY(%s)", [list(doomed)]
        )
        for (deletion,) in releasing.fetchall():
            if self.inner.head(keys.journal_entry(deletion)) is None:
                self.complaints.append(f"something is removed for deletion {deletion}, which no journal entry explains")

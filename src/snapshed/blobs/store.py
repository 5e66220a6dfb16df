"""What a store does, whichever it is: put, get, ask, list, remove. Removing is repeatable; a missing key is removed.

Knows keys and bytes, and nothing of rows, projects or snapshots.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, SupportsBytes, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from snapshed.blobs import removal
from snapshed.blobs.failures import Failure, unavailable
from snapshed.domain import keys as names
from snapshed.domain.receipt import Keeps
from snapshed.errors import StoreUnavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

Bytes = bytes | memoryview

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One object to be stored: its key and all of its bytes."""

    key: str
    data: Bytes


@dataclass(frozen=True, slots=True)
class Found:
    """One object the store says it has; `size` in bytes."""

    key: str
    size: int


def _told(pieces: Iterable[SupportsBytes]) -> Iterator[bytes]:
    """The pieces as bytes; what goes wrong half-way is told in our words too."""
    try:
        for piece in pieces:
            yield bytes(piece)
    except (BaseError, OSError) as error:
        raise unavailable(error) from None


@dataclass(frozen=True, slots=True)
class Handles:
    """Three ways to the same place. The reader tries again by itself; the writer never does, since an attempt nobody
    knows of could land after a removal; the brief one neither tries again nor waits long."""

    reader: ObjectStore
    writer: ObjectStore
    brief: ObjectStore


class Store(ABC):
    """A place for objects. Thread-safe. Every call first asks `guard`, which raises inside a transaction."""

    puts_settle = False
    """True where a put that failed cannot land later any more; false where it may still be on its way."""

    keys_at_once = removal.MOST
    """How many keys one removing request carries."""

    def __init__(self, handles: Handles, *, guard: Callable[[], None], put_limit: timedelta) -> None:
        self._handle = handles.reader
        self._writer = handles.writer
        self._brief = handles.brief
        self._guard = guard
        self._put_seconds = put_limit.total_seconds()
        self.pace = removal.Pace()

    def put(self, items: Sequence[Item], *, begun: float | None = None) -> None:
        """Store all items, each with one single attempt, durably when this returns.

        A put starts within the first half of the put limit, counted from `begun` (monotonic seconds, when its row was
        announced; now if there is none), and lasts at most the other half, so that none can land after the deadline of
        its row. Raises StoreUnavailable; some of the items may then be stored.
        """
        self._guard()
        try:
            self._put_all(items, (time.monotonic() if begun is None else begun) + self._put_seconds / 2)
        except (BaseError, OSError) as error:
            raise unavailable(error) from None

    def get(self, key: str) -> bytes | None:
        """All bytes of an object, or None if there is no such key. Raises StoreUnavailable."""
        self._guard()
        try:
            return bytes(obstore.get(self._handle, key).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise unavailable(error) from None

    def stream(self, key: str, span: tuple[int, int] | None = None) -> Iterator[bytes] | None:
        """The bytes of an object in pieces of about one MiB, or None if there is no such key; with `span` those from
        its first number up to, but not including, its second."""
        self._guard()
        try:
            pieces = obstore.get(self._handle, key, options={"range": span} if span else None).stream(
                min_chunk_size=_CHUNK
            )
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise unavailable(error) from None
        return _told(pieces)

    def head(self, key: str) -> Found | None:
        """What the store says about one key now, or None if it has nothing. Raises StoreUnavailable."""
        self._guard()
        try:
            return Found(key, obstore.head(self._handle, key)["size"])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise unavailable(error) from None

    def held(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that the store still has, each asked for by name. Raises StoreUnavailable."""
        self._guard()  # the threads below do not know in which transaction we are
        if len(keys) < 8:
            return {key for key in keys if self.head(key)}
        with ThreadPoolExecutor(16, "store-head") as threads:
            return {found.key for found in threads.map(self.head, keys) if found}

    def note(self, key: str, data: bytes) -> None:
        """Store one small object of our own under `.snapshed/`, durably when this returns. Such a key may be put again
        at any time, so this waits only briefly for an answer. Raises StoreUnavailable; it may then be stored or not."""
        self._guard()
        try:
            self._put_note(Item(key, data))
        except (BaseError, OSError) as error:
            raise unavailable(error) from None

    def remove(self, keys: Sequence[str]) -> dict[str, Failure]:
        """Remove all keys in bulk; a key that is not there counts as removed. Returns only what failed, by key.

        A key that a bulk answer does not mention counts as removed: the library does not show us which were mentioned.
        Whoever promises that something is gone asks for it again by name, with `held`.
        """
        self._guard()
        if not keys:
            return {}
        failed = removal.remove_all(keys, self._remove_some, self._answers_at_all, self.keys_at_once)
        self._remove_leftovers([key for key in keys if key not in failed])
        return failed

    def listing(self, prefix: str = "") -> Iterator[Found]:
        """Every object under a prefix, leftovers of half-done puts included. Raises StoreUnavailable on any error:
        a listing that ends early must never be taken for a whole one."""
        self._guard()
        try:
            yield from self._list(prefix)
        except (BaseError, OSError) as error:
            raise unavailable(error) from None

    def half_of(self, name: str) -> str | None:
        """The key whose half-done put left this name, or None if it is no such leftover. Only a disk has them."""
        del name
        return None

    def has_half(self, name: str) -> bool:
        """Whether this leftover of a half-done put is still there."""
        del name
        return False

    def remove_half(self, name: str) -> None:
        """Remove exactly this leftover, and nothing that stands under its key. Raises StoreUnavailable."""
        del name

    def answers(self) -> bool:
        """True if the store answers and is the one that was founded: its installation object is there. An unmounted
        disk or a removed bucket answers too, and has nothing."""
        self._guard()
        try:
            obstore.head(self._brief, names.INSTALLATION)
        except (BaseError, OSError):
            return False
        return True

    def _answers_at_all(self) -> bool:
        try:
            obstore.head(self._brief, names.INSTALLATION)
        except FileNotFoundError:
            return True
        except (BaseError, OSError):
            return False
        return True

    def keeps(self) -> Keeps:
        """Whether what is removed can be brought back by the store itself, as far as it can be found out. Raises
        StoreUnavailable."""
        self._guard()
        try:
            return self._keeps()
        except (BaseError, OSError) as error:
            raise unavailable(error) from None

    def _list(self, prefix: str) -> Iterator[Found]:
        batches = cast("Iterator[Sequence[ObjectMeta]]", obstore.list(self._handle, prefix or None, chunk_size=1000))  # pyright: ignore[reportUnknownMemberType]
        for batch in batches:
            for meta in batch:
                yield Found(meta["path"], meta["size"])

    def _within(self, limit: float) -> None:
        if time.monotonic() > limit:
            raise StoreUnavailable("The store is too slow: SNAPSHED_PUT_LIMIT passed while storing. Try again later.")

    @abstractmethod
    def _put_all(self, items: Sequence[Item], limit: float) -> None: ...

    def _put_note(self, item: Item) -> None:
        obstore.put(self._brief, item.key, item.data, use_multipart=False)

    @abstractmethod
    def _remove_some(self, keys: Sequence[str]) -> Failure | Mapping[str, Failure]:
        """Send one removing request. A mapping of what failed, or one failure if it cannot be told which keys did."""

    @abstractmethod
    def _keeps(self) -> Keeps: ...

    @abstractmethod
    def _remove_leftovers(self, keys: Sequence[str]) -> None: ...

    @abstractmethod
    def path(self, key: str, folder: Path) -> Path | None:
        """A local file with the object's bytes, for programs that take paths: the stored file itself on disk, else a
        copy in `folder`. None if there is no such key. Raises StoreUnavailable."""

"""What a store does, whichever it is: put, get, ask, list, remove. Removing is repeatable; a missing key is removed.

Knows keys and bytes, and nothing of rows, projects or snapshots.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsBytes, cast

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore

from snapshed.errors import StoreUnavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

FailureClass = Literal["unavailable", "throttled", "refused"]
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


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a key could not be removed: a class to act on and one sentence that holds no secret."""

    kind: FailureClass
    sentence: str


def classify(error: Exception) -> Failure:
    """Turn a store's error into ours. Only its type and a few known words are looked at, never shown."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return Failure("refused", "The store refuses: check the permissions of its credentials or folder.")
    text = str(error)
    if any(word in text for word in ("SlowDown", "429", "TooManyRequests", "Throttl")):
        return Failure("throttled", "The store asks for fewer requests.")
    if "AccessDenied" in text or "403" in text:
        return Failure("refused", "The store refuses: check the permissions of its credentials or folder.")
    if "No space left" in text or "os error 28" in text or "quota" in text.lower():
        return Failure("unavailable", "The store is full.")
    return Failure("unavailable", "The store does not answer as it should.")


def unavailable(error: Exception) -> StoreUnavailable:
    """The error a caller sees when the store fails."""
    return StoreUnavailable(f"{classify(error).sentence} Nothing was lost; try again later.")


def _told(pieces: Iterable[SupportsBytes]) -> Iterator[bytes]:
    """The pieces as bytes; what goes wrong half-way is told in our words too."""
    try:
        for piece in pieces:
            yield bytes(piece)
    except (BaseError, OSError) as error:
        raise unavailable(error) from None


class Store(ABC):
    """A place for objects. Thread-safe. Every call first asks `guard`, which raises inside a transaction."""

    puts_settle = False
    """True where a put that failed cannot land later any more; false where it may still be on its way."""

    def __init__(
        self, handle: ObjectStore, writer: ObjectStore, *, guard: Callable[[], None], put_limit: timedelta
    ) -> None:
        self._handle = handle
        self._writer = writer
        self._guard = guard
        self._put_seconds = put_limit.total_seconds()

    def put(self, items: Sequence[Item]) -> None:
        """Store all items, each with one single attempt, durably when this returns.

        A put starts within the first half of the put limit and lasts at most the other half, so that none can land
        after the deadline its row announced. Raises StoreUnavailable; some of the items may then be stored.
        """
        self._guard()
        try:
            self._put_all(items, time.monotonic() + self._put_seconds / 2)
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

    def stream(self, key: str) -> Iterator[bytes] | None:
        """The bytes of an object in pieces of about one MiB, or None if there is no such key."""
        self._guard()
        try:
            pieces = obstore.get(self._handle, key).stream(min_chunk_size=_CHUNK)
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
        if len(keys) < 8:
            return {key for key in keys if self.head(key)}
        with ThreadPoolExecutor(16, "store-head") as threads:
            return {found.key for found in threads.map(self.head, keys) if found}

    def remove(self, keys: Sequence[str]) -> dict[str, Failure]:
        """Remove all keys in bulk; a key that is not there counts as removed. Returns only what failed, by key."""
        self._guard()
        if not keys:
            return {}
        try:
            obstore.delete(self._handle, list(keys))
        except (BaseError, OSError):
            # A bulk call may stop at its first failure and does not say which keys it had not reached, so each is
            # asked for again; removing twice is harmless.
            with ThreadPoolExecutor(8, "store-remove") as threads:
                outcomes = list(threads.map(self._remove_one, keys))
            failed = {key: failure for key, failure in zip(keys, outcomes, strict=True) if failure}
        else:
            failed = {}
        self._remove_leftovers([key for key in keys if key not in failed])
        return failed

    def _remove_one(self, key: str) -> Failure | None:
        try:
            obstore.delete(self._handle, [key])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            return classify(error)
        return None

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
        """True if the store can be asked for a key."""
        try:
            self.head(".snapshed/installation.json")
        except StoreUnavailable:
            return False
        return True

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

    @abstractmethod
    def _remove_leftovers(self, keys: Sequence[str]) -> None: ...

    @abstractmethod
    def path(self, key: str, folder: Path) -> Path | None:
        """A local file with the object's bytes, for programs that take paths: the stored file itself on disk, else a
        copy in `folder`. None if there is no such key. Raises StoreUnavailable."""

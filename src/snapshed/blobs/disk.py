"""Objects as plain files under one folder, mode 0700, named like their keys.

Nothing here leaves a trace of a half-done write behind: what a killed put leaves as `key#1` is listed and removed.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from snapshed.blobs.failures import Failure, classify, is_full, unavailable
from snapshed.blobs.store import Found, Handles, Item, Store
from snapshed.domain import keys as names
from snapshed.domain.receipt import Keeps
from snapshed.errors import StoreUnavailable

_RESERVE_BYTES = 256 * 1024
"""Room kept for journal entries, some 60 of them with the blocks they take. Without an entry nothing is removed, and
without a removal a full disk stays full."""

_HALF = re.compile(r"(.+)#\d+")
"""What the library calls a file while it writes it."""


class DiskStore(Store):
    """A folder. Puts go one after the other (a disk gains nothing from threads) and are synced once per call."""

    puts_settle = True

    def __init__(self, root: Path, *, guard: Callable[[], None], put_limit: timedelta) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self._marker = self.root / names.INSTALLATION
        self._reserve = self.root / names.RESERVE
        self._was_founded = False
        handle = LocalStore(self.root, automatic_cleanup=False)
        super().__init__(Handles(handle, handle, handle), guard=guard, put_limit=put_limit)

    def path(self, key: str, folder: Path) -> Path | None:
        del folder
        file = self.root / key
        return file if file.is_file() else None

    def _put_all(self, items: Sequence[Item], limit: float) -> None:
        self._refuse_elsewhere()
        if self._was_founded and not self._keep_reserve():
            raise StoreUnavailable(
                "The store is full. Nothing was lost; make room or delete snapshots, then try again."
            )
        for item in items:
            self._within(limit)
            obstore.put(self._writer, item.key, item.data, use_multipart=False)
        _sync(self.root)

    def _put_note(self, item: Item) -> None:
        self._refuse_elsewhere()
        try:
            self._put_durably(item)
        except (BaseError, OSError) as error:
            if not is_full(error):
                raise
            self._reserve.unlink(missing_ok=True)
            self._put_durably(item)
        self._keep_reserve()

    def _put_durably(self, item: Item) -> None:
        try:
            obstore.put(self._writer, item.key, item.data, use_multipart=False)
        except (BaseError, OSError):
            self._remove_leftovers([item.key])
            raise
        _sync(self.root)

    def _remove_some(self, keys: Sequence[str]) -> Failure | Mapping[str, Failure]:
        if self._is_elsewhere():
            return Failure("unavailable", _ELSEWHERE).of_the_store()
        failed: dict[str, Failure] = {}
        for key in keys:
            try:
                (self.root / key).unlink(missing_ok=True)
            except OSError as error:
                failed[key] = classify(error)
        return failed

    def _remove_leftovers(self, keys: Sequence[str]) -> None:
        for key in keys:
            number = 1
            while (leftover := self.root / f"{key}#{number}").exists():
                leftover.unlink(missing_ok=True)
                number += 1

    def head(self, key: str) -> Found | None:
        try:
            return super().head(key)
        except ValueError:
            # No key may be called so, but a file that somebody put here may.
            file = self.root / key
            return Found(key, file.stat().st_size) if file.is_file() else None

    def half_of(self, name: str) -> str | None:
        match = _HALF.fullmatch(name)
        return match[1] if match else None

    def has_half(self, name: str) -> bool:
        return self.half_of(name) is not None and (self.root / name).is_file()

    def remove_half(self, name: str) -> None:
        if self.half_of(name) is not None:
            try:
                (self.root / name).unlink(missing_ok=True)
            except OSError as error:
                raise unavailable(error) from None

    def _list(self, prefix: str) -> Iterator[Found]:
        # The library's listing hides `key#1`; walking the folders does not. One entry at a time, since a folder may hold
        # a million; one that cannot be read raises, since a listing that lacks some would be taken for a whole one.
        folders = [""]
        while folders:
            inside = folders.pop()
            try:
                entries = os.scandir(self.root / inside)
            except FileNotFoundError:
                continue  # removed while we walked
            with entries:
                for entry in entries:
                    key = inside + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{key}/")
                    elif key.startswith(prefix):
                        with suppress(FileNotFoundError):  # removed while we walked
                            yield Found(key, entry.stat().st_size)

    def _keeps(self) -> Keeps:
        return "nothing"

    def _is_elsewhere(self) -> bool:
        """True if the founded store was here and is not any more, as when its disk is unmounted. An empty folder would
        confirm every removal and take what belongs on the other disk."""
        if self._marker.is_file():
            self._was_founded = True
        elif self._was_founded:
            return True
        return False

    def _refuse_elsewhere(self) -> None:
        if self._is_elsewhere():
            raise StoreUnavailable(f"{_ELSEWHERE} Nothing was lost; try again later.")

    def _keep_reserve(self) -> bool:
        """Make the reserve if it is missing and there is room. True if it is there."""
        if self._reserve.exists():
            return True
        part = self._reserve.with_name(self._reserve.name + ".part")
        try:
            # Written, not only sized: a hole in a file holds no room.
            with part.open("wb") as file:
                file.write(b"\0" * _RESERVE_BYTES)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._reserve)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return self._reserve.exists()  # another process may have made it meanwhile
        return True


_ELSEWHERE = "The folder of the object store is not the one that was founded: is its disk mounted?"


def _sync(folder: Path) -> None:
    """Make everything written so far durable: one `syncfs` where the system has it, else `sync`."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)

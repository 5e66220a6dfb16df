"""Objects as plain files under one folder, mode 0700, named like their keys.

Nothing here leaves a trace of a half-done write behind: what a killed put leaves as `key#1` is listed and removed.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.store import LocalStore

from snapshed.blobs.store import Found, Item, Store, unavailable

_HALF = re.compile(r"(.+)#\d+")
"""What the library calls a file while it writes it."""


class DiskStore(Store):
    """A folder. Puts go one after the other (a disk gains nothing from threads) and are synced once per call."""

    puts_settle = True

    def __init__(self, root: Path, *, guard: Callable[[], None], put_limit: timedelta) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        handle = LocalStore(self.root, automatic_cleanup=False)
        super().__init__(handle, handle, guard=guard, put_limit=put_limit)

    def path(self, key: str, folder: Path) -> Path | None:
        del folder
        file = self.root / key
        return file if file.is_file() else None

    def _put_all(self, items: Sequence[Item], limit: float) -> None:
        for item in items:
            self._within(limit)
            obstore.put(self._writer, item.key, item.data, use_multipart=False)
        _sync(self.root)

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

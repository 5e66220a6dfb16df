"""Objects in a bucket: S3, GCS or Azure.

Every object is put with a single request, so that no unfinished multipart upload is ever left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from snapshed.blobs.failures import Failure, classify
from snapshed.blobs.store import Handles, Item, Store
from snapshed.domain import keys as names
from snapshed.domain.receipt import Keeps

_THREADS = 16
"""Puts in flight. 1,000 puts took 1.87 s on one thread and 0.40 s on 32 against SeaweedFS; 16 is within noise of 32."""

_REMOVERS = 8
"""Single removals in flight while a store bears all we ask for."""

_NO_BUCKET = "The store says that its bucket is not there."


class RemoteStore(Store):
    """A bucket. One S3 request removes a thousand keys; the others are asked for each key, several at once, because
    they answer a missing key with an error and a bulk request would then not say which."""

    def __init__(self, handles: Handles, *, guard: Callable[[], None], put_limit: timedelta) -> None:
        super().__init__(handles, guard=guard, put_limit=put_limit)
        self._is_s3 = isinstance(handles.brief, S3Store)
        if not self._is_s3:
            self.keys_at_once = _REMOVERS * 8

    def path(self, key: str, folder: Path) -> Path | None:
        data = self.get(key)
        if data is None:
            return None
        file = folder / key.rsplit("/", 1)[-1]
        file.write_bytes(data)
        return file

    def _put_all(self, items: Sequence[Item], limit: float) -> None:
        def put(item: Item) -> None:
            self._within(limit)
            obstore.put(self._writer, item.key, item.data, use_multipart=False)

        if len(items) == 1:
            put(items[0])
            return
        with ThreadPoolExecutor(_THREADS, "store-put") as threads:
            for _ in threads.map(put, items):
                pass

    def _remove_some(self, keys: Sequence[str]) -> Failure | Mapping[str, Failure]:
        if not self._is_s3:
            return self._remove_each(keys)
        failure = self._ask_to_remove(list(keys))
        return failure or {}

    def _remove_each(self, keys: Sequence[str]) -> Mapping[str, Failure]:
        in_flight = max(1, _REMOVERS * self.pace.keys // 1000)
        with ThreadPoolExecutor(in_flight, "store-remove") as threads:
            outcomes = list(threads.map(self._ask_to_remove, keys))
        return {key: failure for key, failure in zip(keys, outcomes, strict=True) if failure}

    def _ask_to_remove(self, keys: str | list[str]) -> Failure | None:
        try:
            obstore.delete(self._brief, keys)
        except FileNotFoundError:
            # S3 counts a missing key as removed, so there this speaks of the bucket.
            return Failure("unavailable", _NO_BUCKET).of_the_store() if self._is_s3 else None
        except (BaseError, OSError) as error:
            return classify(error)
        except BaseException as error:
            # A panic of the library derives from BaseException: it panics at an answer about a key nobody asked for.
            if type(error).__name__ != "PanicException":
                raise
            return classify(error)
        return None

    def _remove_leftovers(self, keys: Sequence[str]) -> None:
        del keys  # a put to a bucket is whole or absent

    def _keeps(self) -> Keeps:
        """Found out by behaviour, which needs no more rights than we use anyway: a versioned bucket answers every put
        with the version it has made. GCS numbers its objects always, and both it and Azure may keep what is removed
        without showing it, so of them nothing can be said."""
        if not self._is_s3:
            return "unknown"
        put = obstore.put(self._brief, names.PROBE, b"Put to see whether this store keeps versions.\n")
        with suppress(BaseError, OSError):
            obstore.delete(self._brief, names.PROBE)
        return "nothing" if put["version"] is None else "versions"

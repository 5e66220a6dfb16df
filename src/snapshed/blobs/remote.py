"""Objects in a bucket: S3, GCS or Azure.

Every object is put with a single request, so that no unfinished multipart upload is ever left behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore

from snapshed.blobs.store import Item, Store

_THREADS = 16
"""Puts in flight. 1,000 puts took 1.87 s on one thread and 0.40 s on 32 against SeaweedFS; 16 is within noise of 32."""


class RemoteStore(Store):
    """A bucket. The writer handle never retries by itself: an attempt nobody knows of could land after a removal."""

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

    def _remove_leftovers(self, keys: Sequence[str]) -> None:
        del keys  # a put to a bucket is whole or absent

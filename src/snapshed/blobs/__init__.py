"""The only door to the object store. One behaviour for disk, S3, GCS and Azure; their differences end in here.

Never called inside a database transaction, and no answer of a store leaves this room as it came: it may hold secrets.
"""

from __future__ import annotations

from snapshed.blobs.failures import Failure, FailureClass
from snapshed.blobs.open import open_store
from snapshed.blobs.store import Found, Item, Store

__all__ = ["Failure", "FailureClass", "Found", "Item", "Store", "open_store"]

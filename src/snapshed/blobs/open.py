"""Chooses and opens the store that the settings name.

Reads no environment of its own, except what a cloud's own library reads for its credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from snapshed.blobs.disk import DiskStore
from snapshed.blobs.remote import RemoteStore
from snapshed.blobs.store import Handles, Store
from snapshed.errors import Invalid
from snapshed.settings import Settings

_BRIEF = timedelta(seconds=10)
"""How long a removal, a journal entry or the question whether the store is there may take. All may be repeated."""


def open_store(settings: Settings, guard: Callable[[], None]) -> Store:
    """The store of SNAPSHED_STORE_URL, else the folder DIR/objects. Raises Invalid if it cannot be named so."""
    if settings.store_url is None:
        return DiskStore(settings.data / "objects", guard=guard, put_limit=settings.put_limit)
    if urlsplit(settings.store_url).scheme == "file":
        root = Path(unquote(urlsplit(settings.store_url).path))
        return DiskStore(root, guard=guard, put_limit=settings.put_limit)
    try:
        half = settings.put_limit / 2
        handles = Handles(
            reader=_handle(settings, retries=2, limit=half),
            writer=_handle(settings, retries=0, limit=half),
            brief=_handle(settings, retries=0, limit=_BRIEF),
        )
        return RemoteStore(handles, guard=guard, put_limit=settings.put_limit)
    except (BaseError, ValueError):
        raise Invalid(
            "SNAPSHED_STORE_URL and its settings do not name a store; check scheme, bucket and keys."
        ) from None


def _handle(settings: Settings, *, retries: int, limit: timedelta) -> ObjectStore:
    url = settings.store_url or ""
    options: Any = {"timeout": limit, "allow_http": True}
    retry: Any = {"max_retries": retries}
    scheme = urlsplit(url).scheme
    if scheme == "s3":
        config: dict[str, Any] = {
            "endpoint": settings.store_endpoint,
            "access_key_id": settings.store_access_key_id,
            "secret_access_key": settings.store_secret_access_key,
            "region": settings.store_region or "us-east-1",
        }
        known = {name: str(value) for name, value in config.items() if value is not None}
        return S3Store.from_url(url, config=known, client_options=options, retry_config=retry)  # pyright: ignore[reportArgumentType]
    if scheme == "gs":
        return GCSStore.from_url(url, client_options=options, retry_config=retry)
    return AzureStore.from_url(url, client_options=options, retry_config=retry)

"""The doors for programs: JSON in and out. Plain functions that ask `auth`, call one verb of `work`, and show the result."""

from __future__ import annotations

from fastapi import APIRouter

from snapshed.api import (
    archives,
    builds,
    deletions,
    health,
    holds,
    image_batch,
    image_objects,
    images,
    multipart,
    object_batch,
    objects,
    retention,
    shards,
    snapshots,
)

router = APIRouter()
_BLOBS = (image_batch, image_objects, object_batch, multipart, objects)
for room in (health, *_BLOBS, shards, snapshots, images, archives, builds, deletions, holds, retention):
    router.include_router(room.router)

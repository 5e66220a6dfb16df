"""The doors for programs: JSON in and out. Plain functions that ask `auth`, call one verb of `work`, and show the result."""

from __future__ import annotations

from fastapi import APIRouter

from snapshed.api import archives, batch, builds, deletions, health, holds, images, objects, snapshots

router = APIRouter()
for room in (health, batch, objects, snapshots, images, archives, builds, deletions, holds):
    router.include_router(room.router)

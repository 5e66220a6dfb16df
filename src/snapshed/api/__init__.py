"""The doors for programs: JSON in and out. Plain functions that ask `auth`, call one verb of `work`, and show the result."""

from __future__ import annotations

from fastapi import APIRouter

from snapshed.api import batch, deletions, health, objects, snapshots

router = APIRouter()
for room in (health, batch, objects, snapshots, deletions):
    router.include_router(room.router)

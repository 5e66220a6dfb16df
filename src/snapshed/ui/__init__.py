"""The pages: server-rendered, whole without JavaScript, for people who signed in with a token.

Nothing here is decided or stored; every page shows what `work` knows, and every form ends in one verb of it.
"""

from __future__ import annotations

from fastapi import APIRouter

from snapshed.ui import assets, deletions, history, images, reviewing, sign_in, snapshots, storage, trends
from snapshed.ui.sign_in import error_page

__all__ = ["error_page", "router"]

router = APIRouter(include_in_schema=False)
router.include_router(assets.router)
router.include_router(sign_in.router)
router.include_router(snapshots.router)
router.include_router(reviewing.router)
router.include_router(history.router)
router.include_router(storage.router)
router.include_router(trends.router)
router.include_router(deletions.router)
router.include_router(images.router)

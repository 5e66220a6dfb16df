"""What is stored and what it is for: the page an operator looks at when the disk fills."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from snapshed.auth import Reader, Res, projects_of
from snapshed.ui.deletions import KINDS
from snapshed.ui.rendering import page
from snapshed.work import storage

_BRANCHES = 30

router = APIRouter(include_in_schema=False)


@router.get("/storage")
def show(request: Request, resources: Res, reader: Reader) -> Response:
    """Bytes by kind, project and branch, stored and as they would be without sharing; and what is leaving."""
    projects = projects_of(resources, reader.actor)
    stock = storage.stock(resources, reader.actor.org_id, [project.id for project in projects], _BRANCHES)
    return page(request, "storage.html", browser=reader, stock=stock, kinds=KINDS, most_branches=_BRANCHES)

"""Retention rules of projects, for administrators: read, set, and looked at before they are carried out."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends

from snapshed.auth import Asker, Res, project_of
from snapshed.bodies import Body, spooled
from snapshed.domain.retention import document
from snapshed.errors import Invalid
from snapshed.work import retention

router = APIRouter(prefix="/api/0/organizations/{org}/projects/{project}/retention", tags=["retention"])

Sent = Annotated[Body, Depends(spooled(lambda _: 2**16))]


@router.get("/")
def show(org: str, project: str, resources: Res, actor: Asker) -> dict[str, Any]:
    """The rule as it holds, who set it, whether rules delete at all, and what the last run did."""
    return retention.show(resources, project_of(resources, actor, org, project, "admin")).document()


@router.put("/")
def change(org: str, project: str, resources: Res, actor: Asker, body: Sent) -> dict[str, Any]:
    """Set the fields given and leave the others as they are. The rule is carried out at once."""
    found = project_of(resources, actor, org, project, "admin")
    retention.put_rule(resources, found, _fields(body), actor.principal)
    return retention.show(resources, found).document()


@router.get("/preview/")
def preview(org: str, project: str, resources: Res, actor: Asker) -> dict[str, Any]:
    """What a run would delete now, and why each kept snapshot is kept."""
    previewed = retention.preview(resources, project_of(resources, actor, org, project, "admin"))
    return document(previewed.decisions, previewed.paused_for)


def _fields(body: Body) -> dict[str, Any]:
    try:
        found: object = json.loads(body.open().read())
    except (ValueError, RecursionError):
        raise Invalid("Invalid json body") from None
    if not isinstance(found, dict):
        raise Invalid("The retention rule must be a JSON object.")
    return cast("dict[str, Any]", found)

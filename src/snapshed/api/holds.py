"""Holds: a held snapshot cannot be deleted by anyone or any rule, nor any of a held branch. Whoever may delete may hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from snapshed.auth import Asker, Res, check_org, project_of, projects_of, require
from snapshed.bodies import Body, spooled
from snapshed.db.branch_holds import BranchHold
from snapshed.db.holds import Hold
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid, NotFound
from snapshed.resources import Resources
from snapshed.work import branch_holds, holds
from snapshed.work.access import Actor

router = APIRouter(prefix="/api/0/organizations/{org}/holds", tags=["holds"])

_FIELDS = frozenset({"snapshot", "project", "branch", "reason", "ends_at"})

Sent = Annotated[Body, Depends(spooled(lambda _: 2**16))]


@router.get("/")
def listing(org: str, resources: Res, actor: Asker) -> list[dict[str, Any]]:
    """Every hold that stands: those of snapshots, then those of branches, the oldest first."""
    reach = _reach(org, resources, actor)
    of_branches = branch_holds.list_holds(resources, reach)
    return [*map(document, holds.list_holds(resources, reach)), *map(branch_document, of_branches)]


@router.post("/", status_code=201)
def place(org: str, resources: Res, actor: Asker, body: Sent) -> dict[str, Any]:
    """Hold a snapshot, or with `project` and `branch` a branch, with a reason, and until `ends_at` if that is given."""
    reach = _reach(org, resources, actor)
    require(actor, "delete")
    fields = _fields(body)
    if "branch" in fields:
        return _place_on_branch(org, resources, actor, fields)
    placed = holds.place(
        resources, reach, _number(fields), _reason(fields), actor.principal, _moment(fields.get("ends_at"))
    )
    return document(placed)


@router.delete("/{hold_id}/", status_code=204)
def release(org: str, hold_id: str, resources: Res, actor: Asker) -> Response:
    """Release a hold."""
    reach = _reach(org, resources, actor)
    try:
        known = UUID(hold_id)
    except ValueError:
        raise NotFound("Hold not found") from None
    if known in {hold.id for hold in branch_holds.list_holds(resources, reach)}:
        require(actor, "delete")
        branch_holds.release(resources, reach, known, actor.principal)
        return Response(status_code=204)
    found = holds.find(resources, reach, known)
    require(actor, "delete")
    holds.release(resources, reach, found.number, found.id)
    return Response(status_code=204)


def _place_on_branch(org: str, resources: Resources, actor: Actor, fields: dict[str, Any]) -> dict[str, Any]:
    if "snapshot" in fields:
        raise Invalid("A hold is of one snapshot or of one branch; leave the field snapshot or branch out.")
    name, branch = fields.get("project"), fields["branch"]
    if not isinstance(name, str):
        raise Invalid("The field project must name the branch's project.")
    project = project_of(resources, actor, org, name, "delete")
    if not isinstance(branch, str):
        raise Invalid("The field branch must be a branch's name.")
    ends_at = _moment(fields.get("ends_at"))
    return branch_document(branch_holds.place(resources, project, branch, _reason(fields), actor.principal, ends_at))


def document(hold: Hold) -> dict[str, Any]:
    """A hold as JSON."""
    return {
        "id": str(hold.id),
        "snapshot": str(hold.number),
        "branch": None,
        "project": hold.project_slug,
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": moment(hold.placed_at),
        "ends_at": moment(hold.ends_at),
    }


def branch_document(hold: BranchHold) -> dict[str, Any]:
    """A hold of a branch as JSON."""
    return {
        "id": str(hold.id),
        "snapshot": None,
        "branch": hold.branch,
        "project": hold.project_slug,
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": moment(hold.placed_at),
        "ends_at": moment(hold.ends_at),
    }


def _reach(org: str, resources: Resources, actor: Actor) -> list[int]:
    check_org(actor, org)
    require(actor, "read")
    return [project.id for project in projects_of(resources, actor)]


def _fields(body: Body) -> dict[str, Any]:
    try:
        found: object = json.loads(body.open().read())
    except (ValueError, RecursionError):
        raise Invalid("Invalid json body") from None
    if not isinstance(found, dict):
        raise Invalid("The hold must be a JSON object.")
    fields = cast("dict[str, Any]", found)
    if unknown := sorted(set(fields) - _FIELDS):
        raise Invalid(f"Unknown field {unknown[0][:80]!r}; a hold may have {', '.join(sorted(_FIELDS))}.")
    return fields


def _number(fields: dict[str, Any]) -> int:
    if "project" in fields:
        raise Invalid("A snapshot is named by its id alone; leave the field project out.")
    value = fields.get("snapshot")
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdigit():
        raise Invalid('The field snapshot must be a snapshot id, such as "12".')
    if len(text) > 18:
        raise NotFound("Snapshot not found")
    return int(text)


def _reason(fields: dict[str, Any]) -> str:
    value = fields.get("reason")
    if not isinstance(value, str):
        raise Invalid(f"The field reason must be text of 1 to {holds.MOST_REASON} characters that says why it is held.")
    return value


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None:
        raise Invalid("The field ends_at must be an ISO time, such as 2030-01-31T00:00:00Z.")
    return at if at.tzinfo else at.replace(tzinfo=UTC)

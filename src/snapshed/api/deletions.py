"""Deletions: asked for, previewed, listed, and accounted for.

An order is read strictly: an unknown field or an empty target is refused, and nothing is deleted then.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from snapshed.auth import Asker, Res, check_org, project_of, projects_of, require
from snapshed.bodies import Body, spooled
from snapshed.db.access import Project
from snapshed.domain.keys import is_digest
from snapshed.errors import Invalid, NotFound
from snapshed.resources import Resources
from snapshed.work import deletion, receipts
from snapshed.work.access import Actor
from snapshed.work.deletion import Filter, Order

router = APIRouter(prefix="/api/0/organizations/{org}/deletions", tags=["deletions"])

MOST_SNAPSHOTS = 1000
_MOST_BODY = 2**20
_MOST_REASON = 1000

_TARGETS = ("snapshots", "filter", "everything", "image")
_FIELDS = {*_TARGETS, "project", "reason", "urgent", "request_id", "dry_run", "plan"}
_FILTER_FIELDS = {"app_id", "branch", "older_than"}

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""NUL and halves of surrogate pairs: JSON can spell them, PostgreSQL and UTF-8 cannot."""

Sent = Annotated[Body, Depends(spooled(lambda _: _MOST_BODY))]
Page = Annotated[int, Query(ge=1, le=1000)]
Number = Annotated[int, Query(ge=0, lt=2**63)]


@router.post("/", status_code=202)
def order(org: str, resources: Res, actor: Asker, body: Sent) -> JSONResponse:
    """Delete one target, or with `dry_run` say what would go: snapshots, what fits a filter, everything of a project, or
    one image, which is withdrawn from every snapshot that names it."""
    check_org(actor, org)
    require(actor, "delete")
    fields = _fields(body)
    wanted = _order(resources, actor, org, fields)
    if _flag(fields, "dry_run"):
        return JSONResponse(deletion.preview(resources, wanted))
    deletion_id = deletion.request(resources, wanted)
    receipt = receipts.find_receipt(resources, actor.org_id, deletion_id)
    headers = {"location": f"/api/0/organizations/{org}/deletions/{deletion_id}/"}
    return JSONResponse(receipt, 202, headers)


@router.get("/")
def listing(
    org: str, resources: Res, actor: Asker, snapshot: Number | None = None, limit: Page = 100
) -> list[dict[str, Any]]:
    """Receipts, newest first, or those of the deletion that took one snapshot."""
    check_org(actor, org)
    require(actor, "read")
    return receipts.list_receipts(resources, actor.org_id, actor.project_id, snapshot, limit)


@router.get("/{deletion_id}/")
def receipt(org: str, deletion_id: str, resources: Res, actor: Asker) -> dict[str, Any]:
    """The receipt as it stands, signed once the deletion is complete."""
    return receipts.find_receipt(resources, actor.org_id, _visible(org, deletion_id, resources, actor))


@router.get("/{deletion_id}/objects")
@router.get("/{deletion_id}/objects/", include_in_schema=False)
def objects(
    org: str, deletion_id: str, resources: Res, actor: Asker, after: UUID | None = None, limit: Page = 1000
) -> JSONResponse:
    """Each object a deletion released: kind, digest, bytes, outcome, times. A page; `x-next` names where to go on."""
    found = receipts.list_objects(resources, actor.org_id, _visible(org, deletion_id, resources, actor), after, limit)
    headers = {"x-next": str(found[-1]["id"])} if len(found) == limit else {}
    return JSONResponse(found, headers=headers)


@router.get("/{deletion_id}/verification")
def verification(org: str, deletion_id: str, resources: Res, actor: Asker) -> dict[str, Any]:
    """Check the receipt's signature and ask the store again about every object it says is gone."""
    found = receipts.verify(resources, actor.org_id, _visible(org, deletion_id, resources, actor))
    return {"signed": found.signed, "asked": found.asked, "standing": found.standing}


def _visible(org: str, deletion_id: str, resources: Resources, actor: Actor) -> UUID:
    check_org(actor, org)
    require(actor, "read")
    try:
        known = UUID(deletion_id)
    except ValueError:
        raise NotFound("Deletion not found") from None
    if not _may_see(actor, receipts.find_project(resources, actor.org_id, known)):
        raise NotFound("Deletion not found")
    return known


def _may_see(actor: Actor, project_id: int | None) -> bool:
    """A token of one project sees what happened in it; what spans several is for the organization's tokens."""
    return actor.project_id is None or actor.project_id == project_id


# --- Reading an order -------------------------------------------------------------------------------------------------


def _fields(body: Body) -> dict[str, Any]:
    try:
        document: object = json.loads(body.open().read())
    except (ValueError, RecursionError):
        raise Invalid("Invalid json body") from None
    if not isinstance(document, dict):
        raise Invalid("The deletion must be a JSON object.")
    fields = cast("dict[str, Any]", document)
    if unknown := sorted(set(fields) - _FIELDS):
        raise Invalid(f"Unknown field {unknown[0]!r}; a deletion may have {', '.join(sorted(_FIELDS))}.")
    return fields


def _order(resources: Resources, actor: Actor, org: str, fields: dict[str, Any]) -> Order:
    urgent = _flag(fields, "urgent")
    if urgent:
        require(actor, "admin")
    if len([field for field in _TARGETS if field in fields]) != 1:
        raise Invalid(
            "A deletion has exactly one target: snapshots, or a project with a filter, an image, or everything."
        )
    numbers = _numbers(fields)
    if numbers and "project" in fields:
        raise Invalid("Snapshots are named by their ids alone; leave the project out.")
    return Order(
        org_id=actor.org_id,
        projects=projects_of(resources, actor) if numbers else [_project(resources, actor, org, fields)],
        requested_by=actor.principal,
        snapshots=numbers,
        filter=_filter(resources, fields),
        everything=_flag(fields, "everything"),
        image=_image(fields),
        reason=_text(fields, "reason", _MOST_REASON),
        urgent=urgent,
        request_id=_text(fields, "request_id", 200),
        plan=_text(fields, "plan", 64),
        is_for_all_projects=actor.project_id is None,
    )


def _project(resources: Resources, actor: Actor, org: str, fields: dict[str, Any]) -> Project:
    name = _text(fields, "project", 63)
    if name is None:
        raise Invalid("The field project must name a project.")
    return project_of(resources, actor, org, name, "delete")


def _numbers(fields: dict[str, Any]) -> list[int]:
    if "snapshots" not in fields:
        return []
    items = fields["snapshots"]
    if not isinstance(items, list) or not 0 < len(cast("list[Any]", items)) <= MOST_SNAPSHOTS:
        raise Invalid(f"The field snapshots must list 1 to {MOST_SNAPSHOTS} snapshot ids.")
    numbers: list[int] = []
    for item in cast("list[Any]", items):
        text = str(item) if isinstance(item, int | str) and not isinstance(item, bool) else ""
        if not text.isascii() or not text.isdigit():
            raise Invalid('The field snapshots must list snapshot ids, such as ["12", "13"].')
        if len(text) > 18:
            raise NotFound(f"Snapshot not found: {text[:40]}")
        numbers.append(int(text))
    return numbers


def _image(fields: dict[str, Any]) -> str | None:
    if "image" not in fields:
        return None
    digest = fields["image"]
    if not isinstance(digest, str) or not is_digest(digest):
        raise Invalid("The field image must be the file's SHA-256, 64 lower-case hexadecimal digits.")
    return digest


def _filter(resources: Resources, fields: dict[str, Any]) -> Filter | None:
    if "filter" not in fields:
        return None
    chosen = fields["filter"]
    if not isinstance(chosen, dict):
        raise Invalid("The field filter must be an object with app_id, branch or older_than.")
    named = cast("dict[str, Any]", chosen)
    if unknown := sorted(set(named) - _FILTER_FIELDS):
        raise Invalid(f"Unknown field {unknown[0]!r} in filter; it may have {', '.join(sorted(_FILTER_FIELDS))}.")
    older_than = _text(named, "older_than", 64)
    return Filter(
        app_id=_text(named, "app_id", 255),
        branch=_text(named, "branch", 255),
        older_than=None if older_than is None else _moment(older_than, resources.now()),
        older_than_asked=older_than,
    )


def _moment(text: str, now: datetime) -> datetime:
    """`30d`, `12h`, or an ISO time; one without a zone is taken as UTC."""
    if match := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
        try:
            return now - timedelta(**{unit: int(match[1])})
        except OverflowError:
            raise Invalid("The field older_than reaches too far back; use an ISO time.") from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("The field older_than must be an ISO time or a length of time such as 30d.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _flag(fields: dict[str, Any], field: str) -> bool:
    value = fields.get(field, False)
    if not isinstance(value, bool):
        raise Invalid(f"The field {field} must be true or false.")
    return value


def _text(fields: dict[str, Any], field: str, most: int) -> str | None:
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= most or _UNSTORABLE.search(value):
        raise Invalid(f"The field {field} must be text of 1 to {most} characters.")
    return value

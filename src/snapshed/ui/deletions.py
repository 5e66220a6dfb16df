"""Deleting from a page: the preview, the form that confirms exactly it, and receipts.

Nothing is deleted that a preview did not show: the form carries the preview's plan, and a changed plan asks again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from snapshed.auth import Reader, Res, check_csrf, projects_of, require
from snapshed.db.snapshots import Snapshot
from snapshed.domain.grants import allows
from snapshed.errors import Conflict, NotFound
from snapshed.resources import Resources
from snapshed.ui.forms import Form
from snapshed.ui.rendering import page, redirect
from snapshed.work import deletion, receipts, snapshots
from snapshed.work.access import Actor, Browser
from snapshed.work.deletion import Order

Number = Annotated[int, Query(ge=0, lt=2**63)]

_RECEIPTS = 100
_MOST_REASON = 500

KINDS = {
    "image": "Images",
    "manifest": "Manifests",
    "comparison": "Comparison reports",
    "mask": "Difference masks",
    "thumbnail": "Thumbnails",
    "archive": "Archives",
    "file": "Files",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why the form comes back instead of a receipt; `field` names the input that is to blame, if one is."""

    status: int
    sentence: str
    field: str | None = None


# --- Deleting one snapshot ----------------------------------------------------------------------------------------


@router.get("/snapshots/{number:int}/delete")
def preview(request: Request, resources: Res, reader: Reader, number: int) -> Response:
    """What a deletion would do now, and the form that asks for it."""
    return _preview(request, resources, reader, _deletable(resources, reader, number), "", None)


@router.post("/snapshots/{number:int}/delete")
def delete(request: Request, resources: Res, reader: Reader, number: int, form: Form) -> Response:
    """Delete what the preview showed, and lead to the receipt. Sent twice, it leads to the same one."""
    check_csrf(reader, form.get("csrf", ""))
    if not allows(reader.actor.scopes, "delete"):
        _deletable(resources, reader, number)
    reason = form.get("reason", "").strip()[:_MOST_REASON]
    refusal = _refusal(number, form)
    if refusal is None:
        order = _order(resources, reader.actor, number, reason, form["plan"], form["request"])
        try:
            return redirect(f"/deletions/{deletion.request(resources, order)}")
        except Conflict as conflict:
            refusal = _Refusal(409, str(conflict))
    return _preview(request, resources, reader, _deletable(resources, reader, number), reason, refusal)


def _refusal(number: int, form: Mapping[str, str]) -> _Refusal | None:
    if form.get("confirm", "").strip() != str(number):
        return _Refusal(400, f"Type {number}, the number of this snapshot, to confirm.", "confirm")
    if _uuid(form.get("request", "")) is None or not form.get("plan"):
        return _Refusal(400, "The form was incomplete. Look at the preview and confirm once more.")
    return None


def _deletable(resources: Resources, reader: Browser, number: int) -> Snapshot:
    snapshot = snapshots.find(resources, [project.id for project in projects_of(resources, reader.actor)], number)
    require(reader.actor, "delete")
    return snapshot


def _order(
    resources: Resources, actor: Actor, number: int, reason: str, plan: str | None, request_id: str | None
) -> Order:
    return Order(
        org_id=actor.org_id,
        projects=projects_of(resources, actor),
        requested_by=actor.principal,
        snapshots=[number],
        reason=reason or None,
        plan=plan,
        request_id=request_id,
    )


def _preview(
    request: Request, resources: Resources, reader: Browser, snapshot: Snapshot, reason: str, refusal: _Refusal | None
) -> Response:
    shown = deletion.preview(resources, _order(resources, reader.actor, snapshot.number, reason, None, None))
    return page(
        request,
        "delete.html",
        refusal.status if refusal else 200,
        browser=reader,
        snapshot=snapshot,
        preview=shown,
        kinds=_kinds(shown),
        totals=_totals(shown),
        reason=reason,
        most_reason=_MOST_REASON,
        request_id=str(resources.new_id()),
        refusal=refusal,
    )


# --- Receipts -----------------------------------------------------------------------------------------------------


@router.get("/deletions")
def listing(request: Request, resources: Res, reader: Reader, snapshot: Number | None = None) -> Response:
    """Receipts, newest first, or those of the deletions that took one snapshot or an image of it."""
    found = receipts.list_receipts(resources, reader.actor.org_id, reader.actor.project_id, snapshot, _RECEIPTS)
    lines = [(one, _totals(one)) for one in found]
    return page(request, "deletions.html", browser=reader, lines=lines, most=_RECEIPTS)


@router.get("/deletions/{deletion_id}")
def show(request: Request, resources: Res, reader: Reader, deletion_id: str) -> Response:
    """A receipt as it stands; while bytes are being removed the page looks again by itself."""
    known = _uuid(deletion_id)
    org_id = reader.actor.org_id
    # A deletion over several projects is shown only to who reaches them all.
    if known is None or reader.actor.project_id not in (None, receipts.find_project(resources, org_id, known)):
        raise NotFound("Deletion not found")
    found = receipts.find_receipt(resources, org_id, known)
    return page(
        request,
        "deletion.html",
        looks_again=found["state"] == "removing",
        browser=reader,
        receipt=found,
        kinds=_kinds(found),
        totals=_totals(found),
        document=json.dumps(found, indent=2, ensure_ascii=False),
    )


def _kinds(document: Mapping[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """The kinds of objects a receipt says anything about, under their names for people."""
    objects: dict[str, dict[str, int]] = document["objects"]
    return [(KINDS.get(kind, kind), count) for kind, count in objects.items() if count["released"]]


def _totals(document: Mapping[str, Any]) -> dict[str, int]:
    """Objects of all kinds together, by what became of them."""
    classes = ("released", "removed", "waiting", "kept_shared", "kept_pinned")
    return {name: sum(count[name] for count in document["objects"].values()) for name in classes}


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

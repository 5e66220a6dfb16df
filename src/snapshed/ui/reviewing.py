"""What the review desk asks for and sends: everything about a snapshot's images, and decisions as they are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from snapshed.auth import Reader, Res, check_csrf, projects_of, require
from snapshed.domain.verdict import Decided
from snapshed.errors import Invalid, NotFound
from snapshed.resources import Resources
from snapshed.ui import desk, view
from snapshed.ui.forms import Form
from snapshed.ui.rendering import json_answer, redirect
from snapshed.work import review, snapshots
from snapshed.work.access import Browser
from snapshed.work.review import Chosen

router = APIRouter(include_in_schema=False)


@router.get("/snapshots/{number:int}/review.json")
def everything(resources: Res, reader: Reader, number: int) -> Response:
    """Every image of a snapshot with what was found and decided, as the desk shows it."""
    found = snapshots.details(resources, _reach(resources, reader), number)
    return json_answer(desk.document(found, _badge(found, resources)))


@router.post("/snapshots/{number:int}/decision")
def decide(resources: Res, reader: Reader, number: int, form: Form) -> Response:
    """Decide about the whole, or take that back, then show the page again."""
    decision = _decision(resources, reader, number, form)
    reach, actor = _reach(resources, reader), reader.actor.principal
    if decision is None:
        review.undo(resources, reach, number, actor, "page")
    else:
        review.decide(resources, reach, number, decision, actor, "page")
    return redirect(f"/snapshots/{number}")


@router.post("/snapshots/{number:int}/images/decision")
def decide_images(resources: Res, reader: Reader, number: int, form: Form) -> Response:
    """Decide about one image (`name`) or a group that changed alike (`alike`), or undo that or a `batch`; answers with
    what is decided by now. From a plain form it leads back to the page."""
    decision = _decision(resources, reader, number, form)
    reach, actor = _reach(resources, reader), reader.actor.principal
    chosen = Chosen(form.get("name"), form.get("alike"))
    batch: UUID | None = None
    if decision is not None:
        batch = review.decide_images(resources, reach, number, chosen, decision, actor, "page")
    else:
        review.undo_images(
            resources, reach, number, _batch(form["batch"]) if "batch" in form else chosen, actor, "page"
        )
    if form.get("answer") != "json":
        return redirect(f"/snapshots/{number}?view=plain")
    found = snapshots.details(resources, reach, number)
    return json_answer(
        {"batch": None if batch is None else str(batch), **_badge(found, resources), **desk.decided(found)}
    )


def _decision(resources: Resources, reader: Browser, number: int, form: Mapping[str, str]) -> Decided | None:
    """What a form decides, None if it takes a decision back. A foreign snapshot is absent before anything else is said."""
    check_csrf(reader, form.get("csrf", ""))
    snapshots.find(resources, _reach(resources, reader), number)
    require(reader.actor, "review")
    decision = form.get("decision")
    if decision not in ("approved", "rejected", "undone"):
        raise Invalid("A decision is approved, rejected or undone; go back and choose one.")
    return None if decision == "undone" else decision


def _batch(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such decision to undo.") from None


def _badge(details: snapshots.Details, resources: Resources) -> dict[str, Any]:
    badge = view.badge_of(details, resources.now())
    return {"badge": {"label": badge.label, "tone": badge.tone, "sentence": badge.sentence}}


def _reach(resources: Resources, reader: Browser) -> list[int]:
    return [project.id for project in projects_of(resources, reader.actor)]

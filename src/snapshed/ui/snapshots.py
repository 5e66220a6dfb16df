"""The list of snapshots, the page of one, and the form that decides about it.

Nothing is shown that lies outside the browser's reach, and a decision is written by `work` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from snapshed.auth import Reader, Res, address_of, check_csrf, projects_of, require
from snapshed.db.snapshots import Listed
from snapshed.domain.grants import allows
from snapshed.errors import Invalid, NotFound
from snapshed.ui import view
from snapshed.ui.forms import Form
from snapshed.ui.rendering import page, redirect
from snapshed.ui.view import Badge, Chip
from snapshed.work import snapshots

_LINES = 50

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Line:
    snapshot: Listed
    badge: Badge
    chips: list[Chip]


@router.get("/")
def newest(request: Request, resources: Res, reader: Reader, before: int | None = None) -> Response:
    """A page of the list, newest first."""
    projects = projects_of(resources, reader.actor)
    before = before if before is None or 0 < before < 2**63 else None
    found = snapshots.page(resources, [project.id for project in projects], before, _LINES + 1)
    now = resources.now()
    lines = [_Line(one, view.badge_of_listed(one, now), view.chips(one.counts)) for one in found[:_LINES]]
    return page(
        request,
        "snapshots.html",
        browser=reader,
        lines=lines,
        older=lines[-1].snapshot.number if len(found) > _LINES else None,
        is_newest=before is None,
        projects=projects,
        address=address_of(request),
    )


@router.get("/snapshots/{number:int}")
def one(
    request: Request,
    resources: Res,
    reader: Reader,
    number: int,
    section: str | None = None,
    after: str | None = None,
) -> Response:
    """The page of one snapshot: all of its groups, or one of them from some name on."""
    details = snapshots.details(resources, _reach(resources, reader), number)
    if section is not None and section not in view.GROUPS:
        raise NotFound("This snapshot has no such section.")
    comparison = details.comparison
    is_compared = comparison is not None and comparison.state == "done"
    return page(
        request,
        "snapshot.html",
        looks_again=view.looks_again(details),
        browser=reader,
        snapshot=details.snapshot,
        base=details.base,
        comparison=comparison,
        is_compared=is_compared,
        badge=view.badge_of(details, resources.now()),
        chips=view.chips(comparison.counts) if comparison and is_compared else [],
        sections=view.sections(details, section, after),
        section=section,
        folded=view.FOLDED,
        paired=view.PAIRED,
        decisions=details.decisions,
        commit_address=view.commit_address(details.snapshot, details.snapshot.head_sha),
        pull_address=view.pull_address(details.snapshot),
        may_decide=allows(reader.actor.scopes, "review"),
        may_delete=allows(reader.actor.scopes, "delete"),
    )


@router.post("/snapshots/{number:int}/decision")
def decide(resources: Res, reader: Reader, number: int, form: Form) -> Response:
    """Approve or reject, then show the page again."""
    check_csrf(reader, form.get("csrf", ""))
    reach = _reach(resources, reader)
    snapshots.find(resources, reach, number)
    require(reader.actor, "review")
    decision = form.get("decision")
    if decision not in ("approved", "rejected"):
        raise Invalid("A decision is either approved or rejected; go back and choose one.")
    snapshots.decide(resources, reach, number, decision, reader.actor.principal)
    return redirect(f"/snapshots/{number}")


def _reach(resources: Res, reader: Reader) -> list[int]:
    return [project.id for project in projects_of(resources, reader.actor)]

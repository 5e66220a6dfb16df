"""The list of snapshots and the page of one.

Nothing is shown that lies outside the browser's reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from snapshed.auth import Reader, Res, address_of, projects_of
from snapshed.db.snapshots import Listed
from snapshed.domain.ancestry import SENTENCES
from snapshed.domain.grants import allows
from snapshed.errors import NotFound
from snapshed.ui import desk, view
from snapshed.ui.rendering import page
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
    view_as: Annotated[str | None, Query(alias="view")] = None,
) -> Response:
    """The page of one snapshot: the review desk, which is a plain list without JavaScript or when asked for; or one
    section of that list from some name on."""
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
        is_plain=section is not None or view_as == "plain",
        passed_over=[(one.number, SENTENCES[one.reason]) for one in details.passed_over],
        decisions=[(one, desk.by(one.actor, one.door)) for one in details.decisions],
        carried_from=desk.carried_from(details.decisions),
        can_undo=any(not one.by_images for one in details.decisions),
        standing=desk.decided(details),
        commit_address=view.commit_address(details.snapshot, details.snapshot.head_sha),
        pull_address=view.pull_address(details.snapshot),
        may_decide=allows(reader.actor.scopes, "review"),
        may_delete=allows(reader.actor.scopes, "delete"),
    )


def _reach(resources: Res, reader: Reader) -> list[int]:
    return [project.id for project in projects_of(resources, reader.actor)]

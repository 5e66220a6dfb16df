"""The list of snapshots and the page of one.

Nothing is shown that lies outside the browser's reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from snapshed.auth import Reader, Res, address_of, projects_of
from snapshed.db.snapshots import Filter, Listed
from snapshed.domain.ancestry import SENTENCES
from snapshed.domain.grants import allows
from snapshed.errors import NotFound
from snapshed.resources import Resources
from snapshed.ui import desk, view
from snapshed.ui.rendering import page
from snapshed.ui.view import Badge, Chip
from snapshed.work import snapshots

_LINES = 50
_LOOKS = 10
_OFFERED = 200

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Line:
    snapshot: Listed
    badge: Badge
    chips: list[Chip]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the list is filtered by, as the address says it; empty texts ask for nothing."""

    project: str = ""
    app: str = ""
    branch: str = ""
    state: str = ""
    q: str = ""

    @property
    def filter(self) -> Filter:
        """What the database is asked: `q` is a commit, or the number of a pull request."""
        text = self.q.strip().removeprefix("#")
        is_number = text.isascii() and text.isdigit() and len(text) < 8
        return Filter(
            app_id=self.app or None,
            branch=self.branch or None,
            commit=None if is_number else text.lower() or None,
            pr_number=int(text) if is_number else None,
        )

    def address(self, before: int) -> str:
        """The next page of the same list."""
        known = {field: getattr(self, field) for field in ("project", "app", "branch", "state", "q")}
        return "/?" + urlencode({name: value for name, value in known.items() if value} | {"before": before})


@router.get("/")
def newest(
    request: Request, resources: Res, reader: Reader, asked: Annotated[_Asked, Depends()], before: int | None = None
) -> Response:
    """A page of the list, newest first, filtered as the address says."""
    projects = projects_of(resources, reader.actor)
    reach = [project.id for project in projects if asked.project in ("", project.slug)]
    before = before if before is None or 0 < before < 2**63 else None
    lines, rest = _lines(resources, reach, asked, before)
    offered = snapshots.offered(resources, reach, _OFFERED)
    return page(
        request,
        "snapshots.html",
        browser=reader,
        lines=lines,
        older=None if rest is None else asked.address(rest),
        is_newest=before is None,
        is_filtered=asked != _Asked(),
        asked=asked,
        apps=[one.name for one in offered if one.kind == "app"],
        branches=[one.name for one in offered if one.kind == "branch"],
        states=view.LABELS,
        projects=projects,
        address=address_of(request),
    )


def _lines(resources: Resources, reach: list[int], asked: _Asked, before: int | None) -> tuple[list[_Line], int | None]:
    """A page of lines, and the number from which to go on; what a snapshot's state is only we can say, so that lines of
    another one are passed over here, up to a bound."""
    now = resources.now()
    lines: list[_Line] = []
    for _ in range(_LOOKS):
        found = snapshots.page(resources, reach, asked.filter, before, _LINES + 1)
        for one in found[:_LINES]:
            badge = view.badge_of_listed(one, now)
            before = one.number
            if asked.state in ("", badge.label):
                lines.append(_Line(one, badge, view.chips(one.counts)))
                if len(lines) == _LINES:
                    return lines, before if len(found) > _LINES or one is not found[-1] else None
        if len(found) <= _LINES:
            return lines, None
    return lines, before


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

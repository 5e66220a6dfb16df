"""One image over time: the strip beside it at the desk, and a page of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from snapshed.auth import Reader, Res, projects_of
from snapshed.db.history import Appearance
from snapshed.errors import NotFound
from snapshed.ui import words
from snapshed.ui.rendering import json_answer, page
from snapshed.work import history

_STRIP = 20
_LINES = 200

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Query(max_length=4096)]


@dataclass(frozen=True, slots=True)
class Content:
    """Snapshots in a row that show the same bytes, newest first."""

    address: str | None
    digest: str
    appearances: list[Appearance]

    @property
    def newest(self) -> Appearance:
        return self.appearances[0]

    @property
    def oldest(self) -> Appearance:
        return self.appearances[-1]

    @property
    def told(self) -> Appearance:
        """The one that says most about how this content came to be: where it differed from its base."""
        differs = [one for one in self.appearances if one.category not in (None, "unchanged")]
        return differs[-1] if differs else self.oldest


@router.get("/snapshots/{number:int}/about.json")
def about(
    resources: Res, reader: Reader, number: int, name: Text, digest: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Where one image of a snapshot appeared lately, and what its bytes cost."""
    reach = [project.id for project in projects_of(resources, reader.actor)]
    found = history.past(resources, reach, number, name, (digest or [])[:2], _STRIP)
    strip = [
        {
            "number": one.number,
            "state": one.category or "images",
            "digest": one.digest,
            "when": words.moment(one.created_at),
            "percent": None if one.share is None else words.percent(one.share),
            "decision": one.decision,
        }
        for one in found.appearances
    ]
    kept = {
        one.digest: {"bytes": words.amount(one.bytes), "snapshots": one.snapshots, "names": one.names}
        for one in found.kept
    }
    return json_answer({"strip": strip, "kept": kept})


@router.get("/history")
def timeline(
    request: Request,
    resources: Res,
    reader: Reader,
    project: Text,
    app: Text,
    name: Text,
    before: int | None = None,
) -> Response:
    """Every content an image has had, newest first, and in which snapshots."""
    found = next((one for one in projects_of(resources, reader.actor) if one.slug == project), None)
    if found is None:
        raise NotFound("There is no such project here.")
    before = before if before is None or 0 < before < 2**63 else None
    lines = history.appearances(resources, found.id, app, name, before, _LINES + 1)
    if not lines and before is None:
        raise NotFound("No snapshot shows an image of this name.")
    shown = lines[:_LINES]
    contents = [
        Content(None if is_withdrawn else f"/images/{found.id}/{digest}", digest, list(members))
        for (digest, is_withdrawn), members in groupby(shown, lambda one: (one.digest, one.is_withdrawn))
    ]
    here = {"project": project, "app": app, "name": name}
    return page(
        request,
        "history.html",
        browser=reader,
        project=found,
        app=app,
        name=name,
        contents=contents,
        count=len(shown),
        older=f"?{urlencode(here | {'before': shown[-1].number})}" if len(lines) > _LINES else None,
    )

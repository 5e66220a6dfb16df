"""What the review desk shows, as one JSON document: every image of a snapshot, what was found, what was decided. Pure.

Ten thousand images are one document: nothing is said that is null, and what did not change says hardly more than its
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from snapshed.db.reviews import Decision, Door
from snapshed.db.snapshots import Image
from snapshed.domain import report, verdict
from snapshed.domain.report import Result
from snapshed.ui import words
from snapshed.work.review import Standing, standing
from snapshed.work.snapshots import Details

Document = dict[str, Any]


def document(details: Details, badge: Document) -> Document:
    """Everything the desk needs, in the order of names."""
    snapshot = details.snapshot
    compared = details.comparison is not None and details.comparison.state == "done"
    head = {image.name: image for image in details.images}
    base = {image.name: image for image in details.base_images}
    stands = standing(details.results, details.decisions, details.image_decisions) if compared else {}
    told = {result.name for result in details.results}
    entries = [
        _found(result, head.get(result.name), base.get(result.previous_name or result.name), stands.get(result.name))
        for result in details.results
        if compared
    ]
    rest = "unchanged" if compared else "images"
    entries += [_alone(image, rest) for image in details.images if not compared or image.name not in told]
    entries.sort(key=lambda entry: entry["name"])
    return {"images": f"/images/{snapshot.project_id}/", "entries": entries, **badge, **decided(details)}


def decided(details: Details) -> Document:
    """What is decided about every image by now, and how many still wait for somebody."""
    compared = details.comparison is not None and details.comparison.state == "done"
    stands = standing(details.results, details.decisions, details.image_decisions) if compared else {}
    needing = [result.name for result in details.results if verdict.needs_review(result.category)]
    return {
        "decisions": {name: decision_of(one) for name, one in stands.items() if one.decision},
        "needing": len(needing),
        "undecided": sum(1 for name in needing if name in stands and not stands[name].decision),
    }


def decision_of(one: Standing) -> Document:
    """One decision in words."""
    about = one.own or one.whole
    assert about is not None  # noqa: S101  only what was decided is told
    return {
        "is": about.decision,
        "by": by(about.actor, about.door),
        "at": words.iso(about.decided_at),
        "when": words.moment(about.decided_at),
        "own": one.own is not None,
    }


def by(actor: str, door: Door | None) -> str:
    """Who decided, and how: a person on a page, a program with a token, or the rule that repeats an approval.

    >>> by("token:admin", "page"), by("token:ci", "api"), by("auto:41", "rule")
    ('admin on the page', 'the token ci through the API', 'a rule, as in snapshot #41')
    """
    name = actor.partition(":")[2] or actor
    if door == "rule" or actor.startswith(verdict.AUTOMATIC):
        return f"a rule, as in snapshot #{name}"
    if door == "page":
        return f"{name} on the page"
    return f"the token {name} through the API" if door == "api" else f"the token {name}"


def carried_from(decisions: list[Decision]) -> int | None:
    """The snapshot whose approval stands for this one too, if that is why it is approved."""
    newest = decisions[0].actor if decisions else ""
    number = newest.removeprefix(verdict.AUTOMATIC)
    return int(number) if newest.startswith(verdict.AUTOMATIC) and number.isdigit() else None


def _found(result: Result, head: Image | None, base: Image | None, stands: Standing | None) -> Document:
    about = head or base
    shows_base = result.category not in ("added", "renamed")
    entry: Document = {
        "name": result.name,
        "state": result.category,
        **_described(about),
        "head": _picture(head, result.head_digest, result.head_width, result.head_height)
        if result.category not in ("removed", "skipped")
        else None,
        "base": _picture(base, result.base_digest, result.base_width, result.base_height) if shows_base else None,
        "mask": None if result.mask_id is None else str(result.mask_id),
        "share": result.ratio,
        "pixels": result.changed_pixels,
        "total": result.total_pixels,
        "percent": None if result.ratio is None else words.percent(result.ratio),
        "threshold": result.threshold,
        "from": result.threshold_from,
        "passes": result.passing_threshold if result.category == "changed" else None,
        "regions": [list(box) for box in result.regions] if result.regions else None,
        "alike": result.fingerprint if result.category == "changed" else None,
        "why": report.sentence(result),
        "was": result.previous_name,
        "problem": words.REASONS.get(result.reason or "", "The two images could not be compared.")
        if result.category == "errored"
        else None,
        "detail": result.detail,
        "decidable": stands is not None or None,
        "needed": verdict.needs_review(result.category) or None,
    }
    return {field: value for field, value in entry.items() if value is not None}


def _alone(image: Image, state: str) -> Document:
    return {
        "name": image.name,
        "state": state,
        **_described(image),
        "head": _picture(image, image.digest, image.width, image.height),
    }


def _described(image: Image | None) -> Document:
    facts: Mapping[str, Any] = image.facts if image else {}
    tags = cast("dict[str, str]", facts.get("tags") or {})
    told = {
        "title": facts.get("display_name"),
        "about": facts.get("description"),
        "group": facts.get("group"),
        "tags": [key if key == value else f"{key}: {value}" for key, value in tags.items()][:12],
        "dark": facts.get("canvas_theme") == "dark",
    }
    return {field: value for field, value in told.items() if value}


def _picture(image: Image | None, digest: str | None, width: int | None, height: int | None) -> list[Any] | None:
    """What to ask for, and its size: of the decoded file where there is one, else as its uploader claimed. The first is
    null once the image was withdrawn."""
    if image is None and digest is None:
        return None
    is_withdrawn = image is not None and image.image_id is None
    known = (width, height) if width and height else (image.width, image.height) if image else (0, 0)
    return [None if is_withdrawn else image.digest if image else digest, *known]

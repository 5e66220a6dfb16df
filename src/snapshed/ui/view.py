"""What the page of a snapshot shows, worked out from what is known about it. Pure.

Only what one page holds is worked out, so that ten thousand images cost no more than the two hundred on view.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from urllib.parse import urlencode

from snapshed.db.snapshots import Image, Listed, Snapshot
from snapshed.domain import verdict
from snapshed.domain.report import Result
from snapshed.ui import words
from snapshed.work.snapshots import Details

ENTRIES = 200
"""How many images of one section a page holds."""

Group = Literal["changed", "errored", "removed", "added", "renamed", "skipped", "unchanged", "images"]

GROUPS: tuple[Group, ...] = ("changed", "errored", "removed", "added", "renamed", "skipped", "unchanged", "images")
FOLDED: frozenset[Group] = frozenset({"skipped", "unchanged"})
PAIRED: frozenset[Group] = frozenset({"changed", "errored"})

_EXPLAINED: Mapping[Group, str] = {
    "changed": "They look different from their base. The largest difference comes first.",
    "errored": "They could not be compared, so nobody knows whether they changed.",
    "removed": "The base has them, this snapshot does not.",
    "added": "This snapshot has them, the base does not.",
    "renamed": "The same image under another name.",
    "skipped": "Left out of this partial upload; nothing is said about them.",
    "unchanged": "They look like their base.",
    "images": "",
}

_TALL = 60
"""A picture that claims to be more than this many times as high as wide gets no room reserved before it is there."""

_TINY = 64
"""Up to this many pixels a side a picture is enlarged, pixel by pixel."""

_PART = 560
"""Up to this many pixels a side a picture is taken for a part of a page, and shown whole in a small space."""
_REPO = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict in words. `tone` picks a colour and a sign; the words say the same."""

    label: str
    tone: Literal["good", "look", "bad", "wait", "plain"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Chip:
    """How many images are in one group."""

    group: Group
    count: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to show. `address` is None once it was withdrawn; `width` and `height` reserve its room, if known."""

    address: str | None
    size: str
    width: int | None
    height: int | None
    is_tiny: bool
    is_part: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in one group, with everything that is said about it."""

    anchor: str
    name: str
    title: str
    description: str | None
    labels: tuple[str, ...]
    is_on_dark: bool
    base: Picture | None
    head: Picture | None
    mask: Picture | None
    is_aligned: bool
    facts: tuple[tuple[str, str], ...]
    share: str | None
    problem: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Section:
    """A page of one group. `more` is the query that leads to the next page, None on the last."""

    group: Group
    count: int
    first: int
    says: str
    entries: tuple[Entry, ...]
    more: str | None

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1


# --- Verdicts and counts -------------------------------------------------------------------------------------------

_BADGES: Mapping[verdict.Verdict, Badge] = {
    "pending": Badge("Comparing", "wait", "The comparison is not finished yet."),
    "passed": Badge("Passed", "good", "Nothing here needs a person's eye."),
    "changed": Badge("Needs review", "look", "Somebody has to look at what changed and decide."),
    "approved": Badge("Approved", "good", "What changed was looked at and approved."),
    "rejected": Badge("Rejected", "bad", "Somebody looked at what changed and said no."),
    "failed": Badge("Failed", "bad", "Not everything could be compared, so this has not passed."),
    "no_base": Badge("No base", "plain", "There is nothing to compare this snapshot with."),
}


LABELS = [*(one.label for one in _BADGES.values()), "Waiting for base"]
"""Every state a snapshot can be in, in words."""


def badge(
    state: str | None,
    counts: Mapping[str, int] | None,
    decision: str | None,
    base_sha: str | None,
    created_at: datetime,
    now: datetime,
) -> Badge:
    """The verdict on a snapshot; one whose base may still arrive is waiting, not without a base."""
    if state is None and verdict.awaits_base(base_sha, created_at, now):
        state = "waiting"
        if decision is None:
            return Badge("Waiting for base", "wait", "The base commit's snapshot has not arrived yet.")
    known = cast("verdict.State | None", state)
    return _BADGES[verdict.verdict(known, counts or {}, cast("verdict.Decided | None", decision))]


def badge_of_listed(line: Listed, now: datetime) -> Badge:
    return badge(line.comparison_state, line.counts, line.decision, line.base_sha, line.created_at, now)


def badge_of(details: Details, now: datetime) -> Badge:
    comparison, snapshot = details.comparison, details.snapshot
    found = badge(
        comparison.state if comparison else None,
        comparison.counts if comparison else None,
        details.decisions[0].decision if details.decisions else None,
        snapshot.base_sha,
        snapshot.created_at,
        now,
    )
    if found.label == "Approved" and details.decisions[0].actor.startswith(verdict.AUTOMATIC):
        return Badge(found.label, found.tone, "The same changes were approved before, pixel for pixel.")
    return found


def chips(counts: Mapping[str, int] | None) -> list[Chip]:
    """What there is, in the order in which it wants to be looked at."""
    known = counts or {}
    return [Chip(group, known[group]) for group in GROUPS if known.get(group)]


def looks_again(details: Details) -> bool:
    """Whether the page will look different in a moment."""
    return details.comparison is not None and details.comparison.state in ("waiting", "running")


# --- Where a commit lives ------------------------------------------------------------------------------------------


def commit_address(snapshot: Snapshot, sha: str | None) -> str | None:
    """The commit's page, where the provider's public address is beyond doubt."""
    home = _home(snapshot)
    return f"{home}/commit/{sha}" if home and sha else None


def pull_address(snapshot: Snapshot) -> str | None:
    home = _home(snapshot)
    return f"{home}/pull/{snapshot.pr_number}" if home and snapshot.pr_number else None


def _home(snapshot: Snapshot) -> str | None:
    repo = snapshot.head_repo_name or ""
    is_plain = _REPO.fullmatch(repo) is not None and not {".", ".."} & set(repo.split("/"))
    return f"https://github.com/{repo}" if snapshot.provider in ("github", "github.com") and is_plain else None


# --- Sections ------------------------------------------------------------------------------------------------------


def sections(details: Details, only: str | None, after: str | None) -> list[Section]:
    """Every group that is not empty, each from its beginning; or one group from beyond the name `after`."""
    grouped = _grouped(details)
    draw = _Drawing(details)
    return [
        _section(group, grouped[group], draw, after if group == only else None)
        for group in GROUPS
        if grouped[group] and only in (None, group)
    ]


def _grouped(details: Details) -> dict[Group, list[tuple[str, Result | None]]]:
    """Names by group, in the order of the page, each with what the comparison found, if anything."""
    grouped: dict[Group, list[tuple[str, Result | None]]] = {group: [] for group in GROUPS}
    if details.comparison is None or details.comparison.state != "done":
        grouped["images"] = [(image.name, None) for image in details.images]
        return grouped
    for result in details.results:
        grouped[result.category].append((result.name, result))
    # Equal files were never decoded, so the comparison has no line for them.
    told = {result.name for result in details.results}
    grouped["unchanged"] += [(image.name, None) for image in details.images if image.name not in told]
    grouped["unchanged"].sort(key=lambda line: line[0])
    grouped["changed"].sort(key=lambda line: (-_share(line[1]), line[0]))
    return grouped


def _share(result: Result | None) -> float:
    if result is None or not result.total_pixels or result.changed_pixels is None:
        return 0.0
    return result.changed_pixels / result.total_pixels


def _section(group: Group, lines: Sequence[tuple[str, Result | None]], draw: _Drawing, after: str | None) -> Section:
    start = next((place + 1 for place, (name, _) in enumerate(lines) if name == after), 0) if after else 0
    shown = lines[start : start + ENTRIES]
    has_more = start + ENTRIES < len(lines)
    return Section(
        group=group,
        count=len(lines),
        first=start + 1,
        says=_EXPLAINED[group],
        entries=tuple(draw.entry(group, start + place, name, result) for place, (name, result) in enumerate(shown, 1)),
        more=urlencode({"section": group, "after": shown[-1][0]}) if has_more else None,
    )


class _Drawing:
    """Makes entries of one snapshot's page."""

    def __init__(self, details: Details) -> None:
        self._project_id = details.snapshot.project_id
        self._default = details.snapshot.diff_threshold
        self._head = {image.name: image for image in details.images}
        self._base = {image.name: image for image in details.base_images}

    def entry(self, group: Group, place: int, name: str, result: Result | None) -> Entry:
        head, base = self._sides(group, name, result)
        about = head or base
        facts: Mapping[str, Any] = about.facts if about else {}
        return Entry(
            anchor=f"{group}-{place}",
            name=name,
            title=str(facts.get("display_name") or _last_part(name)),
            description=_text(facts, "description"),
            labels=_labels(facts),
            is_on_dark=facts.get("canvas_theme") == "dark",
            base=self._picture(base, result and (result.base_width, result.base_height)),
            head=self._picture(head, result and (result.head_width, result.head_height)),
            mask=self._mask(result),
            is_aligned=head is None or base is None or head.width == base.width,
            facts=_facts(group, result),
            share=words.percent(_share(result)) if group == "changed" else None,
            problem=_problem(result) if group == "errored" else None,
            note=_note(group, result),
        )

    def _sides(self, group: Group, name: str, result: Result | None) -> tuple[Image | None, Image | None]:
        head = None if group in ("removed", "skipped") else self._head.get(name)
        base = None if result is None or group in ("added", "renamed", "unchanged") else self._base.get(name)
        return head, base

    def _picture(self, image: Image | None, decoded: tuple[int | None, int | None] | None) -> Picture | None:
        if image is None:
            return None
        # What the client claimed counts only as long as nobody decoded the file.
        width, height = decoded if decoded and all(decoded) else (image.width, image.height)
        address = None if image.image_id is None else f"/images/{self._project_id}/{image.digest}"
        return _picture(address, width or 0, height or 0)

    def _mask(self, result: Result | None) -> Picture | None:
        if result is None or result.mask_id is None:
            return None
        width = max(result.head_width or 0, result.base_width or 0)
        height = max(result.head_height or 0, result.base_height or 0)
        return _picture(f"/images/{self._project_id}/{result.mask_id}", width, height)


def _picture(address: str | None, width: int, height: int) -> Picture:
    is_plausible = 0 < width <= 100_000 and 0 < height <= 100_000 and height <= width * _TALL
    return Picture(
        address=address,
        size=f"{width:,} × {height:,} px" if width and height else "size unknown",
        width=width if is_plausible else None,
        height=height if is_plausible else None,
        is_tiny=0 < width <= _TINY and 0 < height <= _TINY,
        is_part=_TINY < max(width, height) <= _PART,
    )


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _text(facts: Mapping[str, Any], field: str) -> str | None:
    value = facts.get(field)
    return value if isinstance(value, str) and value else None


def _labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    tags = cast("dict[str, str]", facts.get("tags") or {})
    told = [key if key == value else f"{key}: {value}" for key, value in tags.items()]
    group = _text(facts, "group")
    return tuple(([group] if group else []) + told)[:12]


def _facts(group: Group, result: Result | None) -> tuple[tuple[str, str], ...]:
    if result is None or group not in PAIRED:
        return ()
    told: list[tuple[str, str]] = []
    if result.changed_pixels is not None and result.total_pixels:
        told.append(("Pixels", f"{result.changed_pixels:,} of {result.total_pixels:,}"))
    told.append(("Threshold", _threshold(result.threshold)))
    return tuple(told)


def _threshold(threshold: float | None) -> str:
    if threshold is None:
        return "not reached"
    return f"more than {words.percent(threshold)}" if threshold else "any pixel"


def _problem(result: Result | None) -> str:
    reason = result.reason if result else None
    return words.REASONS.get(reason or "", "The two images could not be compared.")


def _note(group: Group, result: Result | None) -> str | None:
    if result is None:
        return None
    if group == "renamed":
        return f"was {result.previous_name}"
    if group == "errored":
        return result.detail
    if group == "unchanged" and result.changed_pixels:
        return f"{words.percent(_share(result))} changed, within the threshold"
    if group == "unchanged" and result.total_pixels is not None:
        return "another file, the same look"
    return None

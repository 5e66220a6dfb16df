"""Which snapshots a project's rule keeps and which it lets go, each with a reason in plain words. Pure.

In doubt a snapshot is kept. Nothing here goes by what another snapshot's fate will be: what is needed is needed for as
long as whoever needs it exists, so the next run takes what this one had to leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from snapshed.domain.ancestry import DEEPEST
from snapshed.domain.receipt import moment

Kind = Literal["pull_request", "branch", "default_branch"]

KINDS: Mapping[Kind, str] = {
    "pull_request": "pull request",
    "branch": "branch",
    "default_branch": "default branch",
}
"""The classes in words."""

LONGEST_DAYS = 36_500
MOST_BRANCHES = 20
"""What a rule may say: a class's days, 1 up to a hundred years, and how many default branches."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How many days each class of a project is kept; None: for ever. The defaults hold where nobody has set anything."""

    superseded_days: int | None = 30
    quiet_days: int | None = 90
    default_days: int | None = 365
    default_branches: tuple[str, ...] = ("main", "master")


@dataclass(frozen=True, slots=True)
class Fact:
    """What counts about one unmarked snapshot. `unfinished_bases` and `undecided_bases` are numbers of the snapshots it
    is being compared with, or was compared with and nobody has decided."""

    number: int
    app_id: str
    created_at: datetime
    branch: str | None = None
    repo_name: str | None = None
    pr_number: int | None = None
    head_sha: str | None = None
    base_sha: str | None = None
    base_repo_name: str | None = None
    selective: bool = False
    is_complete: bool = True
    awaits_base: bool = False
    held_for: str | None = None
    held_until: datetime | None = None
    unfinished_bases: Sequence[int] = field(default=())
    undecided_bases: Sequence[int] = field(default=())


@dataclass(frozen=True, slots=True)
class Decision:
    """One snapshot's fate. `goes_at` is when its class's time is or was over; None if no time is set, or if something
    other than the time keeps it."""

    number: int
    app_id: str
    kind: Kind
    deletes: bool
    reason: str
    goes_at: datetime | None


def document(decisions: Sequence[Decision], paused_for: str | None) -> dict[str, Any]:
    """A plan as JSON."""
    return {
        "paused_for": paused_for,
        "deletes": sum(item.deletes for item in decisions),
        "keeps": sum(not item.deletes for item in decisions),
        "snapshots": [
            {
                "snapshot": str(item.number),
                "app_id": item.app_id,
                "class": item.kind,
                "deletes": item.deletes,
                "reason": item.reason,
                "goes_at": moment(item.goes_at),
            }
            for item in decisions
        ],
    }


# | a snapshot is                                                    | it goes                                         |
# |------------------------------------------------------------------|-------------------------------------------------|
# | held, itself or by its branch                                    | never                                           |
# | the newest whole base of its app                                 | never                                           |
# | the newest build of a default branch, or what that leans on      | never                                           |
# | the base of an unfinished or undecided comparison, or what it    | once nobody needs it any more                   |
# | leans on                                                         |                                                 |
# | a pull request's build, followed by a newer one of the same app  | superseded_days after the one that followed it  |
# | a pull request's newest build                                    | quiet_days after the pull request's last build  |
# | another branch's newest build                                    | quiet_days after the branch's last build        |
# | another branch's older build                                     | the same, or default_days after it was made     |
# | a default branch's build, or one of no branch                    | default_days after it was made                  |
def plan(facts: Iterable[Fact], rule: Rule, now: datetime) -> list[Decision]:
    """Decide about every snapshot of one project, in order of number. Whatever the order of the facts, the answer is
    the same; what goes at one time goes at every later time."""
    snapshots = sorted(facts, key=lambda fact: fact.number)
    project = _Project(snapshots, rule)
    needed = _needed(project)
    return [_decide(project, needed, fact, now) for fact in snapshots]


def _decide(project: _Project, needed: Mapping[int, str], fact: Fact, now: datetime) -> Decision:
    kind = project.kind(fact)
    if fact.held_for is not None and (fact.held_until is None or fact.held_until > now):
        return Decision(fact.number, fact.app_id, kind, deletes=False, reason=fact.held_for, goes_at=None)
    if fact.number in needed:
        return Decision(fact.number, fact.app_id, kind, deletes=False, reason=needed[fact.number], goes_at=None)
    goes_at, why = _end(project, fact, kind)
    deletes = goes_at is not None and goes_at <= now
    return Decision(fact.number, fact.app_id, kind, deletes=deletes, reason=why, goes_at=goes_at)


# --- Time ------------------------------------------------------------------------------------------------------------


def _end(project: _Project, fact: Fact, kind: Kind) -> tuple[datetime | None, str]:
    """When a snapshot's time is over, and the reason that counts whether it is or not yet."""
    rule = project.rule
    made = _after(fact.created_at, rule.default_days, f"made on {_day(fact.created_at)}, and its class is kept {{}}")
    if kind == "default_branch":
        return made
    quiet_since = project.last_build(fact)
    name = f"pull request {fact.pr_number}" if kind == "pull_request" else f"branch {fact.branch}"
    quiet = _after(quiet_since, rule.quiet_days, f"{name} is quiet since {_day(quiet_since)}, and is then kept {{}}")
    follower = project.follower(fact)
    if follower is None:
        return quiet
    if kind == "branch":
        return _earlier(quiet, made)
    said = f"superseded by snapshot {follower.number} on {_day(follower.created_at)}, and is then kept {{}}"
    return _earlier(_after(follower.created_at, rule.superseded_days, said), quiet)


def _after(start: datetime, days: int | None, said: str) -> tuple[datetime | None, str]:
    if days is None:
        return None, said.format("for ever")
    return start + timedelta(days=days), said.format(f"for {days} {'day' if days == 1 else 'days'}")


def _earlier(one: tuple[datetime | None, str], other: tuple[datetime | None, str]) -> tuple[datetime | None, str]:
    """The end that comes first; an end that never comes is the later one."""
    if one[0] is None:
        return other if other[0] is not None else one
    return other if other[0] is not None and other[0] < one[0] else one


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


# --- Need ------------------------------------------------------------------------------------------------------------


def _needed(project: _Project) -> dict[int, str]:
    """Numbers of snapshots that something needs, each with the first reason found."""
    needed: dict[int, str] = {}
    for base in project.newest_bases():
        needed.setdefault(base.number, f"the newest whole base of app {base.app_id}")
    for tip in project.tips():
        needed.setdefault(tip.number, f"the newest build of app {tip.app_id} on a default branch")
        _keep_chain(project, needed, tip)
    for fact in project.facts:
        for number, why in _bases_needed_by(project, fact):
            if number in project.by_number:
                needed.setdefault(number, why)
                _keep_chain(project, needed, project.by_number[number])
    return needed


def _bases_needed_by(project: _Project, fact: Fact) -> Iterable[tuple[int, str]]:
    for number in sorted(fact.unfinished_bases):
        yield number, f"snapshot {fact.number} is still to be compared with it"
    chosen = project.base_of(fact) if fact.awaits_base else None
    if chosen is not None:
        yield chosen.number, f"snapshot {fact.number} has no other base to be compared with"
    if fact.pr_number is not None and project.follower(fact) is None:
        for number in sorted(fact.undecided_bases):
            yield number, f"snapshot {fact.number} was compared with it, and nobody has decided yet"


def _keep_chain(project: _Project, needed: dict[int, str], base: Fact) -> None:
    """Keep what a partial base leans on, until a whole one is reached."""
    seen = {base.number}
    last = base
    while last.selective and len(seen) <= DEEPEST:
        below = project.base_of(last)
        if below is None or below.number in seen:
            return
        needed.setdefault(below.number, f"snapshot {last.number} holds only some images and leans on it")
        seen.add(below.number)
        last = below


class _Project:
    """The facts of one project, arranged for the questions above."""

    def __init__(self, facts: Sequence[Fact], rule: Rule) -> None:
        self.facts = facts
        self.rule = rule
        self.by_number = {fact.number: fact for fact in facts}
        self._last: dict[tuple[object, ...], datetime] = {}
        self._follower: dict[int, Fact] = {}
        self._of_commit: dict[tuple[str, str, str | None], Fact] = {}
        newest: dict[tuple[object, ...], Fact] = {}
        for fact in sorted(facts, key=_age):
            line = self._line(fact)
            self._last[line] = fact.created_at
            if (before := newest.get((fact.app_id, *line))) is not None:
                self._follower[before.number] = fact
            newest[fact.app_id, *line] = fact
            if fact.head_sha is not None:
                self._of_commit[fact.app_id, fact.head_sha, fact.repo_name] = fact

    def kind(self, fact: Fact) -> Kind:
        if fact.pr_number is not None:
            return "pull_request"
        return "default_branch" if fact.branch in (None, *self.rule.default_branches) else "branch"

    def last_build(self, fact: Fact) -> datetime:
        """When the pull request or branch was last built, whichever app."""
        return self._last[self._line(fact)]

    def follower(self, fact: Fact) -> Fact | None:
        """The next build of the same app on the same pull request or branch."""
        return self._follower.get(fact.number)

    def base_of(self, fact: Fact) -> Fact | None:
        """The base as it would be chosen now: the newest other snapshot of the same app and of the base commit."""
        if fact.base_sha is None:
            return None
        found = self._of_commit.get((fact.app_id, fact.base_sha, fact.base_repo_name))
        return None if found is None or found.number == fact.number else found

    def newest_bases(self) -> list[Fact]:
        """Of every app the newest whole snapshot: of a default branch, else of any branch, else of a pull request."""
        best: dict[str, tuple[int, datetime, int]] = {}
        for fact in self.facts:
            if fact.is_complete and not fact.selective:
                rank = (-_NEAREST.index(self.kind(fact)), fact.created_at, fact.number)
                best[fact.app_id] = max(rank, best.get(fact.app_id, rank))
        return [self.by_number[number] for _, _, number in best.values()]

    def tips(self) -> list[Fact]:
        """Of every app the newest snapshot of each default branch: what the next pull request is compared with."""
        newest: dict[tuple[object, ...], Fact] = {}
        for fact in sorted(self.facts, key=_age):
            if self.kind(fact) == "default_branch":
                newest[fact.app_id, *self._line(fact)] = fact
        return list(newest.values())

    @staticmethod
    def _line(fact: Fact) -> tuple[object, ...]:
        """The pull request or branch a snapshot is a build of."""
        if fact.pr_number is not None:
            return ("pull request", fact.repo_name, fact.pr_number)
        return ("branch", fact.repo_name, fact.branch)


_NEAREST: tuple[Kind, ...] = ("default_branch", "branch", "pull_request")


def _age(fact: Fact) -> tuple[datetime, int]:
    return fact.created_at, fact.number

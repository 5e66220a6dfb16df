"""A simulated year of CI under rules: stored bytes stay under a budget that can be said beforehand.

No store and no database: the rule decides over facts, and bytes are counted as the store would hold them, an image once
however many snapshots name it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from snapshed.domain.retention import Fact, Rule, plan

START = datetime(2026, 1, 1, tzinfo=UTC)
NIGHTS = 7
"""A rule is carried out every so many nights: seldomer than in truth, so that the simulation is short."""

APPS = ("web", "ios")
IMAGES, CHANGED_ON_MAIN, CHANGED_IN_BUILD = 300, 3, 6
IMAGE_BYTES, ENTRY_BYTES, MASK_BYTES = 40_000, 220, 6_000
MERGES_A_DAY, REQUESTS_A_DAY, BUILDS_A_REQUEST = 2, 2, 4


@dataclass
class Store:
    """What stands in the store: images by how many snapshots name them, and what is each snapshot's own."""

    named: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    bytes: int = 0

    def add(self, images: Iterable[tuple[str, int, int]], own: int) -> None:
        for image in images:
            self.named[image] += 1
            if self.named[image] == 1:
                self.bytes += IMAGE_BYTES
        self.bytes += own

    def remove(self, images: Iterable[tuple[str, int, int]], own: int) -> None:
        for image in images:
            self.named[image] -= 1
            if not self.named[image]:
                del self.named[image]
                self.bytes -= IMAGE_BYTES
        self.bytes -= own


class Ci:
    """A team's pipelines: merges to the default branch, and pull requests with a few builds each on days that follow."""

    def __init__(self, rule: Rule | None) -> None:
        self.rule = rule
        self.store = Store()
        self.facts: dict[int, Fact] = {}
        self._contents: dict[int, tuple[list[tuple[str, int, int]], int]] = {}
        self._dice = random.Random(7)
        self._numbers = count(1)
        self._versions = 0
        self._requests = 0
        self._open: list[tuple[int, str, int]] = []
        self._main = {app: [self._new(app, slot) for slot in range(IMAGES)] for app in APPS}
        self._head: dict[str, Fact] = {}

    def live(self, day: int) -> None:
        """One day: merges, builds of pull requests, and in some nights the rule."""
        now = START + timedelta(days=day)
        for app in APPS:
            for hour in range(MERGES_A_DAY):
                for slot in self._dice.sample(range(IMAGES), CHANGED_ON_MAIN):
                    self._main[app][slot] = self._new(app, slot)
                self._head[app] = self._upload(app, now + timedelta(hours=9 + hour), self._main[app], 0, branch="main")
            for _ in range(REQUESTS_A_DAY):
                self._requests += 1
                self._open.append((self._requests, app, BUILDS_A_REQUEST))
        still: list[tuple[int, str, int]] = []
        for number, app, left in self._open:
            images = list(self._main[app])
            for slot in self._dice.sample(range(IMAGES), CHANGED_IN_BUILD):
                images[slot] = self._new(app, slot)
            at = now + timedelta(hours=14)
            self._upload(app, at, images, CHANGED_IN_BUILD, pr_number=number, branch=f"topic-{number}")
            if left > 1:
                still.append((number, app, left - 1))
        self._open = still
        if self.rule is not None and day % NIGHTS == 0:
            for decision in plan(self.facts.values(), self.rule, now + timedelta(days=1)):
                if decision.deletes:
                    del self.facts[decision.number]
                    self.store.remove(*self._contents.pop(decision.number))

    def _new(self, app: str, slot: int) -> tuple[str, int, int]:
        self._versions += 1
        return app, slot, self._versions

    def _upload(self, app: str, at: datetime, images: list[tuple[str, int, int]], masks: int, **facts: object) -> Fact:
        number = next(self._numbers)
        fact = replace(Fact(number, app, at, repo_name="us/web", head_sha=str(number)), **facts)  # type: ignore[arg-type]
        if fact.pr_number is not None:
            # Nobody ever decides: every pull request keeps the base that its newest build was compared with.
            fact = replace(fact, base_sha=self._head[app].head_sha, undecided_bases=(self._head[app].number,))
        self.facts[number] = fact
        own = len(images) * ENTRY_BYTES + masks * (MASK_BYTES + 500)
        self._contents[number] = (list(images), own)
        self.store.add(images, own)
        return fact


def simulated(rule: Rule | None, days: int) -> list[int]:
    """The bytes that stand in the store at the end of every day."""
    ci = Ci(rule)
    told: list[int] = []
    for day in range(days):
        ci.live(day)
        told.append(ci.store.bytes)
    assert all(any(fact.app_id == app and fact.branch == "main" for fact in ci.facts.values()) for app in APPS)
    return told


MB = 1_000_000


@pytest.mark.parametrize(
    ("rule", "budget"),
    [(Rule(), 600 * MB), (Rule(superseded_days=7, quiet_days=14, default_days=60), 170 * MB)],
    ids=["by default", "a strict rule"],
)
@pytest.mark.scale
def test_under_rules_a_year_of_ci_and_more_stays_within_a_budget(rule: Rule, budget: int) -> None:
    # The longest time of the rule, and the quiet time of what may keep an old base; from then on as much goes as comes.
    level = (rule.default_days or 0) + (rule.quiet_days or 0)
    told = simulated(rule, max(365, level) + 60)
    assert max(told) <= budget
    assert max(told[level:]) <= 1.02 * max(told[:level])


@pytest.mark.scale
def test_without_rules_the_same_year_needs_more_and_never_less() -> None:
    told = simulated(None, 365)
    assert told == sorted(told)
    assert told[-1] > 2000 * MB

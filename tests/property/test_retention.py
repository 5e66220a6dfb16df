"""What a rule may never do, whatever a project looks like: found out on invented projects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshed.domain.retention import Fact, Rule, plan

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=400)

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast the machine is says nothing about a rule."""

days = st.none() | st.integers(1, 500)
rules = st.builds(Rule, days, days, days, st.sampled_from([("main",), ("main", "trunk"), ("nowhere",)]))
moments = st.integers(0, 399).map(lambda day: START + timedelta(days=day))
shas = st.none() | st.sampled_from(["a", "b", "c"])


@st.composite
def projects(draw: st.DrawFn) -> list[Fact]:
    """Few apps, branches and commits, so that snapshots have to do with each other."""
    size = draw(st.integers(0, 14))
    numbers = st.lists(st.integers(1, size), max_size=2, unique=True) if size else st.just([])
    return [
        Fact(
            number=number,
            app_id=draw(st.sampled_from(["web", "ios"])),
            created_at=draw(moments),
            branch=draw(st.sampled_from([None, "main", "trunk", "topic"])),
            repo_name=draw(st.sampled_from(["us/web", "them/web"])),
            pr_number=draw(st.none() | st.integers(1, 2)),
            head_sha=draw(shas),
            base_sha=draw(shas),
            base_repo_name=draw(st.sampled_from(["us/web", "them/web"])),
            selective=draw(st.booleans()),
            is_complete=draw(st.booleans()),
            awaits_base=draw(st.booleans()),
            held_for=draw(st.none() | st.just("held: an audit")),
            held_until=draw(st.none() | moments | st.just(NOW + timedelta(days=1))),
            unfinished_bases=draw(numbers),
            undecided_bases=draw(numbers),
        )
        for number in range(1, size + 1)
    ]


def deleted(facts: Sequence[Fact], rule: Rule, now: datetime) -> set[int]:
    return {decision.number for decision in plan(facts, rule, now) if decision.deletes}


def whole(facts: Sequence[Fact], app: str) -> set[int]:
    return {fact.number for fact in facts if fact.app_id == app and fact.is_complete and not fact.selective}


@patient
@given(projects(), rules)
def test_the_last_whole_base_of_an_app_is_never_deleted(facts: list[Fact], rule: Rule) -> None:
    """Nor is it when what the first run deleted is gone and the next one looks again."""
    apps = {fact.app_id for fact in facts if whole(facts, fact.app_id)}
    for _ in range(3):
        gone = deleted(facts, rule, NOW)
        facts = [fact for fact in facts if fact.number not in gone]
        assert all(whole(facts, app) for app in apps)


@patient
@given(projects(), rules)
def test_the_newest_whole_base_is_the_one_that_stays(facts: list[Fact], rule: Rule) -> None:
    gone = deleted(facts, rule, NOW)
    for app in {fact.app_id for fact in facts}:
        mainline = [
            fact
            for fact in facts
            if fact.number in whole(facts, app) and fact.pr_number is None and fact.branch in rule.default_branches
        ]
        if mainline:
            assert max(fact.created_at for fact in mainline) in {
                fact.created_at for fact in mainline if fact.number not in gone
            }


@patient
@given(projects(), rules)
def test_what_is_held_is_never_deleted(facts: list[Fact], rule: Rule) -> None:
    held = {fact.number for fact in facts if fact.held_for and (fact.held_until is None or fact.held_until > NOW)}
    assert not held & deleted(facts, rule, NOW)


@patient
@given(projects(), rules)
def test_a_base_that_is_still_to_be_compared_is_never_deleted(facts: list[Fact], rule: Rule) -> None:
    needed = {number for fact in facts for number in fact.unfinished_bases}
    assert not needed & deleted(facts, rule, NOW)


@patient
@given(projects(), rules)
def test_what_a_kept_base_leans_on_is_kept(facts: list[Fact], rule: Rule) -> None:
    """A partial base whose ground is gone could never be compared with again."""
    kept = {decision.number: decision.reason for decision in plan(facts, rule, NOW) if not decision.deletes}
    for fact in facts:
        if fact.selective and fact.number in {number for one in facts for number in one.unfinished_bases}:
            ground = sorted(
                (one.created_at, one.number)
                for one in facts
                if (one.app_id, one.head_sha, one.repo_name) == (fact.app_id, fact.base_sha, fact.base_repo_name)
                and fact.base_sha is not None
            )
            if ground and ground[-1][1] != fact.number:
                assert ground[-1][1] in kept


@patient
@given(projects(), rules, st.randoms())
def test_the_order_of_the_facts_does_not_matter(facts: list[Fact], rule: Rule, random: object) -> None:
    shuffled = list(facts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(facts, rule, NOW) == plan(shuffled, rule, NOW)


@patient
@given(projects(), rules, st.lists(st.integers(0, 1200), min_size=2, max_size=6))
def test_what_goes_at_one_time_goes_at_every_later_time(facts: list[Fact], rule: Rule, moments: list[int]) -> None:
    plans = [deleted(facts, rule, START + timedelta(days=day)) for day in sorted(moments)]
    assert all(earlier <= later for earlier, later in pairwise(plans))


@patient
@given(projects(), days, days, days)
def test_a_longer_time_deletes_nothing_more(
    facts: list[Fact], superseded: int | None, quiet: int | None, default: int | None
) -> None:
    rule = Rule(superseded, quiet, default)
    longer = Rule(*(None if length is None else length + 30 for length in (superseded, quiet, default)))
    assert deleted(facts, longer, NOW) <= deleted(facts, rule, NOW)


@patient
@given(projects(), rules)
def test_every_snapshot_has_a_reason_in_words(facts: list[Fact], rule: Rule) -> None:
    decisions = plan(facts, rule, NOW)
    assert [decision.number for decision in decisions] == [fact.number for fact in facts]
    assert all(decision.reason and "{" not in decision.reason for decision in decisions)
    assert all(decision.goes_at is not None and decision.goes_at <= NOW for decision in decisions if decision.deletes)

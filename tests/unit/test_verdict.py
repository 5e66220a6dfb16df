"""The table of verdicts, row by row."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshed.domain.categorise import Category
from snapshed.domain.verdict import Decided, Rules, State, Verdict, needs_review, of_images, verdict

NOTHING = {"unchanged": 7, "skipped": 2}
CHANGED = {"unchanged": 7, "changed": 1}
ERRORED = {"unchanged": 7, "errored": 1}
BOTH = {"changed": 1, "errored": 1}


@pytest.mark.parametrize(
    ("state", "counts", "decision", "expected"),
    [
        (None, {}, None, "no_base"),
        (None, {}, "approved", "no_base"),
        (None, {}, "rejected", "rejected"),
        ("waiting", {}, None, "pending"),
        ("running", {}, None, "pending"),
        ("running", {}, "approved", "pending"),
        ("running", {}, "rejected", "rejected"),
        ("failed", {}, None, "failed"),
        ("failed", {}, "approved", "failed"),
        ("done", NOTHING, None, "passed"),
        ("done", NOTHING, "approved", "passed"),
        ("done", NOTHING, "rejected", "rejected"),
        ("done", {}, None, "passed"),
        ("done", CHANGED, None, "changed"),
        ("done", CHANGED, "approved", "approved"),
        ("done", CHANGED, "rejected", "rejected"),
        ("done", ERRORED, None, "failed"),
        ("done", ERRORED, "approved", "approved"),
        ("done", BOTH, None, "failed"),
        ("done", BOTH, "approved", "approved"),
    ],
)
def test_each_case_has_its_word(
    state: State | None, counts: dict[str, int], decision: Decided | None, expected: Verdict
) -> None:
    assert verdict(state, counts, decision) == expected


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("added", "passed"),
        ("renamed", "passed"),
        ("unchanged", "passed"),
        ("skipped", "passed"),
        ("removed", "changed"),
        ("changed", "changed"),
        ("errored", "failed"),
    ],
)
def test_by_default_a_person_looks_at_what_is_gone_or_different(category: Category, expected: Verdict) -> None:
    assert verdict("done", {category: 1}, None) == expected


@pytest.mark.parametrize("category", ["added", "removed", "changed", "renamed"])
def test_each_rule_governs_its_own_category(category: str) -> None:
    nothing = {"fail_on_added": False, "fail_on_removed": False, "fail_on_changed": False, "fail_on_renamed": False}
    assert verdict("done", {category: 1}, None, Rules(**nothing)) == "passed"
    assert verdict("done", {category: 1}, None, Rules(**(nothing | {f"fail_on_{category}": True}))) == "changed"


@given(
    st.sampled_from([None, *get_args(State)]),
    st.dictionaries(st.sampled_from(get_args(Category)), st.integers(0, 3)),
    st.sampled_from([None, *get_args(Decided)]),
    st.builds(Rules),
)
def test_nothing_passes_with_an_image_that_nobody_could_compare(
    state: State | None, counts: dict[str, int], decision: Decided | None, rules: Rules
) -> None:
    word = verdict(state, counts, decision, rules)
    assert word in get_args(Verdict)
    if counts.get("errored", 0):
        assert word != "passed"


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        ({}, None),
        ({"changed": "approved"}, None),
        ({"changed": "approved", "removed": "approved"}, None),
        ({"changed": "approved", "removed": "approved", "errored": "approved"}, "approved"),
        ({"changed": "approved", "removed": "approved", "errored": "rejected"}, "rejected"),
        ({"added": "rejected"}, "rejected"),
        ({"changed": "approved", "removed": "approved", "errored": "approved", "added": "rejected"}, "rejected"),
        ({"absent": "rejected"}, None),
    ],
)
def test_what_decisions_about_images_say_about_the_whole(decided: dict[str, Decided], expected: Decided | None) -> None:
    categories = {category: category for category in ("changed", "removed", "errored", "added", "renamed")}
    assert of_images(categories, decided) == expected


def test_where_nothing_needs_a_look_nothing_follows_from_a_yes() -> None:
    assert of_images({"new.png": "added"}, {"new.png": "approved"}) is None
    assert of_images({"new.png": "added"}, {"new.png": "approved"}, Rules(fail_on_added=True)) == "approved"
    assert [one for one in get_args(Category) if needs_review(one)] == ["removed", "changed", "errored"]

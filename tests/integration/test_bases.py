"""Which base a snapshot gets and why, partial bases, comparing again, and approvals that repeat themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fixtures.world import World
from test_reuse import Counting, children, compared, engine, readable, results  # noqa: F401  fixtures
from test_withdrawal import picture

from snapshed.api.representations import details_document
from snapshed.errors import Invalid, NotFound
from snapshed.work import recompare, review, snapshots

ONE, TWO, THREE, FOUR = (picture("white", colour) for colour in ("red", "green", "blue", "black"))


def commit(letter: str, base: str | None = None, **more: Any) -> dict[str, Any]:
    facts = {"head_sha": letter * 40, "head_repo_name": "shop/web"}
    return facts | ({"base_sha": base * 40} if base else {}) | more


def shown(world: World, number: int) -> dict[str, Any]:
    details = snapshots.details(world.resources, [world.project.id], number)
    return details_document(details, world.clock(), compact=False)


def became(world: World, number: int) -> dict[str, str]:
    """What is told of every name that is not unchanged without a look."""
    return {name: result.category for name, result in results(world, number).items()}


# --- The choice -------------------------------------------------------------------------------------------------------


def test_who_was_passed_over_is_told_with_the_reason_and_stays_as_it_was(
    world: World,
    engine: Counting,  # noqa: F811
) -> None:
    old = world.upload({"a.png": ONE}, **commit("a"))
    other = world.upload({"a.png": ONE}, **commit("a", app_id="ios"))
    base = world.upload({"a.png": TWO}, **commit("a"))
    head = world.upload({"a.png": ONE}, **commit("b", "a"))
    compared(world, engine)
    world.upload({"a.png": THREE}, **commit("a"))
    told = shown(world, head)["base_explanation"]
    assert told["chosen"] == str(base)
    assert [(one["snapshot"], one["reason"]) for one in told["passed_over"]] == [
        (str(other), "other_app"),
        (str(old), "older"),
    ]
    assert told["passed_over"][1]["sentence"]


def test_without_a_base_it_is_told_who_is_no_base(world: World) -> None:
    other = world.upload({"a.png": ONE}, **commit("a", app_id="ios"))
    head = world.upload({"a.png": ONE}, **commit("b", "a"))
    told = shown(world, head)["base_explanation"]
    assert (told["chosen"], [one["snapshot"] for one in told["passed_over"]]) == (None, [str(other)])
    assert shown(world, other)["base_explanation"] is None


def test_a_base_that_arrives_later_is_explained_too(world: World) -> None:
    other = world.upload({"a.png": ONE}, **commit("a", app_id="ios"))
    head = world.upload({"a.png": ONE}, **commit("b", "a"))
    base = world.upload({"a.png": ONE}, **commit("a"))
    told = shown(world, head)["base_explanation"]
    assert (told["chosen"], [one["snapshot"] for one in told["passed_over"]]) == (str(base), [str(other)])


# --- Partial bases ----------------------------------------------------------------------------------------------------


def test_a_partial_base_stands_for_what_it_leans_on(world: World, engine: Counting) -> None:  # noqa: F811
    whole = world.upload({"a.png": ONE, "b.png": ONE, "c.png": ONE}, **commit("a"))
    base = world.upload({"a.png": TWO}, **commit("b", "a", selective=True))
    head = world.upload({"a.png": TWO, "b.png": THREE, "c.png": ONE}, **commit("c", "b"))
    compared(world, engine)
    told = shown(world, head)
    assert (told["base_artifact_id"], told["base_explanation"]["leans_on"]) == (str(base), [str(whole)])
    assert {name: told[f"{name}_count"] for name in ("changed", "added", "removed", "unchanged")} == {
        "changed": 1, "added": 0, "removed": 0, "unchanged": 2
    }  # fmt: skip
    # The mask would show an image of a snapshot whose deletion does not reach this comparison.
    inherited = results(world, head)["b.png"]
    assert (inherited.changed_pixels, inherited.mask_id) == (9, None)
    assert str(whole) in (inherited.detail or "")
    assert world.disagreements() == []


def test_deleting_what_a_partial_base_leans_on_leaves_no_byte_of_it(world: World, engine: Counting) -> None:  # noqa: F811
    whole = world.upload({"a.png": ONE, "b.png": ONE}, **commit("a"))
    world.upload({"a.png": TWO}, **commit("b", "a", selective=True))
    head = world.upload({"a.png": THREE, "b.png": FOUR}, **commit("c", "b"))
    compared(world, engine)
    assert became(world, head) == {"a.png": "changed", "b.png": "changed"}
    receipt = world.delete(whole)
    world.tidy()
    assert world.receipt(receipt)["state"] == "complete"
    assert world.stored(ONE) == set()
    assert readable(world, results(world, head)["a.png"].mask_id)
    assert world.disagreements() == []


def test_a_missing_ancestor_is_waited_for_and_then_said_to_be_missing(world: World, engine: Counting) -> None:  # noqa: F811
    world.upload({"a.png": TWO}, **commit("b", "a", selective=True))
    head = world.upload({"a.png": TWO, "b.png": ONE}, **commit("c", "b"))
    late = world.upload({"a.png": TWO, "b.png": ONE}, **commit("d", "b"))
    compared(world, engine)
    assert shown(world, head)["comparison_state"] == "pending"
    world.clock.pass_time(timedelta(seconds=61))
    whole = world.upload({"b.png": ONE}, **commit("a"))
    compared(world, engine)
    assert shown(world, head)["comparison_state"] == "success"
    assert became(world, head) == {}
    world.delete(whole)
    recompare.recompare(world.resources, [world.project.id], late)
    compared(world, engine)
    world.clock.pass_time(timedelta(minutes=11))
    compared(world, engine)
    told = shown(world, late)
    assert told["comparison_state"] == "failed"
    assert told["comparison_error_message"] == "Base snapshot chain incomplete (missing ancestor build)."


def test_a_chain_that_leads_back_to_itself_fails_at_once(world: World, engine: Counting) -> None:  # noqa: F811
    world.upload({"a.png": ONE}, **commit("a", "b", selective=True))
    world.upload({"a.png": ONE}, **commit("b", "a", selective=True))
    head = world.upload({"a.png": ONE}, **commit("c", "b"))
    compared(world, engine)
    assert shown(world, head)["comparison_error_message"] == "No complete base snapshot exists in the ancestry chain."


# --- Again ------------------------------------------------------------------------------------------------------------


def test_a_comparison_is_made_again_with_the_same_base(world: World, engine: Counting) -> None:  # noqa: F811
    base = world.upload({"a.png": ONE}, **commit("a"))
    head = world.upload({"a.png": TWO}, **commit("b", "a"))
    compared(world, engine)
    before = results(world, head)["a.png"]
    world.upload({"a.png": TWO}, **commit("a"))
    recompare.recompare(world.resources, [world.project.id], head)
    assert shown(world, head)["comparison_state"] == "pending"
    compared(world, engine)
    assert engine.asked == ["a.png", "a.png"]
    assert shown(world, head)["base_artifact_id"] == str(base)
    assert results(world, head)["a.png"].changed_pixels == before.changed_pixels
    world.tidy()
    assert not readable(world, before.mask_id)
    assert world.disagreements() == []


def test_what_has_no_base_cannot_be_compared_again(world: World) -> None:
    for facts, error in (({}, Invalid), (commit("a"), Invalid), (commit("b", "f"), NotFound)):
        number = world.upload({"a.png": ONE}, **facts)
        with pytest.raises(error):
            recompare.recompare(world.resources, [world.project.id], number)
    with pytest.raises(NotFound):
        recompare.recompare(world.resources, [world.project.id + 1], number)


# --- Approvals --------------------------------------------------------------------------------------------------------


def approve(world: World, number: int) -> None:
    review.decide(world.resources, [world.project.id], number, "approved", "token:person", "api")


def test_the_same_differences_of_a_pull_request_are_approved_once(world: World, engine: Counting) -> None:  # noqa: F811
    world.upload({"a.png": ONE, "b.png": ONE}, **commit("a"))
    first = world.upload({"a.png": TWO, "b.png": ONE}, **commit("b", "a", pr_number=7))
    compared(world, engine)
    approve(world, first)
    again = world.upload({"a.png": TWO, "b.png": ONE}, **commit("c", "a", pr_number=7))
    compared(world, engine)
    told = shown(world, again)
    assert (told["approval_status"], told["verdict"], told["approvers"]) == ("auto_approved", "approved", [])
    # Another picture, one more difference, another pull request, and an approval nobody gave: a person has to look.
    for images, facts in (
        ({"a.png": THREE, "b.png": ONE}, commit("d", "a", pr_number=7)),
        ({"a.png": TWO, "b.png": TWO}, commit("e", "a", pr_number=7)),
        ({"a.png": TWO, "b.png": ONE}, commit("f", "a", pr_number=8)),
        ({"a.png": TWO, "b.png": ONE}, commit("0", "a")),
    ):
        other = world.upload(images, **facts)
        compared(world, engine)
        assert shown(world, other)["verdict"] == "changed", facts
    world.delete(first)
    last = world.upload({"a.png": TWO, "b.png": ONE}, **commit("1", "a", pr_number=7))
    compared(world, engine)
    assert shown(world, last)["verdict"] == "changed"


def test_a_rejection_and_a_broken_image_are_not_approved_over(world: World, engine: Counting) -> None:  # noqa: F811
    world.upload({"a.png": ONE, "b.png": ONE}, **commit("a"))
    broken = {"a.png": TWO, "b.png": TWO[:40]}
    first = world.upload(broken, **commit("b", "a", pr_number=7))
    compared(world, engine)
    approve(world, first)
    again = world.upload(broken, **commit("c", "a", pr_number=7))
    compared(world, engine)
    assert shown(world, again)["verdict"] == "failed"
    fine = {"a.png": TWO, "b.png": ONE}
    approved = world.upload(fine, **commit("d", "a", pr_number=7))
    compared(world, engine)
    approve(world, approved)
    rejected = world.upload(fine, **commit("e", "a", pr_number=7))
    review.decide(world.resources, [world.project.id], rejected, "rejected", "token:person", "api")
    compared(world, engine)
    assert shown(world, rejected)["verdict"] == "rejected"

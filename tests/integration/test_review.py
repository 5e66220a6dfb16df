"""Decisions about single images and about the whole, what follows from them, and that they go with their snapshot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures.world import World
from test_bases import ONE, THREE, TWO, commit, shown
from test_reuse import Counting, children, compared, engine, results  # noqa: F401  fixtures

from snapshed.errors import Conflict, Invalid, NotFound
from snapshed.work import recompare, review, snapshots
from snapshed.work.review import Chosen

ME, BOT = "token:me", "token:bot"


def three_changes(world: World, engine: Counting) -> int:  # noqa: F811
    """One image changed, one removed, one added: the first two need a person's eye."""
    world.upload({"a.png": ONE, "gone.png": TWO}, **commit("a"))
    number = world.upload({"a.png": TWO, "new.png": THREE}, **commit("b", "a"))
    compared(world, engine)
    return number


def decide(world: World, number: int, name: str, decision: review.Decided) -> object:
    return review.decide_images(world.resources, [world.project.id], number, Chosen(name), decision, ME, "page")


def whole(world: World, number: int, decision: review.Decided) -> bool:
    return review.decide(world.resources, [world.project.id], number, decision, BOT, "api")


def stands(world: World, number: int) -> dict[str, str | None]:
    found = snapshots.details(world.resources, [world.project.id], number)
    standing = review.standing(found.results, found.decisions, found.image_decisions)
    return {name: one.decision for name, one in standing.items()}


def verdict(world: World, number: int) -> str:
    return shown(world, number)["verdict"]


def test_a_snapshot_passes_once_every_image_that_needs_it_is_approved(world: World, engine: Counting) -> None:  # noqa: F811
    number = three_changes(world, engine)
    decide(world, number, "a.png", "approved")
    assert verdict(world, number) == "changed"
    decide(world, number, "gone.png", "approved")
    assert verdict(world, number) == "approved"
    assert stands(world, number) == {"a.png": "approved", "gone.png": "approved", "new.png": None}
    document = shown(world, number)
    assert (document["approval_status"], [one["id"] for one in document["approvers"]]) == ("approved", [ME])


def test_one_no_is_a_no_to_the_whole_until_it_is_taken_back(world: World, engine: Counting) -> None:  # noqa: F811
    number = three_changes(world, engine)
    whole(world, number, "approved")
    # A no to an image that no rule asks for counts as well.
    decide(world, number, "new.png", "rejected")
    assert verdict(world, number) == "rejected"
    review.undo_images(world.resources, [world.project.id], number, Chosen("new.png"), ME, "page")
    assert verdict(world, number) == "approved"
    with pytest.raises(Conflict):
        review.undo_images(world.resources, [world.project.id], number, Chosen("new.png"), ME, "page")


def test_a_word_about_the_whole_is_the_newer_one_and_undoing_it_brings_back_what_was(
    world: World,
    engine: Counting,  # noqa: F811
) -> None:
    number = three_changes(world, engine)
    decide(world, number, "a.png", "rejected")
    assert verdict(world, number) == "rejected"
    assert whole(world, number, "approved")
    assert not whole(world, number, "approved")
    assert verdict(world, number) == "approved"
    assert set(stands(world, number).values()) == {"approved"}
    review.undo(world.resources, [world.project.id], number, BOT, "api")
    assert verdict(world, number) == "rejected"
    assert stands(world, number)["a.png"] == "rejected"
    with pytest.raises(Conflict):
        review.undo(world.resources, [world.project.id], number, BOT, "api")
    # After a no to the whole, every image approved by itself is a yes.
    whole(world, number, "rejected")
    for name in ("a.png", "gone.png", "new.png"):
        assert verdict(world, number) == "rejected"
        decide(world, number, name, "approved")
    assert verdict(world, number) == "approved"


def test_what_was_decided_together_is_undone_together(world: World, engine: Counting) -> None:  # noqa: F811
    world.upload(dict.fromkeys(("a.png", "b.png", "c.png"), ONE), **commit("a"))
    number = world.upload(dict.fromkeys(("a.png", "b.png", "c.png"), TWO), **commit("b", "a"))
    compared(world, engine)
    decide(world, number, "b.png", "rejected")
    fingerprint = results(world, number)["a.png"].fingerprint
    batch = review.decide_images(
        world.resources, [world.project.id], number, Chosen(fingerprint=fingerprint), "approved", ME, "page"
    )
    assert verdict(world, number) == "approved"
    review.undo_images(world.resources, [world.project.id], number, batch, ME, "page")
    assert stands(world, number) == {"a.png": None, "b.png": "rejected", "c.png": None}


def test_a_decision_is_about_the_images_it_saw(world: World, engine: Counting) -> None:  # noqa: F811
    base = world.upload({"a.png": ONE, "b.png": ONE}, **commit("a"))
    number = world.upload({"a.png": TWO, "b.png": TWO}, **commit("b", "a"))
    compared(world, engine)
    decide(world, number, "a.png", "approved")
    decide(world, number, "b.png", "approved")
    # Made again with the same base, the comparison shows the same images; with another, only one of them is the same.
    recompare.recompare(world.resources, [world.project.id], number)
    compared(world, engine)
    assert set(stands(world, number).values()) == {"approved"}
    world.delete(base)
    world.upload({"a.png": ONE, "b.png": THREE}, **commit("a"))
    compared(world, engine)
    assert stands(world, number) == {"a.png": "approved", "b.png": None}


def test_two_reviewers_at_once_miss_nothing_of_each_other(world: World, engine: Counting) -> None:  # noqa: F811
    names = [f"{place:02}.png" for place in range(16)]
    world.upload(dict.fromkeys(names, ONE), **commit("a"))
    number = world.upload(dict.fromkeys(names, TWO), **commit("b", "a"))
    compared(world, engine)
    with ThreadPoolExecutor(4) as reviewers:
        list(reviewers.map(lambda name: decide(world, number, name, "approved"), names))
    assert verdict(world, number) == "approved"


def test_what_is_no_difference_cannot_be_decided(world: World, engine: Counting) -> None:  # noqa: F811
    number = three_changes(world, engine)
    waiting = world.upload({"a.png": THREE}, **commit("c", "a"))
    for wrong, error in ((number + 7, NotFound), (waiting, Conflict)):
        with pytest.raises(error):
            decide(world, wrong, "a.png", "approved")
    with pytest.raises(NotFound):
        decide(world, number, "absent.png", "approved")
    with pytest.raises(NotFound):
        review.decide_images(world.resources, [0], number, Chosen("a.png"), "approved", ME, "page")
    with pytest.raises(Invalid):
        review.decide_images(world.resources, [world.project.id], number, Chosen(), "approved", ME, "page")
    assert world.count("image_decision") == 0


def test_decisions_go_with_their_snapshot_and_stand_on_the_receipt(world: World, engine: Counting) -> None:  # noqa: F811
    number = three_changes(world, engine)
    decide(world, number, "a.png", "approved")
    decide(world, number, "gone.png", "approved")
    whole(world, number, "rejected")
    deletion = world.delete(number)
    with pytest.raises(NotFound):
        decide(world, number, "a.png", "rejected")
    world.tidy()
    receipt = world.receipt(deletion)
    # Two about images, the yes that followed from them, and the no to the whole.
    assert (receipt["state"], receipt["rows"]["approvals"]) == ("complete", 4)
    assert (world.count("image_decision"), world.count("approval")) == (0, 0)
    assert world.disagreements() == []

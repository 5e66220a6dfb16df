"""Holds: a held snapshot cannot be deleted by anyone, and its manifest says why; nor can any of a held branch."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fixtures.world import World
from fixtures.world import digest as sha
from test_races import in_background, until, waits_for_a_lock

from snapshed import ledger
from snapshed.errors import Held, Invalid, NotFound, StoreUnavailable
from snapshed.work import access, branch_holds, deletion, holds

ONE, TWO = {"one.png": b"one"}, {"two.png": b"two"}


def manifest_of(world: World, number: int) -> dict[str, Any]:
    with world.resources.database.transaction() as tx:
        row = tx.execute(
            """
            SELECT b.storage_key FROM artifact a
              LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
              JOIN blob b ON b.id = coalesce(s.manifest_id, d.manifest_id)
             WHERE a.number = %s
            """,
            [number],
        ).fetchone()
    assert row is not None
    return json.loads(world.resources.store.get(row[0]) or b"")


@pytest.mark.parametrize("target", ["snapshots", "everything", "filter", "dry run"])
def test_a_held_snapshot_in_a_target_refuses_the_whole_deletion(world: World, target: str) -> None:
    held, other = world.upload(ONE), world.upload(TWO)
    world.hold(held, "a customer's complaint")
    order = {
        "snapshots": world.order(snapshots=[held, other]),
        "everything": world.order(everything=True),
        "filter": world.order(filter=deletion.Filter(app_id="web")),
        "dry run": world.order(snapshots=[other, held]),
    }[target]
    ask = deletion.preview if target == "dry run" else deletion.request
    with pytest.raises(Held, match=f"Snapshot {held} is held .a customer's complaint."):
        ask(world.resources, order)
    world.tidy()
    assert world.count("artifact") == 2
    assert world.count("deletion") == 0


def test_the_manifest_carries_the_hold_and_the_one_before_goes(world: World) -> None:
    number = world.upload(ONE)
    before = world.files()
    hold = world.hold(number, "an audit")
    world.tidy()
    (written,) = manifest_of(world, number)["holds"]
    assert written["id"] == str(hold.id)
    assert written["reason"] == "an audit"
    assert len(world.files()) == len(before)
    assert world.files() != before
    world.release(number)
    world.tidy()
    assert manifest_of(world, number)["holds"] == []
    assert world.disagreements() == []


def test_after_the_release_and_after_its_end_a_snapshot_can_be_deleted(world: World) -> None:
    first, second = world.upload(ONE), world.upload(TWO)
    world.hold(first)
    world.hold(second, ends_at=world.clock.at + timedelta(days=1))
    world.release(first)
    world.delete(first)
    with pytest.raises(Held):
        world.delete(second)
    world.clock.pass_time(timedelta(days=2))
    last = world.delete(second)
    world.tidy()
    assert world.receipt(last)["state"] == "complete"
    assert world.files() == []
    assert world.disagreements() == []


def test_holds_add_up_and_each_is_released_by_itself(world: World) -> None:
    number = world.upload(ONE)
    first, second = world.hold(number, "one reason"), world.hold(number, "another")
    assert [hold.reason for hold in holds.list_holds(world.resources, [world.project.id])] == ["one reason", "another"]
    world.release(number, first.id)
    with pytest.raises(Held, match="another"):
        world.delete(number)
    world.release(number, second.id)
    world.delete(number)


def test_a_hold_on_what_is_not_there_is_refused_and_leaves_nothing(world: World) -> None:
    number = world.upload(ONE)
    world.delete(number)
    with pytest.raises(NotFound):
        world.hold(number)
    with pytest.raises(NotFound):
        world.hold(99)
    held = world.upload(TWO)
    with pytest.raises(Invalid, match="reason"):
        world.hold(held, "  ")
    with pytest.raises(Invalid, match="ends_at"):
        world.hold(held, ends_at=world.clock.at - timedelta(seconds=1))
    world.tidy()
    assert world.count("hold") == 0
    assert world.disagreements() == []


def test_a_hold_whose_maker_died_leaves_no_manifest_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new manifest is in the store, and nobody lives to name it."""
    number = world.upload(ONE)
    before = world.files()

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    monkeypatch.setattr("snapshed.work.holds._confirm", die)
    with pytest.raises(Died):
        world.hold(number)
    monkeypatch.undo()
    assert len(world.files()) == len(before) + 1
    world.tidy()
    world.clock.pass_time(timedelta(hours=1))
    world.tidy()
    assert world.files() == before
    assert world.count("hold") == 0
    assert world.disagreements() == []


def test_a_deletion_takes_what_a_dead_hold_had_announced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    number = world.upload(ONE)

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    monkeypatch.setattr("snapshed.work.holds._confirm", die)
    with pytest.raises(Died):
        world.hold(number)
    monkeypatch.undo()
    gone = world.delete(number)
    assert world.receipt(gone)["objects"]["manifest"]["released"] == 2
    world.clock.pass_time(timedelta(hours=1))
    world.tidy()
    assert world.receipt(gone)["state"] == "complete"
    assert world.files() == []


@pytest.mark.parametrize("when", ["before the manifest is announced", "after it is stored"])
def test_a_hold_waits_for_a_deletion_that_is_being_marked_and_is_then_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A deletion holds the snapshot's lock and has found no hold on it. One placed now would be on a deleted snapshot."""
    number = world.upload(ONE)
    with psycopg.connect(world.resources.database.dsn) as marking:

        def mark() -> None:
            marking.execute("SELECT 1 FROM artifact WHERE number = %s FOR NO KEY UPDATE", [number])

        def stored_then_marked(*given: Any, **named: Any) -> Any:
            rows = ledger.store(*given, **named)
            mark()
            return rows

        if when == "after it is stored":
            monkeypatch.setattr("snapshed.work.holds.store", stored_then_marked)
        else:
            mark()
        thread, outcome = in_background(lambda: world.hold(number))
        until(lambda: waits_for_a_lock(world))
        row = marking.execute(
            """
            INSERT INTO deletion (id, org_id, target, requested_by, snapshots, artifacts, rows, requested_at)
            VALUES (gen_random_uuid(), %s, '{}', 'test', '{}', '{}', '{}', now()) RETURNING id
            """,
            [world.project.org_id],
        ).fetchone()
        assert row is not None
        marking.execute("UPDATE artifact SET deletion_id = %s WHERE number = %s", [row[0], number])
        marking.commit()
    thread.join(30)
    assert isinstance(outcome[0], NotFound)
    assert world.count("hold") == 0


def test_a_deletion_waits_for_a_hold_that_is_being_placed_and_is_then_refused(world: World) -> None:
    number = world.upload(ONE)
    with psycopg.connect(world.resources.database.dsn) as placing:
        placing.execute("SELECT 1 FROM artifact WHERE number = %s FOR NO KEY UPDATE", [number])
        thread, outcome = in_background(lambda: world.delete(number))
        until(lambda: waits_for_a_lock(world))
        placing.execute(
            "INSERT INTO hold (id, artifact_id, reason, placed_by, placed_at) "
            "SELECT gen_random_uuid(), id, 'just now', 'test', now() FROM artifact WHERE number = %s",
            [number],
        )
        placing.commit()
    thread.join(30)
    assert isinstance(outcome[0], Held)
    assert world.count("deletion") == 0


# --- Branches ----------------------------------------------------------------------------------------------------------


def hold_branch(world: World, branch: str = "release", **fields: Any) -> branch_holds.BranchHold:
    wanted = {"reason": "the lawyers", "placed_by": "operator", "ends_at": None} | fields
    return branch_holds.place(world.resources, world.project, branch, **wanted)


@pytest.mark.parametrize("target", ["snapshots", "everything", "filter", "image", "dry run"])
def test_what_belongs_to_a_held_branch_refuses_the_whole_deletion(world: World, target: str) -> None:
    held, other = world.upload(ONE, head_ref="release"), world.upload(TWO, head_ref="main")
    hold_branch(world)
    order = {
        "snapshots": world.order(snapshots=[held, other]),
        "everything": world.order(everything=True),
        "filter": world.order(filter=deletion.Filter(branch="release")),
        "image": world.order(image=sha(b"one")),
        "dry run": world.order(snapshots=[other, held]),
    }[target]
    ask = deletion.preview if target == "dry run" else deletion.request
    with pytest.raises(Held, match=f"Snapshot {held} is held .with its branch release: the lawyers."):
        ask(world.resources, order)
    assert world.count("artifact") == 2
    assert world.count("deletion") == 0
    world.delete(other)


def test_a_held_branch_keeps_builds_and_what_comes_later_and_nothing_of_other_branches(world: World) -> None:
    hold_branch(world)
    later = world.upload(ONE, head_ref="release")
    build = world.build(b"an app", head_ref="release")
    for number in (later, build):
        with pytest.raises(Held):
            world.delete(number)
    other = access.add_project(world.resources, "main", "other")
    world.delete(world.upload(TWO, head_ref="topic"))
    world.project = other
    world.delete(world.upload(ONE, head_ref="release"))


def test_a_branch_can_be_deleted_again_once_every_hold_of_it_is_released_or_over(world: World) -> None:
    number = world.upload(ONE, head_ref="release")
    first = hold_branch(world)
    hold_branch(world, reason="a while", ends_at=world.clock.at + timedelta(days=1))
    assert len(branch_holds.list_holds(world.resources, [world.project.id])) == 2
    assert branch_holds.release(world.resources, [world.project.id], first.id, "operator") == "release"
    with pytest.raises(NotFound):
        branch_holds.release(world.resources, [world.project.id], first.id, "operator")
    with pytest.raises(Held, match="a while"):
        world.delete(number)
    world.clock.pass_time(timedelta(days=2))
    assert branch_holds.list_holds(world.resources, [world.project.id]) == []
    world.delete(number)


def test_the_store_is_told_of_a_branch_that_is_held_and_of_its_release(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a lost database gets the hold back. Each is an object of its own, so that none can cover the other."""

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(type(world.resources.store), "note", away)
    hold = hold_branch(world)
    with pytest.raises(Held):
        world.delete(world.upload(ONE, head_ref="release"))
    monkeypatch.undo()
    assert branch_holds.note_waiting(world.resources) == 1
    assert branch_holds.note_waiting(world.resources) == 0
    placed = json.loads(world.resources.store.get(f".snapshed/holds/{hold.id}.placed.json") or b"")
    assert (placed["org"], placed["project"], placed["branch"]) == ("main", "main", "release")
    assert (placed["reason"], placed["released_at"]) == ("the lawyers", None)
    branch_holds.release(world.resources, [world.project.id], hold.id, "operator")
    released = json.loads(world.resources.store.get(f".snapshed/holds/{hold.id}.released.json") or b"")
    assert released["released_by"] == "operator"
    assert world.disagreements() == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"branch": ""}, "branch"),
        ({"branch": "a\0b"}, "branch"),
        ({"reason": " "}, "reason"),
        ({"ends_at": -1}, "ends_at"),
    ],
)
def test_a_hold_of_a_branch_that_cannot_be_is_refused(world: World, fields: dict[str, Any], said: str) -> None:
    if "ends_at" in fields:
        fields = {"ends_at": world.clock.at + timedelta(days=fields["ends_at"])}
    with pytest.raises(Invalid, match=f"The field {said}"):
        hold_branch(world, **fields)
    assert world.count("branch_hold") == 0


def test_a_hold_of_a_branch_waits_for_a_deletion_that_is_being_marked(world: World) -> None:
    """Whoever is told that the branch is held must not find one of its snapshots marked a moment later."""
    number = world.upload(ONE, head_ref="release")
    with psycopg.connect(world.resources.database.dsn) as marking:
        marking.execute("SELECT 1 FROM artifact WHERE number = %s FOR NO KEY UPDATE", [number])
        thread, outcome = in_background(lambda: hold_branch(world))
        until(lambda: waits_for_a_lock(world))
        assert world.count("branch_hold") == 0
        marking.rollback()
    thread.join(30)
    assert outcome[0].branch == "release"
    with pytest.raises(Held):
        world.delete(number)


def test_a_deletion_waits_for_the_hold_of_a_branch_that_is_being_placed_and_is_then_refused(world: World) -> None:
    number = world.upload(ONE, head_ref="release")
    with psycopg.connect(world.resources.database.dsn) as placing:
        placing.execute("SELECT 1 FROM artifact WHERE number = %s FOR NO KEY UPDATE", [number])
        thread, outcome = in_background(lambda: world.delete(number))
        until(lambda: waits_for_a_lock(world))
        placing.execute(
            "INSERT INTO branch_hold (id, project_id, branch, reason, placed_by, placed_at) "
            "VALUES (gen_random_uuid(), %s, 'release', 'just now', 'test', now())",
            [world.project.id],
        )
        placing.commit()
    thread.join(30)
    assert isinstance(outcome[0], Held)
    assert world.count("deletion") == 0

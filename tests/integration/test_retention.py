"""Rules that delete old snapshots: through the same door as people, and never what somebody needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fixtures.world import World
from test_races import in_background, until, waits_for_a_lock

from snapshed.db import installation
from snapshed.db.access import Project
from snapshed.db.pool import Tx
from snapshed.domain.retention import Rule
from snapshed.errors import Conflict, Held, Invalid, StoreUnavailable
from snapshed.resources import Resources
from snapshed.work import access, branch_holds, deletion, retention

DAY = timedelta(days=1)


def commit(name: str) -> str:
    return (name.encode().hex() + "0" * 40)[:40]


def upload(world: World, name: str, **fields: Any) -> int:
    """A snapshot of a commit of its own, with an image of its own and one that all share."""
    fields.setdefault("head_sha", commit(name))
    fields.setdefault("head_repo_name", "us/web")
    return world.upload({"shared.png": b"shared", f"{name}.png": name.encode()}, provider="github", **fields)


def on_main(world: World, name: str, **fields: Any) -> int:
    return upload(world, name, head_ref="main", **fields)


def of_request(world: World, name: str, number: int = 7, **fields: Any) -> int:
    return upload(world, name, head_ref=f"topic-{number}", pr_number=number, **fields)


def keep_rules(world: World) -> int:
    """Every run that is due, until none deletes anything."""
    deleted = 0
    while gone := retention.run_due(world.resources, deletion.by_rule):
        deleted += gone
    return deleted


def numbers(world: World) -> list[int]:
    with world.resources.database.transaction() as tx:
        rows = tx.execute("SELECT number FROM artifact WHERE deletion_id IS NULL ORDER BY number").fetchall()
    return [number for (number,) in rows]


def reasons(world: World) -> dict[int, str]:
    return {found.number: found.reason for found in retention.preview(world.resources, world.project).decisions}


def settle_comparisons(world: World) -> None:
    """As if a worker had compared everything: a head whose comparison waits keeps its base."""
    with world.resources.database.transaction() as tx:
        tx.execute("DELETE FROM comparison")
        tx.execute("UPDATE snapshot SET base_sha = NULL WHERE pr_number IS NOT NULL")


# --- What goes ---------------------------------------------------------------------------------------------------------


def test_by_default_old_builds_go_and_leave_nothing_and_the_newest_stay(world: World) -> None:
    first = on_main(world, "one")
    builds = [of_request(world, f"build {n}") for n in range(3)]
    last = on_main(world, "two")
    world.clock.pass_time(31 * DAY)
    assert keep_rules(world) == 2
    assert numbers(world) == [first, builds[2], last]
    world.clock.pass_time(60 * DAY)
    assert keep_rules(world) == 1
    assert numbers(world) == [first, last]
    world.clock.pass_time(300 * DAY)
    assert keep_rules(world) == 1
    assert numbers(world) == [last]
    world.clock.pass_time(10_000 * DAY)
    assert keep_rules(world) == 0
    assert numbers(world) == [last]
    world.tidy()
    assert world.stored(b"shared", b"two", b"one", b"build 0", b"build 2") == {b"shared", b"two"}
    assert world.count("tombstone") == 0
    assert world.disagreements() == []


def test_what_a_rule_deletes_has_a_receipt_like_any_deletion(world: World) -> None:
    old = of_request(world, "old")
    of_request(world, "new")
    world.clock.pass_time(31 * DAY)
    keep_rules(world)
    world.tidy()
    with world.resources.database.transaction() as tx:
        rows = tx.execute("SELECT id FROM deletion").fetchall()
    (found,) = [world.receipt(deletion_id) for (deletion_id,) in rows]
    assert found["state"] == "complete"
    assert found["signature"]
    assert found["requested_by"] == "rule:retention"
    assert found["reason"] == "The retention rule for pull requests."
    assert found["snapshots"] == [str(old)]
    assert found["journaled_at"] is not None


def test_a_branch_goes_when_it_is_quiet_and_its_newest_build_only_then(world: World) -> None:
    on_main(world, "base")
    first = upload(world, "first", head_ref="release")
    world.clock.pass_time(80 * DAY)
    second = upload(world, "second", head_ref="release")
    world.clock.pass_time(80 * DAY)
    assert keep_rules(world) == 0
    world.clock.pass_time(11 * DAY)
    assert keep_rules(world) == 2
    assert not {first, second} & set(numbers(world))


# --- What stays --------------------------------------------------------------------------------------------------------


def test_neither_a_held_snapshot_nor_the_base_of_an_open_comparison_goes(world: World) -> None:
    base = on_main(world, "base")
    newer = on_main(world, "newer")
    held = of_request(world, "held")
    of_request(world, "next")
    head = of_request(world, "head", 8, base_sha=commit("base"), base_repo_name="us/web")
    world.hold(held, "an audit")
    world.clock.pass_time(400 * DAY)
    told = reasons(world)
    assert told[held] == "held: an audit"
    assert told[base] == f"snapshot {head} is still to be compared with it"
    assert told[newer] == "the newest whole base of app web"
    keep_rules(world)
    assert set(numbers(world)) == {base, newer, held}
    # Its head is gone, so nobody needs the base any more; and the audit is over.
    world.release(held)
    keep_rules_later(world)
    assert numbers(world) == [newer]


def keep_rules_later(world: World) -> int:
    world.clock.pass_time(timedelta(hours=2))
    return keep_rules(world)


def test_a_snapshot_whose_image_was_withdrawn_is_no_whole_base(world: World) -> None:
    whole = on_main(world, "whole")
    torn = on_main(world, "torn")
    world.withdraw(b"torn")
    world.clock.pass_time(400 * DAY)
    keep_rules(world)
    assert numbers(world) == [whole, torn]
    assert reasons(world)[whole] == "the newest whole base of app web"


def test_a_partial_base_keeps_what_it_leans_on(world: World) -> None:
    ground = on_main(world, "ground")
    partial = on_main(world, "partial", selective=True, base_sha=commit("ground"), base_repo_name="us/web")
    other = on_main(world, "other", app_id="ios")
    world.clock.pass_time(400 * DAY)
    settle_comparisons(world)
    keep_rules(world)
    assert numbers(world) == [ground, partial, other]


def test_builds_that_are_no_snapshots_are_left_alone(world: World) -> None:
    build = world.build(b"an app", head_ref="topic")
    world.clock.pass_time(10_000 * DAY)
    assert keep_rules(world) == 0
    assert numbers(world) == [build]


def test_a_snapshot_that_someone_comes_to_need_between_plan_and_deletion_stays(world: World) -> None:
    """The plan is made again in the transaction that marks, when nobody can commit a snapshot beside it."""
    old = on_main(world, "old")
    on_main(world, "new")
    world.clock.pass_time(400 * DAY)
    heads: list[int] = []

    def late(
        resources: Resources, project: Project, by: str, reason: str, choose: Callable[[Tx], Sequence[int]]
    ) -> Sequence[int]:
        if not heads:
            heads.append(of_request(world, "late", base_sha=commit("old"), base_repo_name="us/web"))
        return deletion.by_rule(resources, project, by, reason, choose)

    assert retention.run_due(world.resources, late) == 0
    assert heads
    assert old in numbers(world)


def test_a_snapshot_that_commits_while_a_rule_chooses_is_waited_for(world: World) -> None:
    """Its commit holds the project's lock; what it comes to need must not be chosen beside it."""
    old = on_main(world, "old")
    head = on_main(world, "new")
    world.clock.pass_time(400 * DAY)
    with psycopg.connect(world.resources.database.dsn) as committing:
        committing.execute("SELECT 1 FROM project WHERE id = %s FOR SHARE", [world.project.id])
        thread, outcome = in_background(lambda: retention.run_due(world.resources, deletion.by_rule))
        until(lambda: waits_for_a_lock(world))
        committing.execute(
            "UPDATE snapshot SET base_sha = %s, base_repo_name = 'us/web' "
            "WHERE artifact_id = (SELECT id FROM artifact WHERE number = %s)",
            [commit("old"), head],
        )
        committing.commit()
    thread.join(30)
    assert outcome == [0]
    assert numbers(world) == [old, head]


def test_a_held_branch_is_kept_by_every_rule(world: World) -> None:
    held = [upload(world, f"release {n}", head_ref="release") for n in range(2)]
    on_main(world, "base")
    hold = branch_holds.place(world.resources, world.project, "release", "the lawyers", "operator", None)
    world.clock.pass_time(1000 * DAY)
    assert keep_rules(world) == 0
    assert reasons(world)[held[0]] == "branch release is held: the lawyers"
    branch_holds.release(world.resources, [world.project.id], hold.id, "operator")
    assert keep_rules_later(world) == 2


# --- Runs --------------------------------------------------------------------------------------------------------------


def refusing(bad: int, error: Exception) -> retention.Deleter:
    """The real deletion, but for one snapshot that cannot be deleted."""

    def delete(
        resources: Resources, project: Project, by: str, reason: str, choose: Callable[[Tx], Sequence[int]]
    ) -> Sequence[int]:
        def chosen(tx: Tx) -> Sequence[int]:
            found = choose(tx)
            if bad in found:
                raise error
            return found

        return deletion.by_rule(resources, project, by, reason, chosen)

    return delete


@pytest.mark.parametrize("error", [Held(2, "just now"), RuntimeError("a bug")], ids=["refused", "a bug"])
def test_one_snapshot_that_cannot_be_deleted_stops_none_of_the_others(world: World, error: Exception) -> None:
    builds = [of_request(world, f"build {n}") for n in range(4)]
    world.clock.pass_time(31 * DAY)
    assert retention.run_due(world.resources, refusing(builds[1], error)) == 2
    assert numbers(world) == [builds[1], builds[3]]
    run = retention.show(world.resources, world.project).last_run
    assert run is not None
    assert (run.deleted, run.failed, run.kept, run.left_over) == (2, 1, 2, 0)


def test_a_run_stops_at_its_bound_and_the_next_goes_on_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapshed.work.retention.running.MOST_SNAPSHOTS", 2)
    monkeypatch.setattr("snapshed.work.retention.running._AT_ONCE", 2)
    for n in range(6):
        of_request(world, f"build {n}")
    world.clock.pass_time(31 * DAY)
    assert [retention.run_due(world.resources, deletion.by_rule) for _ in range(4)] == [2, 2, 1, 0]


def test_a_run_is_due_once_an_hour_and_a_changed_rule_at_once(world: World) -> None:
    old = of_request(world, "old")
    new = of_request(world, "new")
    assert keep_rules(world) == 0
    world.clock.pass_time(31 * DAY)
    assert keep_rules(world) == 1
    old, new = new, of_request(world, "newest")
    world.clock.pass_time(timedelta(minutes=30))
    retention.put_rule(world.resources, world.project, {"superseded_days": 1, "quiet_days": 1}, "operator")
    assert keep_rules(world) == 0
    world.clock.pass_time(2 * DAY)
    retention.put_rule(world.resources, world.project, {"superseded_days": 1, "quiet_days": None}, "operator")
    assert keep_rules(world) == 1
    assert numbers(world) == [new]
    assert old not in numbers(world)


def test_each_project_follows_its_own_rule(world: World) -> None:
    mine = world.project
    other = access.add_project(world.resources, "main", "other")
    retention.put_rule(world.resources, other, {"superseded_days": 1}, "operator")
    kept = [of_request(world, f"mine {n}") for n in range(2)]
    world.project = other
    theirs = [of_request(world, f"theirs {n}") for n in range(2)]
    world.clock.pass_time(2 * DAY)
    assert keep_rules(world) == 1
    assert numbers(world) == [*kept, theirs[1]]
    assert retention.show(world.resources, mine).rule == Rule()
    assert retention.show(world.resources, other).rule == Rule(superseded_days=1)


def test_while_the_store_does_not_answer_no_rule_deletes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people delete holds at once and is journaled later; a rule can wait until it can be journaled."""
    of_request(world, "old")
    of_request(world, "new")
    world.clock.pass_time(31 * DAY)
    monkeypatch.setattr(type(world.resources.store), "answers", lambda _: False)
    with pytest.raises(StoreUnavailable):
        retention.run_due(world.resources, deletion.by_rule)
    assert world.count("deletion") == 0
    monkeypatch.undo()
    world.clock.pass_time(timedelta(minutes=2))
    assert keep_rules(world) == 1


def test_people_come_before_rules(world: World) -> None:
    """Two deletions that are only marked: the one a person waits for is let go of first."""
    with world.resources.database.transaction() as tx:
        for by, ago in (("rule:retention", 2), ("token:someone", 1)):
            artifact = tx.execute(
                "INSERT INTO artifact (id, project_id, kind, app_id, created_at) "
                "VALUES (gen_random_uuid(), %s, 'build', 'x', now()) RETURNING id",
                [world.project.id],
            ).fetchone()
            assert artifact is not None
            tx.execute(
                """
                WITH made AS (
                    INSERT INTO deletion (id, org_id, project_id, target, requested_by, snapshots, artifacts, rows,
                                          requested_at)
                    VALUES (gen_random_uuid(), %(org)s, %(project)s, '{}', %(by)s, '{}', '{}', '{}',
                            now() - make_interval(hours => %(ago)s)) RETURNING id)
                UPDATE artifact SET deletion_id = (SELECT id FROM made) WHERE id = %(artifact)s
                """,
                {
                    "org": world.project.org_id,
                    "project": world.project.id,
                    "by": by,
                    "ago": ago,
                    "artifact": artifact[0],
                },
            )
        from snapshed.db import deletions

        first = deletions.unreleased(tx, 1)
        by = tx.execute("SELECT requested_by FROM deletion WHERE id = %s", first).fetchone()
    assert by == ("token:someone",)


# --- Whether rules work --------------------------------------------------------------------------------------------------


def test_paused_rules_delete_nothing_until_they_are_confirmed(world: World) -> None:
    of_request(world, "old")
    of_request(world, "new")
    world.clock.pass_time(31 * DAY)
    with world.resources.database.transaction() as tx:
        installation.pause_retention(tx, "The database was rebuilt from the store.")
        assert installation.retention_is_paused(tx)
    assert keep_rules(world) == 0
    assert retention.preview(world.resources, world.project).paused_for == "The database was rebuilt from the store."
    with pytest.raises(Conflict, match="rebuilt from the store"):
        retention.run(world.resources, world.project, deletion.by_rule)
    assert world.count("deletion") == 0
    assert retention.confirm(world.resources)
    assert not retention.confirm(world.resources)
    assert keep_rules(world) == 1


def test_an_installation_that_is_older_than_rules_starts_with_them_paused(dsn: str) -> None:
    """The upgrade to the first version with rules deletes nothing that was uploaded when there were none."""
    from snapshed.db import migrate as migrating

    text = dict(migrating._files())["0007_retention.sql"]
    statement = next(part for part in text.split(";") if "UPDATE installation" in part)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO installation (id, epoch, protocol, created_at) VALUES (gen_random_uuid(), 1, 1, now())"
        )
        connection.execute(statement.encode())
        assert connection.execute("SELECT retention_paused_for FROM installation").fetchone() == (None,)
        connection.execute(
            "WITH o AS (INSERT INTO org (slug, created_at) VALUES ('o', now()) RETURNING id), "
            "p AS (INSERT INTO project (org_id, slug, created_at) SELECT id, 'p', now() FROM o RETURNING id) "
            "INSERT INTO artifact (id, project_id, kind, app_id, created_at) "
            "SELECT gen_random_uuid(), id, 'snapshot', 'web', now() FROM p"
        )
        connection.execute(statement.encode())
        (reason,) = connection.execute("SELECT retention_paused_for FROM installation").fetchone() or (None,)
    assert reason == "These snapshots are older than the rules."


# --- Setting a rule -------------------------------------------------------------------------------------------------------


def notes(world: World, prefix: str) -> dict[str, Any]:
    found = world.resources.store.listing(f".snapshed/{prefix}/")
    return {item.key: json.loads(world.resources.store.get(item.key) or b"") for item in found}


def test_every_version_of_a_rule_is_told_to_the_store(world: World) -> None:
    """So that whoever rebuilds a lost database finds what people had set, and the newest of it."""
    retention.put_rule(world.resources, world.project, {"superseded_days": 7}, "token:someone")
    retention.put_rule(world.resources, world.project, {"default_days": None}, "operator")
    found = notes(world, "retention")
    newest = found[f".snapshed/retention/{world.project.id}/2.json"]
    assert newest["superseded_days"] == 7
    assert newest["default_days"] is None
    assert (newest["org"], newest["project"], newest["set_by"]) == ("main", "main", "operator")
    assert len(found) == 2
    assert world.disagreements() == []


def test_a_rule_set_while_the_store_is_away_holds_and_is_told_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(type(world.resources.store), "note", away)
    retention.put_rule(world.resources, world.project, {"quiet_days": 3}, "operator")
    assert retention.show(world.resources, world.project).rule.quiet_days == 3
    monkeypatch.undo()
    assert notes(world, "retention") == {}
    assert retention.note_waiting(world.resources) == 1
    assert retention.note_waiting(world.resources) == 0
    assert len(notes(world, "retention")) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"superseded": 3}, "Unknown field 'superseded'"),
        ({"quiet_days": 0}, "quiet_days must be a whole number of days from 1"),
        ({"default_days": True}, "default_days must be"),
        ({"default_days": "30"}, "default_days must be"),
        ({"superseded_days": 10**9}, "superseded_days must be"),
        ({"default_branches": []}, "default_branches must list"),
        ({"default_branches": "main"}, "default_branches must list"),
        ({"default_branches": ["a\0b"]}, "default_branches must list"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_changes_nothing(world: World, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        retention.put_rule(world.resources, world.project, fields, "operator")
    assert retention.show(world.resources, world.project).rule == Rule()
    assert world.count("retention_rule") == 0

"""What a deletion takes, what it leaves, and what its receipt says, through the verbs and on real parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fixtures.world import World, a_world, digest, manifest

from snapshed.db import deletions
from snapshed.domain import receipt
from snapshed.errors import Broken, Conflict, Invalid, MissingImages, NotFound, PlanChanged
from snapshed.ledger import Draft, sha256, store
from snapshed.work import access, condemn, deletion, receipts, snapshots, uploads
from snapshed.work.deletion import Filter, releasing

SHARED, ONLY_A, ONLY_B = b"shared", b"only a", b"only b"


def balanced(document: dict[str, Any]) -> bool:
    return all(
        count["released"] == count["removed"] + count["kept_shared"] + count["kept_pinned"] + count["waiting"]
        for count in document["objects"].values()
    )


def test_a_shared_image_survives_its_first_snapshot_and_goes_with_its_last(world: World) -> None:
    first = world.upload({"one.png": SHARED, "two.png": ONLY_A})
    second = world.upload({"one.png": SHARED, "two.png": ONLY_B})

    world.delete(first)
    world.tidy()
    assert world.stored(SHARED, ONLY_A, ONLY_B) == {SHARED, ONLY_B}

    world.delete(second)
    world.tidy()
    assert world.files() == []
    assert world.disagreements() == []


def test_nothing_of_a_deleted_snapshot_can_be_seen_before_a_byte_is_removed(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    session = world.begin()

    world.delete(number)

    assert world.stored(ONLY_A) == {ONLY_A}, "no worker has run yet"
    with pytest.raises(NotFound):
        snapshots.details(world.resources, [world.project.id], number)
    assert world.ask(session, ONLY_A) == set()
    assert uploads.read(world.resources, world.project.id, digest(ONLY_A), session.session_id) is None
    assert snapshots.image_key(world.resources, world.project.id, digest(ONLY_A)) is None
    with pytest.raises(MissingImages):
        world.create({"one.png": ONLY_A})


def test_a_receipt_completes_balanced_signed_and_journaled(world: World) -> None:
    first = world.upload({"one.png": SHARED, "two.png": ONLY_A})
    world.upload({"one.png": SHARED})

    deletion_id = world.delete(first, reason="asked to")
    assert world.receipt(deletion_id)["state"] == "removing"
    world.tidy()

    document = world.receipt(deletion_id)
    assert document["state"] == "complete"
    assert balanced(document)
    assert document["objects"]["image"] == {
        "released": 2, "removed": 1, "waiting": 0, "kept_shared": 1, "kept_pinned": 0,
    }  # fmt: skip
    assert document["objects"]["manifest"]["removed"] == 1
    assert document["bytes"]["kept_shared"] == len(SHARED)
    assert document["traces"] == {"released": 1, "removed": 1, "waiting": 0}
    assert document["verified_at"] is not None
    assert receipts.verify(world.resources, world.project.org_id, deletion_id).signed
    assert world.resources.store.get(f".snapshed/receipts/{deletion_id}.json") is not None
    journal = world.resources.store.get(f".snapshed/journal/{deletion_id}.json")
    assert journal is not None
    assert ONLY_A not in journal


def test_a_receipt_that_was_altered_is_not_signed_any_more(world: World) -> None:
    deletion_id = world.delete(world.upload({"one.png": ONLY_A}))
    world.tidy()
    document = world.receipt(deletion_id)
    with world.resources.database.transaction() as tx:
        row = tx.execute("SELECT public_pem FROM signing_key WHERE purpose = 'receipt'").fetchone()
    assert row is not None
    assert receipt.is_signed_by(document, row[0])
    document["reason"] = "another"
    assert not receipt.is_signed_by(document, row[0])


def test_an_upload_session_that_was_promised_an_image_keeps_a_deletion_open_until_it_ends(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    session = world.begin()
    assert world.ask(session, ONLY_A) == {ONLY_A}

    deletion_id = world.delete(number)
    world.tidy()
    document = world.receipt(deletion_id)
    assert document["state"] == "removing"
    assert document["objects"]["image"]["kept_pinned"] == 1
    assert document["pins_end_at"] is not None
    assert world.stored(ONLY_A) == {ONLY_A}

    world.clock.pass_time(timedelta(hours=1, seconds=1))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []


def test_a_promised_image_can_be_named_although_its_snapshot_was_deleted_meanwhile(world: World) -> None:
    """A client is told "already here" and skips the upload; then somebody deletes the only snapshot that names the
    image. The promise holds as long as the session."""
    number = world.upload({"one.png": ONLY_A})
    session = world.begin()
    assert world.ask(session, ONLY_A) == {ONLY_A}
    deletion_id = world.delete(number)
    world.tidy()

    again = world.create({"one.png": ONLY_A})

    world.tidy()
    assert snapshots.details(world.resources, [world.project.id], again).images[0].storage_key is not None
    assert world.stored(ONLY_A) == {ONLY_A}
    document = world.receipt(deletion_id)
    assert (document["state"], document["objects"]["image"]["kept_shared"]) == ("complete", 1)


def test_urgent_ends_the_session_whose_pin_alone_keeps_an_image(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    session = world.begin()
    world.ask(session, ONLY_A)

    deletion_id = world.delete(number, urgent=True)
    world.tidy()

    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []
    with pytest.raises(Conflict):
        world.keep(session, ONLY_A)


def test_two_deletions_that_take_the_last_two_references_leave_nothing(world: World) -> None:
    first, second = world.upload({"one.png": SHARED}), world.upload({"two.png": SHARED})
    one, two = world.delete(first), world.delete(second)
    world.tidy()
    assert world.files() == []
    assert {world.receipt(one)["state"], world.receipt(two)["state"]} == {"complete"}
    # Both let go of it, whoever removed it.
    assert world.receipt(one)["objects"]["image"]["removed"] == 1
    assert world.receipt(two)["objects"]["image"]["removed"] == 1


def test_a_preview_changes_nothing_and_its_plan_is_what_happens(world: World) -> None:
    first = world.upload({"one.png": SHARED, "two.png": ONLY_A})
    world.upload({"one.png": SHARED})
    shown = deletion.preview(world.resources, world.order(snapshots=[first]))
    assert (shown["state"], shown["snapshots"]) == ("preview", [str(first)])
    assert shown["objects"]["image"]["waiting"] == 1
    assert shown["objects"]["image"]["kept_shared"] == 1
    assert world.count("deletion") == 0

    deletion_id = world.delete(first, plan=shown["plan"])
    world.tidy()
    assert world.receipt(deletion_id)["objects"]["image"]["removed"] == 1


def test_a_plan_that_is_out_of_date_deletes_nothing(world: World) -> None:
    first = world.upload({"one.png": SHARED})
    second = world.upload({"one.png": SHARED})
    shown = deletion.preview(world.resources, world.order(snapshots=[first]))
    world.delete(second)
    world.tidy()

    with pytest.raises(PlanChanged) as refused:
        world.delete(first, plan=shown["plan"])

    assert refused.value.plan != shown["plan"]
    assert snapshots.find(world.resources, [world.project.id], first)
    assert world.stored(SHARED) == {SHARED}


def test_one_unknown_number_refuses_the_whole_deletion(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    with pytest.raises(NotFound):
        world.delete(number, 999_999)
    assert snapshots.find(world.resources, [world.project.id], number)
    assert world.count("deletion") == 0


def test_an_empty_filter_deletes_nothing(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    with pytest.raises(Invalid):
        deletion.request(world.resources, world.order(filter=Filter()))
    assert snapshots.find(world.resources, [world.project.id], number)


def test_a_filter_takes_what_fits_every_condition(world: World) -> None:
    old = world.upload({"one.png": ONLY_A}, head_ref="feature")
    other_branch = world.upload({"two.png": SHARED}, head_ref="main")
    world.clock.pass_time(timedelta(days=31))
    young = world.upload({"three.png": ONLY_B}, head_ref="feature")

    chosen = Filter(branch="feature", older_than=world.clock() - timedelta(days=30))
    deletion_id = deletion.request(world.resources, world.order(filter=chosen))
    world.tidy()

    assert world.receipt(deletion_id)["snapshots"] == [str(old)]
    for kept in (other_branch, young):
        assert snapshots.find(world.resources, [world.project.id], kept)


def test_a_large_deletion_hides_everything_at_once_and_releases_in_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [world.upload({f"{item}.png": str(item).encode()}) for item in range(7)]
    monkeypatch.setattr(releasing, "_STEP_ARTIFACTS", 2)

    deletion_id = deletion.request(world.resources, world.order(everything=True))

    assert world.count("artifact") == 7, "marked, not yet released"
    for number in numbers:
        with pytest.raises(NotFound):
            snapshots.find(world.resources, [world.project.id], number)
    assert deletion.release_waiting(world.resources) == 1
    assert world.count("artifact") == 5
    world.tidy()
    assert world.files() == []
    assert world.receipt(deletion_id)["objects"]["image"]["removed"] == 7


def test_the_same_request_id_is_one_deletion(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    one = world.delete(number, request_id="r1")
    assert world.delete(number, request_id="r1") == one
    assert world.count("deletion") == 1


def test_a_request_id_of_somebody_else_deletes_nothing_and_tells_nothing(world: World) -> None:
    """Two jobs with tokens of their own choose the same id. The second must neither be shown the first one's receipt nor
    be told that its own target is gone."""
    first, second = world.upload({"one.png": ONLY_A}), world.upload({"two.png": ONLY_B})
    world.delete(first, request_id="nightly")
    other = replace(world.order(snapshots=[second], request_id="nightly"), requested_by="token:other")
    with pytest.raises(Conflict):
        deletion.request(world.resources, other)
    assert snapshots.find(world.resources, [world.project.id], second)


def test_a_filter_asked_again_with_its_request_id_is_the_same_order_on_another_day(world: World) -> None:
    world.upload({"one.png": ONLY_A})
    asked: list[Any] = []
    for _ in range(2):
        chosen = Filter(older_than=world.clock() - timedelta(days=1), older_than_asked="1d")
        asked.append(deletion.request(world.resources, world.order(filter=chosen, request_id="daily")))
        world.clock.pass_time(timedelta(hours=5))
    assert asked[0] == asked[1]


def test_an_urgent_deletion_does_not_forget_an_image_whose_session_was_busy(world: World) -> None:
    """The uploader is in the middle of a request when the condemning pass comes by, so its session cannot be cancelled
    just then. The image must be looked at again, not when the session ends by itself hours later."""
    number = world.upload({"one.png": ONLY_A})
    session = world.begin()
    world.ask(session, ONLY_A)
    deletion_id = world.delete(number, urgent=True)
    with psycopg.connect(world.resources.database.dsn) as busy:
        busy.execute("SELECT 1 FROM session WHERE id = %s FOR SHARE", [session.session_id])
        condemn.condemn(world.resources)
        assert world.stored(ONLY_A) == {ONLY_A}
        busy.rollback()
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []


def test_a_manifest_of_an_earlier_attempt_holds_the_receipt_open(world: World) -> None:
    """A create died after it had stored its manifest; its repetition made the snapshot. That first copy names the
    deleted images too, so no receipt is complete while it may stand."""
    session = world.begin()
    world.keep(session, ONLY_A)
    store(world.resources, session, [Draft("manifest", sha256(b"earlier"), b"earlier")])
    number = world.create({"one.png": ONLY_A})
    deletion_id = world.delete(number)
    assert world.receipt(deletion_id)["objects"]["manifest"]["released"] == 2
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing", "its put may still land until its deadline"
    world.clock.pass_time(timedelta(minutes=6))
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []


def test_a_store_that_is_not_this_installations_is_refused(world: World, dsn: str, tmp_path_factory: Any) -> None:
    """An empty store confirms every removal; receipts would be signed for bytes that stand in the one left behind."""
    world.upload({"one.png": ONLY_A})
    with pytest.raises(Broken, match="empty"), a_world(dsn, tmp_path_factory.mktemp("elsewhere")):
        pass


def test_a_standing_tombstone_of_the_same_bytes_holds_the_receipt_open(world: World) -> None:
    """Two clients upload the same image at once; the loser's copy is condemned, its removal may be repeated for minutes.
    A deletion of the winner's snapshot must not be called complete while those same bytes stand under another key."""
    first, second = world.begin(), world.begin()
    world.keep(first, ONLY_A)
    world.keep(second, ONLY_A)  # loses, and its copy is a tombstone now
    number = world.create({"one.png": ONLY_A})
    with world.resources.database.transaction() as tx:
        tx.execute("UPDATE tombstone SET next_at = next_at + interval '9 hours'")
    world.clock.pass_time(timedelta(hours=2))  # so that the other session is over and pins nothing

    deletion_id = world.delete(number)
    world.tidy()
    document = world.receipt(deletion_id)
    assert (document["state"], document["pins_end_at"]) == ("removing", None)
    assert document["objects"]["image"]["waiting"] == 1
    assert world.stored(ONLY_A) == {ONLY_A}

    world.clock.pass_time(timedelta(hours=9))
    world.tidy()
    assert world.files() == []
    assert world.receipt(deletion_id)["state"] == "complete"


def test_the_loser_of_two_uploads_at_once_leaves_no_second_copy(world: World) -> None:
    first, second = world.begin(), world.begin()
    world.keep(first, ONLY_A)
    world.keep(second, ONLY_A)
    world.tidy()
    assert len(world.files()) == 1, "while both sessions are open"
    world.create({"one.png": ONLY_A})
    world.create({"one.png": ONLY_A})
    assert world.disagreements() == []


def test_trace_rows_go_with_their_snapshot(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    world.tidy()
    assert world.count("trace") == 1
    world.delete(number)
    world.tidy()
    assert world.count("trace") == 0


def test_a_trace_written_late_by_a_claimed_writer_still_goes(world: World) -> None:
    """A writer claims a trace row, stalls, and writes after the deletion has counted zero once."""
    from snapshed.db import outbox
    from snapshed.traces import Trace

    number = world.upload({"one.png": ONLY_A})
    resources = world.resources
    claim, now = resources.new_id(), resources.now()
    due = resources.database.run(lambda tx: outbox.claim(tx, claim, now, now + timedelta(seconds=30), 10))
    deletion_id = world.delete(number)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing"

    resources.traces.write([Trace(item.id, item.trace_id, item.event, item.at, item.facts) for item in due])
    world.clock.pass_time(timedelta(seconds=31))
    world.tidy()

    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.count("trace") == 0


def test_without_the_store_a_deletion_holds_and_is_journaled_later(world: World) -> None:
    number = world.upload({"one.png": ONLY_A})
    objects = world.resources.settings.data / "objects"
    objects.rename(objects.with_name("away"))
    objects.write_text("no folder")  # whatever is put or removed now fails

    deletion_id = world.delete(number)
    document = world.receipt(deletion_id)
    assert document["journaled_at"] is None
    with pytest.raises(NotFound):
        snapshots.find(world.resources, [world.project.id], number)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "removing"

    objects.unlink()
    objects.with_name("away").rename(objects)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.files() == []


def test_a_client_that_names_its_session_gets_that_one_and_leaves_no_other_behind(world: World) -> None:
    """The same build runs twice within minutes: two sessions, two identical requests. Told which session is whose, both
    end with their own snapshot, and a deletion right afterwards waits for nobody."""
    body = manifest({"one.png": ONLY_A})
    numbers: list[int] = []
    for _ in range(2):
        session = world.begin()
        if not world.ask(session, ONLY_A):
            world.keep(session, ONLY_A)
        made = snapshots.create(world.resources, world.project, "token:test", body, session.session_id)
        assert snapshots.create(world.resources, world.project, "token:test", body, session.session_id) == made
        numbers.append(made.number)

    assert len(set(numbers)) == 2
    deletion_id = world.delete(*numbers)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    with pytest.raises(Conflict):
        snapshots.create(world.resources, world.project, "token:test", body, session.session_id)


# --- Taking turns --------------------------------------------------------------------------------------------------------


def test_one_projects_many_candidates_do_not_delay_another_projects_few(world: World) -> None:
    """Somebody deletes a project of a hundred thousand images; somebody else one snapshot of another project."""
    other = access.add_project(world.resources, "main", "other")
    with world.resources.database.transaction() as tx:
        tx.execute(
            "INSERT INTO candidate (blob_id, project_id, cause) "
            "SELECT gen_random_uuid(), %s, 'many' FROM generate_series(1, 5000)",
            [world.project.id],
        )
        tx.execute(
            "INSERT INTO candidate (blob_id, project_id, cause) "
            "SELECT gen_random_uuid(), %s, 'few' FROM generate_series(1, 10)",
            [other.id],
        )
    settled = condemn.condemn(world.resources)
    assert settled <= 1000
    with world.resources.database.transaction() as tx:
        left = dict(tx.execute("SELECT cause, count(*) FROM candidate GROUP BY cause").fetchall())
    assert "few" not in left
    assert left["many"] >= 4000
    world.tidy()
    assert world.count("candidate") == 0


def test_people_come_before_rules_and_every_project_has_its_turn(world: World) -> None:
    one, two = world.project.id, access.add_project(world.resources, "main", "other").id
    asked = [(one, "rule:retention"), (one, "token:a"), (one, "token:b"), (two, "token:c"), (two, "rule:retention")]
    with world.resources.database.transaction() as tx:
        for number, (project, by) in enumerate(asked):
            tx.execute(
                """
                WITH made AS (
                    INSERT INTO deletion (id, org_id, project_id, target, requested_by, snapshots, artifacts, rows,
                                          requested_at)
                    VALUES (gen_random_uuid(), %(org)s, %(project)s, '{}', %(by)s, '{}', '{}', '{}',
                            now() + make_interval(secs => %(number)s)) RETURNING id
                )
                INSERT INTO artifact (id, project_id, kind, app_id, deletion_id, created_at)
                SELECT gen_random_uuid(), %(project)s, 'snapshot', 'web', id, now() FROM made
                """,
                {"org": world.project.org_id, "project": project, "by": by, "number": number},
            )
        order = [deletions.find(tx, found) for found in deletions.unreleased(tx, 10)]
    assert [found.requested_by for found in order if found] == [
        "token:a", "token:c", "token:b", "rule:retention", "rule:retention"
    ]  # fmt: skip


def test_a_head_is_told_which_base_it_lost(world: World) -> None:
    base = world.upload({"one.png": b"1"}, head_sha="a" * 40)
    head = world.upload({"one.png": b"2"}, head_sha="b" * 40, base_sha="a" * 40)
    world.delete(base)
    shown = snapshots.details(world.resources, [world.project.id], head)
    assert shown.comparison is None
    assert shown.snapshot.lost_base == base
    world.tidy()
    assert world.disagreements() == []

"""The database is lost, and made anew from the store alone: what lived is back, what was deleted is not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.disasters import Rebuild, Survivor, lost, silent
from fixtures.judging import drop, file_of, judged, key_of, key_of_kind, put, sql
from fixtures.world import World, a_database, a_world, digest, manifest
from test_withdrawal import COMMIT, NEXT, picture

from snapshed.db.embedded import Embedded
from snapshed.domain import ids, keys
from snapshed.domain import manifest as manifests
from snapshed.engine import Engine
from snapshed.errors import Broken, Busy, Conflict, Held, NotFound
from snapshed.failpoints import Failed, Failpoints
from snapshed.resources import opened
from snapshed.settings import Secret, Settings
from snapshed.work import branch_holds, builds, compare, deletion, holds, receipts, recovery, retention, snapshots

SHARED, OLD, NEW, ALONE = picture("white"), picture("blue"), picture("blue", "red"), picture("green")
BASE, HEAD = {"a.png": SHARED, "b.png": OLD}, {"a.png": SHARED, "b.png": NEW}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(workers=1, seconds_per_pair=30, memory_bytes=2**30, max_pixels=10**6)
    yield made
    made.close()


def compared(world: World, engine: Engine) -> None:
    for comparison_id in compare.unclaimed(world.resources, 100):
        compare.compare(world.resources, engine, comparison_id, lambda: False)


def details(world: World, number: int) -> snapshots.Details:
    return snapshots.details(world.resources, [world.project.id], number)


def images(world: World, number: int) -> dict[str, str]:
    """Name and digest of every image of a snapshot whose bytes can be read."""
    shown = details(world, number).images
    return {one.name: one.digest for one in shown if one.storage_key and world.resources.store.get(one.storage_key)}


def named(pictures: dict[str, bytes]) -> dict[str, str]:
    return {name: digest(image) for name, image in pictures.items()}


def at_rest(world: Survivor) -> None:
    """Nothing is left to do, and rows, every byte of the objects, and traces agree."""
    world.tidy()
    assert judged(world, 2) == []


# --- What lived is back ----------------------------------------------------------------------------------------------


def test_everything_that_lived_is_back_under_its_own_number(world: World, rebuild: Rebuild, engine: Engine) -> None:
    base = world.upload(BASE, **COMMIT, tags="nightly")
    head = world.upload(HEAD, **NEXT, pr_number=7)
    compared(world, engine)
    build = world.build(b"an app", metadata='{"signed": true}')
    hold = world.hold(base, "an audit")
    world.tidy()
    before, files = details(world, head), world.files()
    after = rebuild(world)
    assert (after.done.snapshots, after.done.builds, after.done.comparisons) == (2, 1, 1)
    assert (after.done.left_out, after.done.reopened, after.done.removed) == ((), (), {})
    assert images(after, base) == named(BASE)
    now = details(after, head)
    assert [replace(one) for one in now.results] == before.results
    assert now.comparison is not None
    assert before.comparison is not None
    assert now.comparison.counts == before.comparison.counts
    assert now.snapshot.created_by == before.snapshot.created_by
    assert replace(now.snapshot, created_at=before.snapshot.created_at) == before.snapshot
    assert builds.find(after.resources, [after.project.id], build).facts == {"signed": True}
    assert [standing.id for standing in holds.list_holds(after.resources, [after.project.id])] == [hold.id]
    with pytest.raises(Held):
        after.delete(base)
    assert after.files() == files
    at_rest(after)


def test_numbers_and_keys_of_the_life_before_are_never_issued_again(world: World, rebuild: Rebuild) -> None:
    kept = world.upload(BASE)
    gone = world.upload({"x.png": ALONE})
    world.delete(gone)
    world.tidy()
    after = rebuild(world)
    new = after.upload({"x.png": ALONE})
    assert new >= ids.first_number(2) > gone > kept
    assert key_of(after, ALONE).startswith("2/")
    assert images(after, new) == named({"x.png": ALONE})
    at_rest(after)


def test_a_second_loss_is_survived_like_the_first(world: World, rebuild: Rebuild, engine: Engine) -> None:
    base = world.upload(BASE, **COMMIT)
    first = rebuild(world)
    head = first.upload(HEAD, **NEXT)
    compared(first, engine)
    deleted = first.upload({"x.png": ALONE})
    receipt = first.delete(deleted)
    first.tidy()
    second = rebuild(first)
    assert second.done.epoch == 3
    assert (images(second, base), images(second, head)) == (named(BASE), named(HEAD))
    assert receipts.verify(second.resources, second.project.org_id, receipt).signed
    with pytest.raises(NotFound):
        details(second, deleted)
    at_rest(second)


def test_a_comparison_that_had_not_begun_begins_again(world: World, rebuild: Rebuild, engine: Engine) -> None:
    world.upload(BASE, **COMMIT)
    head = world.upload(HEAD, **NEXT)
    after = rebuild(world)
    compared(after, engine)
    comparison = details(after, head).comparison
    assert comparison is not None
    assert comparison.state == "done"
    at_rest(after)


def test_objects_of_an_earlier_release_come_back_although_their_names_tell_no_kind(
    world: World, rebuild: Rebuild, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "of_kind", lambda minted, _kind: minted)
    base = world.upload(BASE, **COMMIT)
    head = world.upload(HEAD, **NEXT)
    compared(world, engine)
    build = world.build(b"an app")
    world.tidy()
    assert all(ids.kind_of(uuid.UUID(name.split(".")[1])) is None for name in world.files())
    monkeypatch.undo()
    after = rebuild(world)
    assert (images(after, base), images(after, head)) == (named(BASE), named(HEAD))
    assert after.done.comparisons == 1
    assert builds.find(after.resources, [after.project.id], build).size == len(b"an app")
    at_rest(after)


def test_rules_and_holds_of_branches_are_back(world: World, rebuild: Rebuild) -> None:
    for days in (90, 30):
        retention.put_rule(world.resources, world.project, {"quiet_days": days}, "token:test")
    number = world.upload(BASE, head_ref="release")
    standing = branch_holds.place(world.resources, world.project, "release", "an audit", "token:test", None)
    over = branch_holds.place(world.resources, world.project, "main", "old", "token:test", None)
    branch_holds.release(world.resources, [world.project.id], over.id, "token:test")
    after = rebuild(world)
    shown = retention.show(after.resources, after.project)
    assert (shown.rule.quiet_days, shown.set_by) == (30, "token:test")
    assert shown.paused_for
    assert [hold.id for hold in branch_holds.list_holds(after.resources, [after.project.id])] == [standing.id]
    with pytest.raises(Held):
        after.delete(number)


def test_projects_keep_their_names(world: World, rebuild: Rebuild) -> None:
    from snapshed.work import access

    added = access.add_project(world.resources, "shop", "web")
    empty = access.add_project(world.resources, "shop", "later")
    snapshots.create(world.resources, added, "token:test", manifest({}, head_sha="a" * 40))
    after = rebuild(world)
    found = {(one.id, one.org_slug, one.slug) for one in access.list_projects(after.resources)}
    assert found == {(1, "main", "main"), (added.id, "shop", "web"), (empty.id, "shop", "later")}
    assert access.add_project(after.resources, "shop", "third").id > empty.id
    assert after.done.made_up == ()


def test_projects_whose_names_are_lost_get_others(world: World, rebuild: Rebuild) -> None:
    from snapshed.work import access

    added = access.add_project(world.resources, "shop", "web")
    number = snapshots.create(world.resources, added, "token:test", manifest({}, head_sha="a" * 40)).number
    drop(world, keys.project_names(added.id))
    after = rebuild(world)
    (name,) = after.done.made_up
    assert (name.org_slug, name.slug) == (f"org-{added.org_id}", f"project-{added.id}")
    assert snapshots.find(after.resources, [added.id], number).project_slug == f"project-{added.id}"


# --- What was deleted is not -------------------------------------------------------------------------------------------


def test_a_finished_deletion_stays_and_so_does_its_receipt(world: World, rebuild: Rebuild) -> None:
    kept, gone = world.upload(BASE), world.upload({"a.png": SHARED, "x.png": ALONE})
    deletion = world.delete(gone)
    world.tidy()
    before = world.receipt(deletion)
    after = rebuild(world)
    assert after.receipt(deletion) == before
    assert receipts.verify(after.resources, after.project.org_id, deletion).signed
    with pytest.raises(NotFound):
        details(after, gone)
    assert images(after, kept) == named(BASE)
    assert after.stored(SHARED, ALONE) == {SHARED}
    at_rest(after)


def test_a_deletion_that_was_only_answered_is_finished(world: World, rebuild: Rebuild, engine: Engine) -> None:
    """Journaled and answered, and then the disk died: everything it let go of stands in the store."""
    base, head = world.upload(BASE, **COMMIT), world.upload(HEAD, **NEXT)
    compared(world, engine)
    deletion = world.delete(head, reason="a password")
    after = rebuild(world)
    assert after.done.reopened == (deletion,)
    with pytest.raises(NotFound):
        details(after, head)
    assert after.receipt(deletion)["state"] == "removing"
    after.tidy()
    receipt = after.receipt(deletion)
    assert receipt["state"] == "complete"
    assert receipt["reason"] == "a password"
    assert receipt["objects"]["image"] == {
        "released": 2, "removed": 1, "waiting": 0, "kept_shared": 1, "kept_pinned": 0
    }  # fmt: skip
    assert receipt["objects"]["mask"]["removed"] == 1
    assert any("lost" in sentence for sentence in receipt["scope"])
    assert images(after, base) == named(BASE)
    assert after.stored(NEW, OLD) == {OLD}
    at_rest(after)


def test_a_deletion_whose_removals_had_begun_is_finished(world: World, rebuild: Rebuild) -> None:
    world.upload(BASE)
    gone = world.upload({"x.png": ALONE, "y.png": picture("red")})
    deletion = world.delete(gone)
    drop(world, key_of_kind_of(world, gone))
    after = rebuild(world)
    assert after.done.reopened == (deletion,)
    after.tidy()
    assert after.receipt(deletion)["state"] == "complete"
    assert after.stored(ALONE) == set()
    at_rest(after)


def key_of_kind_of(world: World, number: int) -> str:
    """The manifest of a snapshot that has just been deleted."""
    del number
    with world.resources.database.transaction() as tx:
        row = tx.execute("SELECT storage_key FROM release WHERE kind = 'manifest'").fetchone()
    assert row is not None
    return row[0]


def test_a_deletion_that_was_never_journaled_is_forgotten(world: World, rebuild: Rebuild) -> None:
    """Its receipt said so: `journaled_at` was null."""
    number = world.upload(BASE)
    deletion = world.delete(number)
    drop(world, keys.journal_entry(deletion))
    after = rebuild(world)
    assert images(after, number) == named(BASE)
    at_rest(after)


def test_a_withdrawn_image_stays_withdrawn(world: World, rebuild: Rebuild, engine: Engine) -> None:
    """The entry names the snapshot and the image; nothing of it had left the store yet."""
    world.upload(BASE, **COMMIT)
    head = world.upload(HEAD, **NEXT)
    compared(world, engine)
    deletion = world.withdraw(NEW)
    after = rebuild(world)
    shown = {image.name: image.image_id is None for image in details(after, head).images}
    assert shown == {"a.png": False, "b.png": True}
    (changed,) = [one for one in details(after, head).results if one.category == "changed"]
    assert changed.mask_id is None
    assert snapshots.image_key(after.resources, after.project.id, digest(NEW)) is None
    after.tidy()
    assert after.receipt(deletion)["state"] == "complete"
    assert after.receipt(deletion)["withdrawn_from"] == [str(head)]
    assert after.stored(NEW) == set()
    at_rest(after)


def test_an_image_uploaded_again_after_its_withdrawal_comes_back_where_it_was_uploaded(
    world: World, rebuild: Rebuild
) -> None:
    first = world.upload(BASE)
    world.withdraw(OLD)
    world.tidy()
    second = world.upload(BASE)
    after = rebuild(world)
    assert images(after, first) == {"a.png": digest(SHARED)}
    assert images(after, second) == named(BASE)
    at_rest(after)


def test_uploads_that_never_became_a_snapshot_are_removed(world: World, rebuild: Rebuild) -> None:
    number = world.upload(BASE)
    world.keep(world.begin(), ALONE)
    after = rebuild(world)
    assert after.done.removed == {"image": (1, len(ALONE))}
    assert snapshots.image_key(after.resources, after.project.id, digest(ALONE)) is None
    after.tidy()
    assert after.stored(ALONE, SHARED) == {SHARED}
    assert images(after, number) == named(BASE)
    at_rest(after)


# --- What cannot be known is said ---------------------------------------------------------------------------------------


def test_a_snapshot_whose_image_is_gone_is_left_out_and_named(world: World, rebuild: Rebuild) -> None:
    whole, damaged = world.upload({"a.png": SHARED}), world.upload({"a.png": SHARED, "x.png": ALONE})
    drop(world, key_of(world, ALONE))
    after = rebuild(world)
    (left,) = after.done.left_out
    assert (left.manifest.number, left.missing) == (damaged, (digest(ALONE),))
    with pytest.raises(NotFound):
        details(after, damaged)
    assert images(after, whole) == named({"a.png": SHARED})
    at_rest(after)


def test_what_is_left_of_a_held_snapshot_is_kept(world: World, rebuild: Rebuild) -> None:
    """Nobody and no rule may delete it, and a rebuild does not either."""
    number = world.upload({"a.png": SHARED, "x.png": ALONE})
    world.hold(number, "an audit")
    world.tidy()
    drop(world, key_of(world, ALONE))
    after = rebuild(world)
    assert [left.manifest.number for left in after.done.left_out] == [number]
    after.tidy()
    assert after.stored(SHARED) == {SHARED}
    assert {item.kind for item in judged(after)} == {"orphan"}


def test_a_create_that_was_never_confirmed_may_be_back_and_is_named(world: World, rebuild: Rebuild) -> None:
    before = world.upload(BASE, head_sha="c" * 40)
    world.keep(world.begin(), *HEAD.values())
    world.resources = replace(world.resources, failpoints=Failpoints("snapshot.stored=raise"))
    with pytest.raises(Failed):
        world.create(HEAD)
    after = rebuild(world)
    assert after.done.snapshots == 2
    assert before in {one.number for one in after.done.unconfirmed}
    (never,) = [one for one in after.done.unconfirmed if one.number != before]
    assert never.number is not None
    assert images(after, never.number) == named(HEAD)
    at_rest(after)


def test_of_two_attempts_of_one_create_one_comes_back(world: World, rebuild: Rebuild) -> None:
    world.keep(world.begin(), *BASE.values())
    plain = world.resources
    world.resources = replace(plain, failpoints=Failpoints("snapshot.stored=raise"))
    with pytest.raises(Failed):
        world.create(BASE, run="the same")
    world.resources = plain
    number = world.create(BASE, run="the same")
    after = rebuild(world)
    assert after.done.snapshots == 1
    assert images(after, number) == named(BASE)
    assert after.done.removed["manifest"][0] == 1
    at_rest(after)


def test_deleted_the_first_attempt_does_not_bring_the_snapshot_back(world: World, rebuild: Rebuild) -> None:
    world.keep(world.begin(), *BASE.values())
    plain = world.resources
    world.resources = replace(plain, failpoints=Failpoints("snapshot.stored=raise"))
    with pytest.raises(Failed):
        world.create(BASE, run="the same")
    world.resources = plain
    world.delete(world.create(BASE, run="the same"))
    after = rebuild(world)
    assert after.done.snapshots == 0
    at_rest(after)
    assert after.files() == []


def test_while_a_hold_is_placed_two_manifests_stand_and_the_newer_counts(world: World, rebuild: Rebuild) -> None:
    number = world.upload(BASE)
    world.hold(number, "an audit")  # the manifest before is condemned and still stands
    after = rebuild(world)
    assert [hold.reason for hold in holds.list_holds(after.resources, [after.project.id])] == ["an audit"]
    assert after.done.removed["manifest"][0] == 1
    at_rest(after)


def test_a_journal_entry_cut_in_half_counts_for_what_can_be_read_in_it(world: World, rebuild: Rebuild) -> None:
    kept, gone = world.upload(BASE), world.upload({"x.png": ALONE})
    deletion = world.delete(gone)
    entry = file_of(world, keys.journal_entry(deletion))
    entry.write_bytes(entry.read_bytes()[:150])
    after = rebuild(world)
    (problem,) = [text for key, text in after.done.unreadable.items() if key == keys.journal_entry(deletion)]
    assert str(deletion) in problem
    assert after.done.reopened == (deletion,)
    with pytest.raises(NotFound):
        details(after, gone)
    assert images(after, kept) == named(BASE)
    after.tidy()
    assert after.receipt(deletion)["state"] == "complete"
    at_rest(after)


def test_a_manifest_that_was_altered_is_named_and_does_not_come_back(world: World, rebuild: Rebuild) -> None:
    number = world.upload(BASE)
    key = key_of_kind(world, "manifest")
    file = file_of(world, key)
    file.write_bytes(file.read_bytes().replace(b'"web"', b'"wob"'))
    after = rebuild(world)
    assert key in after.done.unreadable
    with pytest.raises(NotFound):
        details(after, number)
    at_rest(after)


def test_nobody_can_upload_a_manifest_as_an_image_or_a_file(world: World, rebuild: Rebuild) -> None:
    """Whoever may upload may upload any bytes. Bytes that look like a newer manifest of somebody's snapshot are not one."""
    number = world.upload(BASE)
    artifact_id = details(world, number).snapshot.artifact_id
    wanted = manifests.parse(manifest({"a.png": SHARED}))
    forged = manifests.stored(wanted, artifact_id, number, world.clock(), "token:somebody")
    world.upload({"a.png": forged})
    world.build(forged)
    after = rebuild(world)
    assert images(after, number) == named(BASE)
    at_rest(after)


def test_files_that_are_none_of_ours_are_left_alone_and_named(world: World, rebuild: Rebuild) -> None:
    world.upload(BASE)
    put(world, "notes/readme.txt", b"somebody's")
    after = rebuild(world)
    assert after.done.foreign == ("notes/readme.txt",)
    assert after.resources.store.get("notes/readme.txt") == b"somebody's"


def test_what_a_killed_put_left_half_written_goes(world: World, rebuild: Rebuild) -> None:
    world.upload(BASE)
    half = file_of(world, key_of(world, OLD) + "#1")
    half.write_bytes(b"hal")
    after = rebuild(world)
    assert not half.exists()
    at_rest(after)


# --- Who may rebuild, and when --------------------------------------------------------------------------------------------


def test_no_rule_deletes_anything_until_somebody_has_looked(world: World, rebuild: Rebuild) -> None:
    after = rebuild(world)
    assert sql(after, "SELECT FROM installation WHERE retention_paused_for IS NOT NULL") == 1


def test_a_database_that_knows_its_installation_is_not_rebuilt(world: World, dsn: str, tmp_path: Path) -> None:
    world.upload(BASE)
    with pytest.raises(Conflict, match="nothing to rebuild"), lost(dsn, tmp_path, world.clock):
        pass
    assert judged(world) == []


def test_a_store_that_belongs_to_nobody_is_not_rebuilt_from(dsn: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="belongs to no installation"), lost(dsn, tmp_path / "elsewhere", world.clock):
        pass


def test_what_lands_while_the_put_limit_is_waited_out_is_seen(world: World, rebuild: Rebuild) -> None:
    """A journal entry of the life before is still on its way when the rebuild begins."""
    number = world.upload(BASE)
    deletion = world.delete(number)
    entry = world.resources.store.get(keys.journal_entry(deletion)) or b""
    drop(world, keys.journal_entry(deletion))
    after = rebuild(world, lambda _: world.resources.store.note(keys.journal_entry(deletion), entry))
    with pytest.raises(NotFound):
        details(after, number)
    at_rest(after)


def test_only_one_rebuilds_at_a_time(world: World, cluster: Embedded, template: str, tmp_path: Path) -> None:
    with a_database(cluster, template) as other, lost(other, tmp_path, world.clock) as resources:

        def another(_: object) -> None:
            with lost(other, tmp_path, world.clock) as second, pytest.raises(Busy):
                recovery.rebuild(second, lambda _: None, silent, deletion.withdraw)

        recovery.rebuild(resources, another, silent, deletion.withdraw)


def test_until_a_rebuild_has_ended_nobody_else_opens_the_database(
    world: World, cluster: Embedded, template: str, tmp_path: Path
) -> None:
    number = world.upload(BASE)
    with a_database(cluster, template) as other:
        with lost(other, tmp_path, world.clock) as resources:
            failing = replace(resources, failpoints=Failpoints("rebuild.filled=raise"))
            with pytest.raises(Failed):
                recovery.rebuild(failing, lambda _: None, silent, deletion.withdraw)
        with pytest.raises(Broken, match="snapshed rebuild"), a_world(other, tmp_path):
            pass
        with lost(other, tmp_path, world.clock) as resources:
            recovery.rebuild(resources, lambda _: None, silent, deletion.withdraw)
        with a_world(other, tmp_path) as after:
            assert images(after, number) == named(BASE)


def test_the_life_before_is_refused_once_another_has_begun(world: World, rebuild: Rebuild, tmp_path: Path) -> None:
    """The old database turns up again after the rebuild: two databases on one store would remove each other's objects."""
    world.upload(BASE)
    rebuild(world)
    assert world.resources.settings.database_url is not None
    with pytest.raises(Broken, match="epoch"), opened(replace_settings(world, tmp_path)):
        pass


def replace_settings(world: World, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, database_url=Secret(str(world.resources.settings.database_url)))


def test_a_rebuild_foreseen_changes_nothing(world: World, cluster: Embedded, template: str, tmp_path: Path) -> None:
    number = world.upload(BASE)
    marker = world.resources.store.get(keys.INSTALLATION)
    with a_database(cluster, template) as other, lost(other, tmp_path, world.clock) as resources:
        foreseen = recovery.foresee(resources, silent)
        assert [one.number for one in foreseen.plan.chosen] == [number]
    assert json.loads(world.resources.store.get(keys.INSTALLATION) or b"") == json.loads(marker or b"")
    assert judged(world) == []

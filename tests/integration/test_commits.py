"""Committing a snapshot beside deletions: what is seen, what waits, and what a repeated request gets."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from fixtures.world import World, digest
from test_races import in_background, until, waits_for_a_lock

from snapshed.domain.grants import Grant
from snapshed.errors import Conflict
from snapshed.ledger import Draft, store
from snapshed.work import deletion, uploads

IMAGES = {"one.png": b"image"}


def test_a_commit_waits_for_a_filter_that_is_being_evaluated(world: World) -> None:
    """Somebody deletes everything. A snapshot that commits after the filter was evaluated and before the deletion is
    would be kept, though it was there when the deletion was answered; so the commit waits."""
    session = world.begin()
    world.keep(session, *IMAGES.values())
    with psycopg.connect(world.resources.database.dsn) as evaluating:
        evaluating.execute("SELECT 1 FROM project WHERE id = %s FOR NO KEY UPDATE", [world.project.id])
        thread, outcome = in_background(lambda: world.create(IMAGES))
        until(lambda: waits_for_a_lock(world))
        assert world.count("artifact") == 0
        evaluating.rollback()
    thread.join(30)
    assert world.count("artifact") == len(outcome) == 1


def test_a_repeated_create_does_not_bring_its_deleted_snapshot_back_though_others_have_its_images(
    world: World,
) -> None:
    """A client that lost the answer repeats its create, after somebody has deleted the snapshot. Every image it names
    is still here, because another snapshot names them too; it is refused all the same, and nothing is made."""
    first = world.upload(IMAGES, run="the same request")
    world.upload(IMAGES)
    world.delete(first)
    with pytest.raises(Conflict, match="deleted since"):
        world.create(IMAGES, run="the same request")
    assert world.count("snapshot") == 1
    deletion.request(world.resources, world.order(everything=True))
    world.tidy()
    assert world.files() == []


def test_what_a_dead_upload_had_only_announced_goes_when_its_session_ends(world: World) -> None:
    """The uploader died between announcing an image and saying that it is whole; its bytes are in the store."""
    session = world.begin()
    store(world.resources, session, [Draft("image", digest(b"half"), b"half")])
    assert world.stored(b"half") == {b"half"}
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    world.clock.pass_time(timedelta(hours=1))
    world.tidy()
    assert world.files() == []
    assert world.count("blob") == 0


def test_an_uploader_whose_copy_lost_can_name_the_winner_after_the_winners_session_has_ended(world: World) -> None:
    """Two clients bring the same image. One copy is kept, the first client's; that client is never heard of again."""
    gone, living = world.begin(), world.begin()
    world.keep(gone, *IMAGES.values())
    world.keep(living, *IMAGES.values())
    world.clock.pass_time(timedelta(minutes=45))
    living = uploads.keep_open(world.resources, Grant(living.session_id, living.org_id, living.project_id, frozenset()))
    world.clock.pass_time(timedelta(minutes=30))
    world.tidy()
    assert world.create(IMAGES)
    assert world.stored(*IMAGES.values()) == set(IMAGES.values())

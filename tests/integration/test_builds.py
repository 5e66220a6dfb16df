"""Builds: an uploaded file with its metadata is an artifact like a snapshot, and goes like one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fixtures.world import World

from snapshed.errors import Held, Invalid, NotFound
from snapshed.work import builds, deletion

APK = b"PK\x03\x04 an app"


def test_a_mixed_batch_goes_whole_with_one_receipt(world: World) -> None:
    """The story this service began with: a batch of artifacts of several kinds is deleted, and something of one kind
    is left because the code that collects keys has never heard of it."""
    snapshot = world.upload({"one.png": b"one", "two.png": b"two"})
    app = world.build(APK, metadata='{"version": "1.2"}', head_ref="main")
    other = world.build(b"an ipa", "app.ipa")
    receipt = world.receipt(world.delete(snapshot, app))
    assert receipt["rows"]["snapshots"] == 1
    assert receipt["rows"]["builds"] == 1
    world.tidy()
    receipt = world.receipt(receipt["id"])
    assert receipt["state"] == "complete"
    assert receipt["objects"]["file"] == {
        "released": 1, "removed": 1, "waiting": 0, "kept_shared": 0, "kept_pinned": 0
    }  # fmt: skip
    assert receipt["objects"]["manifest"]["removed"] == 2
    assert receipt["traces"]["removed"] == 2
    with pytest.raises(NotFound):
        builds.find(world.resources, [world.project.id], app)
    kept = builds.open_file(world.resources, [world.project.id], other)
    assert b"".join(kept.pieces) == b"an ipa"
    assert len(world.files()) == 2
    assert world.disagreements() == []


def test_filters_and_everything_take_builds_too(world: World) -> None:
    world.build(APK, head_ref="old")
    world.build(APK, head_ref="main")
    world.upload({"one.png": b"one"}, head_ref="old", head_sha="a" * 40)
    by_branch = world.receipt(deletion.request(world.resources, world.order(filter=deletion.Filter(branch="old"))))
    assert len(by_branch["snapshots"]) == 2
    deletion.request(world.resources, world.order(everything=True))
    world.tidy()
    assert world.files() == []
    assert world.count("artifact") == 0
    assert world.disagreements() == []


def test_a_build_can_be_held(world: World) -> None:
    number = world.build(APK)
    world.hold(number)
    with pytest.raises(Held):
        world.delete(number)
    world.release(number)
    world.delete(number)
    world.tidy()
    assert world.files() == []


def test_the_same_file_twice_is_two_builds_and_deleting_one_leaves_the_other(world: World) -> None:
    first, second = world.build(APK), world.build(APK)
    world.delete(first)
    world.tidy()
    assert b"".join(builds.open_file(world.resources, [world.project.id], second).pieces) == APK


def test_a_build_whose_upload_died_half_way_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    monkeypatch.setattr("snapshed.db.builds.add", die)
    with pytest.raises(Died):
        world.build(APK)
    assert len(world.files()) == 2
    world.clock.pass_time(timedelta(hours=7))
    world.tidy()
    assert world.files() == []
    assert world.disagreements() == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"file_name": "../app.apk"}, "file_name"),
        ({"file_name": ""}, "file_name"),
        ({"metadata": "[]"}, "metadata"),
        ({"metadata": '{"a": NaN}'}, "metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata"),
        ({"head_sha": "abc"}, "head_sha"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_named(world: World, fields: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        world.build(APK, **fields)
    assert world.files() == []
    assert world.count("session") == 0

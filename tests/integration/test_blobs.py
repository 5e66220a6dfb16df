"""What every store does, run against the disk and a real S3 server alike, and what only the disk has to care about."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from fixtures.s3 import ACCESS, S3, SECRET
from fixtures.world import World, a_world

from snapshed.blobs import Item, Store, open_store
from snapshed.blobs.failures import classify
from snapshed.errors import Invalid, StoreUnavailable
from snapshed.settings import Secret, Settings


def settings_of(s3: S3, prefix: str, data: Path) -> Settings:
    return Settings(
        data=data,
        store_url=f"s3://{s3.bucket}/{prefix}",
        store_endpoint=s3.endpoint,
        store_access_key_id=Secret(ACCESS),
        store_secret_access_key=Secret(SECRET),
        put_limit=timedelta(seconds=60),
    )


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(Settings(data=tmp_path), lambda: None)
    s3: S3 = request.getfixturevalue("s3")
    return open_store(settings_of(s3, tmp_path.name, tmp_path), lambda: None)


def keys(store: Store) -> set[str]:
    return {found.key for found in store.listing()}


def test_what_is_put_can_be_had_again(store: Store, tmp_path: Path) -> None:
    items = [Item(f"1/1/1/{number}", bytes([number]) * 1000) for number in range(40)]
    store.put(items)
    assert keys(store) == {item.key for item in items}
    assert store.get("1/1/1/7") == bytes([7]) * 1000
    pieces = store.stream("1/1/1/7")
    assert pieces is not None
    assert b"".join(pieces) == bytes([7]) * 1000
    found = store.head("1/1/1/7")
    assert found is not None
    assert found.size == 1000
    path = store.path("1/1/1/7", tmp_path)
    assert path is not None
    assert path.read_bytes() == bytes([7]) * 1000


def test_what_is_not_there_is_nothing_and_no_error(store: Store, tmp_path: Path) -> None:
    assert store.get("1/1/1/none") is None
    assert store.stream("1/1/1/none") is None
    assert store.head("1/1/1/none") is None
    assert store.path("1/1/1/none", tmp_path) is None
    assert store.held([f"1/1/1/none{number}" for number in range(20)]) == set()


def test_removing_takes_everything_although_some_keys_are_missing(store: Store) -> None:
    """A bulk call may stop at its first missing key and leave the rest; a thousand objects would stay for ever."""
    items = [Item(f"1/1/1/{number}", b"x") for number in range(60)]
    store.put(items)
    asked = [f"1/1/1/{number}" for number in range(-10, 60)]
    assert store.remove(asked) == {}
    assert keys(store) == set()
    assert store.remove(asked) == {}, "removing twice is no failure"


def test_an_object_of_many_megabytes_is_one_request_and_comes_back_whole(store: Store) -> None:
    data = bytes(range(256)) * 4096 * 12
    store.put([Item("1/1/1/large", data)])
    assert store.get("1/1/1/large") == data


def test_on_disk_what_a_killed_put_left_is_listed_and_goes_with_its_key(tmp_path: Path) -> None:
    store = open_store(Settings(data=tmp_path), lambda: None)
    store.put([Item("1/1/1/a", b"x")])
    (tmp_path / "objects/1/1/1/a#1").write_bytes(b"ha")
    assert keys(store) == {"1/1/1/a", "1/1/1/a#1"}
    assert store.remove(["1/1/1/a"]) == {}
    assert keys(store) == set()


def test_on_disk_one_file_that_cannot_be_removed_delays_no_other(tmp_path: Path) -> None:
    store = open_store(Settings(data=tmp_path), lambda: None)
    store.put([Item(f"1/1/1/{name}", b"x") for name in "abc"])
    (tmp_path / "objects/1/1/1/b").unlink()
    (tmp_path / "objects/1/1/1/b").mkdir()  # no file any more: unlinking it fails
    failed = store.remove([f"1/1/1/{name}" for name in "abc"])
    assert set(failed) == {"1/1/1/b"}
    assert {path.name for path in (tmp_path / "objects/1/1/1").iterdir()} == {"b"}


def test_on_disk_nobody_else_can_look_into_the_folder(tmp_path: Path) -> None:
    open_store(Settings(data=tmp_path), lambda: None)
    assert (tmp_path / "objects").stat().st_mode & 0o777 == 0o700


def test_a_store_that_does_not_answer_is_unavailable_and_its_words_stay_inside(tmp_path: Path, s3: S3) -> None:
    nowhere = S3("http://127.0.0.1:9", s3.bucket)
    store = open_store(settings_of(nowhere, "x", tmp_path), lambda: None)
    with pytest.raises(StoreUnavailable) as failed:
        store.put([Item("1/1/1/a", b"x")])
    assert "127.0.0.1" not in str(failed.value)
    assert SECRET not in str(failed.value)
    assert store.answers() is False
    assert set(store.remove(["1/1/1/a"])) == {"1/1/1/a"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(28, "No space left on device"), "unavailable"),
        (PermissionError(13, "denied"), "refused"),
        (Exception("<Code>SlowDown</Code>"), "throttled"),
        (Exception("<Code>AccessDenied</Code> secret=abc"), "refused"),
        (Exception("connection reset"), "unavailable"),
    ],
)
def test_a_failure_is_classed_and_its_text_is_ours(error: Exception, kind: str) -> None:
    failure = classify(error)
    assert failure.kind == kind
    assert "secret" not in failure.sentence


def test_a_store_that_cannot_be_named_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="SNAPSHED_STORE_URL"):
        Settings.from_env({"SNAPSHED_STORE_URL": "ftp://x"}, data=tmp_path)


def test_the_whole_protocol_runs_on_s3(dsn: str, tmp_path: Path, s3: S3) -> None:
    chosen = settings_of(s3, f"world-{tmp_path.name}", tmp_path)
    fields = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__ if name.startswith("store_")}
    with a_world(dsn, tmp_path, **fields) as world:
        _lives_and_goes(world)


def _lives_and_goes(world: World) -> None:
    first = world.upload({"one.png": b"shared", "two.png": b"only a"})
    world.upload({"one.png": b"shared"})
    deletion_id = world.delete(first)
    world.tidy()
    assert world.receipt(deletion_id)["state"] == "complete"
    assert world.stored(b"shared", b"only a") == {b"shared"}
    assert world.disagreements() == []

"""`snapshed rebuild` as a person and a script meet it: what it prints, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.judging import drop, key_of
from fixtures.world import World, a_database
from test_reconcile_command import Done, address_of

from snapshed.db.embedded import Embedded

A, B = b"image a", b"image b"


def rebuild(dsn: str, data: Path, *options: str, **settings: str) -> Done:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SNAPSHED_")}
    done = subprocess.run(
        [sys.executable, "-m", "snapshed", "rebuild", "--data", str(data), *options],
        env=inherited | {"SNAPSHED_DATABASE_URL": address_of(dsn)} | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def empty(cluster: Embedded, template: str) -> Iterator[str]:
    with a_database(cluster, template) as made:
        yield made


def test_a_person_reads_what_is_back_what_is_not_and_how_to_get_in(world: World, empty: str, tmp_path: Path) -> None:
    world.upload({"a.png": A})
    broken = world.upload({"a.png": A, "b.png": B})
    drop(world, key_of(world, B))
    before = (tmp_path / "admin-token").read_text()
    looked = rebuild(empty, tmp_path, "--dry-run")
    assert looked.status == 0
    assert "1 snapshot or build would come back. Nothing was changed." in looked.out
    done = rebuild(empty, tmp_path, "--old-processes-are-dead")
    assert done.status == 0, done.err
    assert "Brought back: 1 snapshot, 0 builds, 0 comparisons. This is epoch 2." in done.out
    assert f"Left out: snapshot {broken} of project 1" in done.out
    assert "lacks 1 object" in done.out
    assert "No manifest names 1 manifest" in done.out
    assert "/sign-in/once/" in done.out
    assert (tmp_path / "admin-token").read_text() not in ("", before)


def test_a_program_reads_one_document(world: World, empty: str, tmp_path: Path) -> None:
    number = world.upload({"a.png": A})
    done = rebuild(empty, tmp_path, "--json", SNAPSHED_PUT_LIMIT="100ms")
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert (document["epoch"], document["snapshots"], document["left_out"]) == (2, 1, [])
    assert [item["number"] for item in document["unconfirmed"]] == [number]
    assert "Waiting 0 seconds" in done.err


def test_a_second_rebuild_is_refused_in_one_sentence(world: World, empty: str, tmp_path: Path) -> None:
    world.upload({"a.png": A})
    assert rebuild(empty, tmp_path, "--old-processes-are-dead").status == 0
    done = rebuild(empty, tmp_path, "--old-processes-are-dead")
    assert done.status == 2
    assert done.err.startswith("snapshed: This database knows its installation")
    assert done.err.count("\n") == 1

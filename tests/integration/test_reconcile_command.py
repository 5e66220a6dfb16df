"""`snapshed reconcile` as a person and a script meet it: what it prints, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from fixtures.judging import drop, file_of, found, key_of, plant_orphan
from fixtures.world import World
from psycopg.conninfo import conninfo_to_dict

A = b"image a"


class Done:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def document(self) -> dict[str, object]:
        return json.loads(self.out)


def reconcile(world: World, *options: str) -> Done:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SNAPSHED_")}
    done = subprocess.run(
        [sys.executable, "-m", "snapshed", "reconcile", "--data", str(world.resources.settings.data), *options],
        env=inherited | {"SNAPSHED_DATABASE_URL": address(world)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def address(world: World) -> str:
    """The world's database as a setting names it."""
    return address_of(world.resources.database.dsn)


def address_of(dsn: str) -> str:
    parts = conninfo_to_dict(dsn)
    host, port = quote(str(parts["host"]), safe=""), parts.get("port", 5432)
    secret = f":{quote(str(parts['password']))}" if "password" in parts else ""
    return f"postgresql://{parts['user']}{secret}@/{parts['dbname']}?host={host}&port={port}"


@pytest.fixture
def wounded(world: World) -> World:
    """An orphan beside a lost image that two snapshots name."""
    world.upload({"a.png": A})
    world.upload({"again.png": A})
    world.tidy()
    plant_orphan(world)
    drop(world, key_of(world, A))
    return world


def test_agreement_is_one_line_and_status_0(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    done = reconcile(world)
    assert (done.status, done.out) == (0, "Rows, objects and traces agree.\n")
    done = reconcile(world, "--json", "--level", "2")
    assert (done.status, done.document, done.err) == (0, {"agree": True, "disagreements": []}, "")


def test_disagreements_are_a_line_each_and_status_1(wounded: World) -> None:
    done = reconcile(wounded)
    assert done.status == 1
    lost, orphan, summary = sorted(done.out.splitlines(), key=lambda line: ("Found" in line, line))
    assert lost.startswith(f"lost  {key_of(wounded, A)}  ")
    assert "(concerns 1, 2)" in lost
    assert orphan.startswith("orphan  1/1/1/")
    assert summary == "Found: 2 disagreements."


def test_the_json_document_says_the_same(wounded: World) -> None:
    done = reconcile(wounded, "--json")
    assert done.status == 1
    disagreements = done.document["disagreements"]
    assert isinstance(disagreements, list)
    assert done.document["agree"] is False
    (lost,) = [item for item in disagreements if item["kind"] == "lost"]
    assert lost["key"] == key_of(wounded, A)
    assert lost["snapshots"] == ["1", "2"]
    assert lost["advice"]


def test_a_repair_mends_what_it_can_and_says_what_is_left(wounded: World) -> None:
    """Without any worker: what the repair queues, it carries out."""
    done = reconcile(wounded, "--repair", "--json")
    assert done.status == 1
    assert sorted(item["kind"] for item in done.document["mended"]) == ["lost", "orphan"]  # type: ignore[index]
    assert [item["kind"] for item in done.document["disagreements"]] == ["lost"]  # type: ignore[index]
    assert len(wounded.files()) == 2, "the manifests; the orphan is gone"
    (receipt,) = wounded.resources.database.run(
        lambda tx: tx.execute("SELECT receipt FROM deletion WHERE requested_by = 'repair'").fetchall()
    )
    assert receipt[0]["state"] == "complete"
    wounded.upload({"a.png": A})
    wounded.tidy()
    assert found(wounded, 2) == []


def test_a_repair_that_mends_everything_ends_with_0(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    key = plant_orphan(world)
    done = reconcile(world, "--repair")
    assert done.status == 0
    mended, count, agree = done.out.splitlines()
    assert mended.startswith(f"mended  orphan  {key}  removed by deletion ")
    assert (count, agree) == ("Mended: 1 disagreement.", "Rows, objects and traces agree.")
    assert world.resources.store.head(key) is None


def test_too_much_to_mend_is_refused_with_a_sentence_and_status_2(world: World) -> None:
    for number in range(21):
        plant_orphan(world, f"orphan {number}".encode())
    done = reconcile(world, "--repair")
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "21 objects" in done.err
    assert "--yes" in done.err
    assert reconcile(world, "--repair", "--yes").status == 0
    assert world.files() == []


def test_another_installations_store_is_status_70(world: World) -> None:
    marker = file_of(world, ".snapshed/installation.json")
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"epoch": 9}))
    done = reconcile(world, "--repair")
    assert done.status == 70
    assert "Nothing was changed" in done.err


def test_levels_look_at_more_and_more(world: World) -> None:
    world.upload({"a.png": A})
    world.tidy()
    orphan = plant_orphan(world)
    file_of(world, key_of(world, A)).write_bytes(A[::-1])
    assert reconcile(world, "--level", "0").status == 0
    assert [item["kind"] for item in reconcile(world, "--json").document["disagreements"]] == ["orphan"]  # type: ignore[index]
    kinds = [item["kind"] for item in reconcile(world, "--json", "--level", "2").document["disagreements"]]  # type: ignore[index]
    assert kinds == ["orphan", "altered"]
    assert reconcile(world, "--level", "3").status == 2
    assert orphan


def test_a_name_that_could_steer_a_terminal_is_written_out_and_its_file_left(world: World) -> None:
    """No key of a store may have such a name; only a hand can put one on a disk, and only a hand removes it."""
    file = file_of(world, "bad\x1b[2Jname")
    file.write_bytes(b"x")
    done = reconcile(world, "--repair", "--yes")
    assert done.status == 1
    assert done.out.startswith(r"foreign  bad\x1b[2Jname  ")
    assert file.exists()

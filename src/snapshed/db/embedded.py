"""The embedded PostgreSQL as several processes share it: the first one in starts it, the last one out stops it.

Every decision to make, start or stop is taken under one exclusive lock, and no lock here outlives its process: what
a killed process leaves running, the next one adopts.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from snapshed.db.cluster import Cluster
from snapshed.errors import DatabaseUnavailable

PAUSE = 0.02  # seconds between two looks at something that takes a moment
RETRY = 0.1  # seconds before a refused start is tried again; each refusal is some lines in the log
CLOSE_PATIENCE = 20.0  # seconds: longer than another process can take to stop the server


class Embedded:
    """One process's use of the cluster under `data`; safe to share between threads."""

    def __init__(self, data: Path, timeout: float) -> None:
        self._data = data
        self._timeout = timeout
        self._cluster = Cluster(data)
        self._users: int | None = None  # descriptor that holds the shared lock while we use the cluster
        self._turn = threading.Lock()
        self._closing = threading.Event()

    @classmethod
    def open(cls, data: Path, *, timeout: float = 60) -> Embedded:
        """Makes the cluster if it is absent, starts it if it does not run, adopts it if it does."""
        data = data.resolve()
        with _plain_errors(data):
            data.mkdir(parents=True, exist_ok=True)
            embedded = cls(data, timeout)
            embedded._enter()
            return embedded

    @property
    def dsn(self) -> str:
        """A libpq conninfo over the unix socket; it stays the same across restarts."""
        return self._cluster.dsn()

    def ensure_running(self) -> bool:
        """True if the server had died and this call started it again. Cheap while all is well."""
        with self._turn, _plain_errors(self._data):
            if self._users is None or self._cluster.is_alive():
                return False
            # Short patience: whoever holds the lock is starting the server right now, and we are called again soon.
            with self._start_lock(patience=1) as is_held:
                return is_held and self._bring_up(time.monotonic() + self._timeout)

    def close(self) -> None:
        """Leaves; the last one out stops the server. Closing twice does nothing."""
        self._closing.set()  # a restart that waits in `ensure_running` gives up, so that we need not wait for it
        with self._turn, _plain_errors(self._data):
            if self._users is None:
                return
            with self._start_lock(CLOSE_PATIENCE) as is_held:
                if is_held:
                    self._leave()
                else:  # whoever holds it this long is a user itself, and looks for others when it leaves
                    self._release()

    def _enter(self) -> None:
        deadline = time.monotonic() + self._timeout
        with self._start_lock(self._timeout) as is_held:
            if not is_held:
                raise DatabaseUnavailable(
                    f"Another process is still starting or stopping the PostgreSQL under {self._data}; "
                    f"try again in a moment."
                )
            self._users = _lock_file(self._data / "postgres.users")
            # Nobody can be in the way: the exclusive lock is only ever taken under the start lock, which is ours now.
            fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                self._cluster.prepare(timeout=deadline - time.monotonic())
                self._bring_up(deadline)
            except BaseException:
                self._leave()
                raise

    def _bring_up(self, deadline: float) -> bool:
        """Waits until the server answers, starting it as often as needed; True if it was started here."""
        started = False
        while not self._closing.is_set():
            if not self._cluster.is_alive():
                if started:
                    self._cluster.raise_if_refused()
                    self._closing.wait(RETRY)
                self._cluster.start()
                started = True
            if self._cluster.answers():
                return started
            if time.monotonic() >= deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL did not answer within {self._timeout:.0f} seconds. The log is {self._cluster.log}."
                )
            self._closing.wait(PAUSE)
        return False

    def _leave(self) -> None:
        """Under the start lock: turns our shared lock into an exclusive one, which only the last user gets."""
        if self._users is None:
            return
        try:
            if _try_lock(self._users):
                self._cluster.stop()
        finally:
            self._release()

    def _release(self) -> None:
        if self._users is not None:
            # Said aloud, since a forked child may hold a copy of the descriptor and keep the lock open with it.
            fcntl.flock(self._users, fcntl.LOCK_UN)
            os.close(self._users)
            self._users = None

    @contextmanager
    def _start_lock(self, patience: float) -> Generator[bool]:
        """Yields whether the lock was got within so many seconds."""
        deadline = time.monotonic() + patience
        handle = _lock_file(self._data / "postgres.start")
        try:
            is_held = _try_lock(handle)
            while not is_held and time.monotonic() < deadline:
                time.sleep(PAUSE)
                is_held = _try_lock(handle)
            yield is_held
        finally:
            os.close(handle)


def _lock_file(path: Path) -> int:
    """A descriptor that no child inherits, so that a lock on it ends with this process."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _plain_errors(data: Path) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        where = exc.filename or data
        raise DatabaseUnavailable(f"The embedded PostgreSQL cannot use {where}: {exc.strerror or exc}.") from exc

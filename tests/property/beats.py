"""Verbs that can be killed or frozen between any two of their steps, as a process can be.

A beat is a moment at which no transaction is open: after each commit and around each store call. A verb is run to its
end, killed at its n-th beat, or frozen there and resumed later, with all the world moved on meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from snapshed.db.pool import Database, Tx

_PATIENCE = 60.0
"""Seconds after which a verb that neither ends nor reaches its beat is taken for hanging."""


class Killed(BaseException):
    """The process died here: nothing of it runs any more, no handler of an error either."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a verb is stopped, and how."""

    how: Literal["kill", "freeze"]
    at: int


class Run:
    """One verb on its way. Without a freeze it runs in the caller's thread."""

    def __init__(self, work: Callable[[], Any], stop: Stop | None) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.was_killed = False
        self.has_ended = False
        self.reached: list[str] = []
        self._work = work
        self._stop = stop
        self._is_to_die = False
        self._still = threading.Event()
        self._go = threading.Event()
        if stop is not None and stop.how == "freeze":
            self._thread = threading.Thread(target=self._do, name="verb", daemon=True)
            self._thread.start()
            self._await()
        else:
            self._do()

    def resume(self, *, to_die: bool = False) -> None:
        """Let a frozen verb run on to its end, or die where it stands."""
        self._is_to_die = to_die
        self._still.clear()
        self._go.set()
        self._await()
        self._thread.join(_PATIENCE)

    def passes(self, name: str) -> None:
        self.reached.append(name)
        if self._stop is None or len(self.reached) != self._stop.at:
            return
        if self._stop.how == "freeze":
            self._still.set()
            self._go.wait()
            if not self._is_to_die:
                return
        raise Killed

    def _await(self) -> None:
        if not self._still.wait(_PATIENCE):
            raise AssertionError(f"a verb hangs after {self.reached}")

    def _do(self) -> None:
        _current.run = self
        try:
            self.result = self._work()
        except Killed:
            self.was_killed = True
        except Exception as error:  # noqa: BLE001  whoever asked looks at it
            self.error = error
        finally:
            _current.run = None
            self.has_ended = True
            self._still.set()


_current = threading.local()


def beat(name: str) -> None:
    """Pass a beat of the verb this thread runs, if it runs one."""
    run: Run | None = getattr(_current, "run", None)
    if run is not None:
        run.passes(name)


class BeatingDatabase(Database):
    """The pool of another, with a beat after every commit."""

    def __init__(self, database: Database) -> None:
        self.dsn = database.dsn
        self._pool = database._pool

    @contextmanager
    def transaction(self) -> Generator[Tx]:
        with super().transaction() as tx:
            yield tx
        beat("committed")

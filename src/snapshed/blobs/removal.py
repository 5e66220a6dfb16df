"""Removing many keys from a store of which parts, or all, may fail.

A bulk request that fails does not say which keys it reached. It is taken apart until every key has an outcome of its
own, with two bounds: a store that does not answer at all is not asked again, and neither is one that has said no to
everything. How many keys are asked for at once follows what the store bears.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from snapshed.blobs.failures import Failure, FailureClass
from snapshed.domain import backoff

MOST = 1000
"""Keys of one bulk request, the most S3 takes."""

_PARTS = 10
"""A request that failed is taken apart in tenths: one bad key of a thousand is found with 31 requests, and a thousand
bad ones cost hardly more than asking for each."""

_PATIENCE: dict[FailureClass, int] = {"unavailable": 24, "refused": 24, "throttled": 2}
"""After this many requests in a row without one success, whatever was not asked for yet fails alike. A request that was
throttled is not sent again in ten smaller ones: that is what the store has asked us not to do."""

_ASK_AGAIN = 4
"""The store may fall silent half-way: after this many failures in a row it is asked again whether it is there."""

_FEWEST = 8
"""A store that answers is asked for at least this many keys at once, so that a few bad ones cannot hold the rest up."""

_SHORTEST_REST = timedelta(seconds=1)
_LONGEST_REST = timedelta(seconds=30)


def remove_all(
    keys: Sequence[str],
    ask: Callable[[Sequence[str]], Failure | Mapping[str, Failure]],
    answers: Callable[[], bool],
    at_once: int = MOST,
) -> dict[str, Failure]:
    """Ask for all keys to be removed, `at_once` with each request, and return what failed, by key.

    `ask` sends one request. It returns a mapping of what failed, or one failure when it cannot tell which keys are
    concerned. `answers` tells whether the store can be asked for anything at all.
    """
    failed: dict[str, Failure] = {}
    waiting = deque(_parts(keys, at_once))
    in_a_row = 0
    while waiting:
        part = waiting.popleft()
        said = ask(part)
        if isinstance(said, Failure):
            failure = said
            if len(part) > 1:
                waiting.extendleft(reversed(_parts(part, -(-len(part) // _PARTS))))
            else:
                failed[part[0]] = failure
        else:
            failed.update(said)
            if len(said) < len(part):
                in_a_row = 0
                continue
            failure = next(iter(said.values()))
        in_a_row += 1
        if failure.kind != "refused" and in_a_row in (1, _ASK_AGAIN) and not answers():
            failure = failure.of_the_store()
            failed.update(dict.fromkeys(part, failure))
        if failure.store_is_down or in_a_row >= _PATIENCE[failure.kind]:
            for rest in waiting:
                failed.update(dict.fromkeys(rest, failure))
            break
    return failed


def _parts(keys: Sequence[str], size: int) -> list[Sequence[str]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


class Pace:
    """How many keys the store is asked for at once, and whether it is asked at all just now. Thread-safe.

    Additive increase, multiplicative decrease, as in congestion control (Chiu and Jain, 1989): a store that asks for
    less gets half at once and a tenth more after every success; one that does not answer is asked for a
    single key, at growing, jittered intervals, and once it answers the number doubles up to where it failed before.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._keys = most
        self._safe = most
        self._troubles = 0
        self._rests_until: datetime | None = None
        self._lock = threading.Lock()

    @property
    def keys(self) -> int:
        """How many keys may be in flight."""
        return self._keys

    def allowance(self, now: datetime) -> int:
        """How many keys may be asked for now; 0 while the store is left alone."""
        with self._lock:
            return 0 if self._rests_until is not None and now < self._rests_until else self._keys

    def note(self, asked: int, failed: Mapping[str, Failure], now: datetime, dice: float) -> None:
        """Learn from one removal of `asked` keys. `dice`, between 0 and 1, spreads those who wait together."""
        with self._lock:
            if any(failure.store_is_down for failure in failed.values()):
                self._keys = 1
                self._rest(now, dice)
            elif any(failure.kind == "throttled" for failure in failed.values()):
                self._keys = self._safe = max(1, self._keys // 2)
                self._rest(now, dice)
            else:
                self._troubles, self._rests_until = 0, None
                if len(failed) < asked:
                    self._faster()
                else:
                    # It answers and removes none of these: others may fare better.
                    self._keys = max(self._keys, _FEWEST)

    def _faster(self) -> None:
        step = self._keys if self._keys < self._safe else max(1, self._keys // 10)
        self._keys = min(self._most, self._keys + step)
        self._safe = max(self._safe, self._keys)

    def _rest(self, now: datetime, dice: float) -> None:
        self._troubles += 1
        self._rests_until = now + backoff.wait(self._troubles, dice, shortest=_SHORTEST_REST, longest=_LONGEST_REST)

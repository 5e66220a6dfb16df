"""The search: every state that can be reached, and for a broken promise the shortest way to it.

Knows states, steps and promises, and nothing of what a model is about.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

State = Any
"""A named tuple of hashable fields; every model has its own."""

MOST_STATES = 4_000_000
"""A search that meets more is a mistake in a model, or one nobody wants to wait for."""


class Step(NamedTuple):
    """One thing that may happen next. `broken` is the promise this very step breaks; `alone` says that it needs neither
    a client nor the end of a session."""

    words: str
    state: Hashable
    broken: str | None = None
    alone: bool = True


class Model(ABC):
    """What a model has to answer, and the guards that can be taken away from it, by name: `GUARDS` says what each is."""

    GUARDS: ClassVar[dict[str, str]]

    def __init__(self, without: Iterable[str] = (), **bounds: int) -> None:
        self.without = frozenset(without)
        if unknown := self.without - self.GUARDS.keys() | bounds.keys():
            raise ValueError(f"{type(self).__name__} knows no {', '.join(sorted(unknown))}")

    @abstractmethod
    def starts(self) -> Iterable[State]:
        """Where the world begins."""

    @abstractmethod
    def steps(self, s: State) -> Iterator[Step]:
        """Everything that may happen next."""

    @abstractmethod
    def broken(self, s: State) -> str | None:
        """The promise that does not hold in this state, in one line, or None."""

    @abstractmethod
    def at_rest(self, s: State) -> bool:
        """Nothing is left to do, and every deletion is complete. From every state such a state must be reachable."""

    def is_settled(self, s: State) -> bool | None:
        """A state every other must reach without a client and without a session's end; None: nothing of the kind is
        promised."""
        del s
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a search found: `broken` is None if every promise holds in every one of `states`, else `path` leads there."""

    states: int
    broken: str | None
    path: Sequence[str]
    seconds: float


def search(model: Model, promise: str = "", most: int = MOST_STATES) -> Verdict:
    """Visit every reachable state. Safety is judged on the way, so the first broken promise found is the nearest one;
    whether everything can come to rest is judged at the end, backwards from the states at rest. With `promise`, only
    what begins with it counts."""
    began = time.monotonic()
    found = _Found()
    for start in model.starts():
        found.number(start, None, "")
    resting: list[int] = []
    settled: list[int] = []
    promises_settling = False
    while found.waiting:
        here, state = found.waiting.popleft()
        broken = model.broken(state)
        if broken and broken.startswith(promise):
            return Verdict(len(found.numbers), broken, found.path(here), time.monotonic() - began)
        if len(found.numbers) > most:
            raise RuntimeError(f"More than {most} states; bound the model.")
        if model.at_rest(state):
            resting.append(here)
        settles = model.is_settled(state)
        promises_settling = promises_settling or settles is not None
        if settles:
            settled.append(here)
        for step in model.steps(state):
            if step.broken and step.broken.startswith(promise):
                path = [*found.path(here), step.words]
                return Verdict(len(found.numbers), step.broken, path, time.monotonic() - began)
            there = found.number(step.state, here, step.words)
            found.edge(here, there, alone=step.alone)
    stuck = found.cannot_reach(resting, alone=False)
    problem = f"I10 {len(stuck)} states can never come to rest with every deletion complete" if stuck else None
    if not stuck and promises_settling:
        stuck = found.cannot_reach(settled, alone=True)
        problem = f"I10 in {len(stuck)} states a deletion waits for a client or for a session's end" if stuck else None
    path = found.path(stuck[0]) if stuck else []
    return Verdict(len(found.numbers), problem, path, time.monotonic() - began)


class _Found:
    """The states met so far, how each was first reached, and every step between them."""

    def __init__(self) -> None:
        self.numbers: dict[State, int] = {}
        self.waiting: deque[tuple[int, State]] = deque()
        self._came: list[tuple[int | None, str]] = []
        self._from, self._to = array("i"), array("i")
        self._alone = bytearray()

    def number(self, state: State, came_from: int | None, words: str) -> int:
        known = self.numbers.get(state)
        if known is not None:
            return known
        new = self.numbers[state] = len(self.numbers)
        self._came.append((came_from, words))
        self.waiting.append((new, state))
        return new

    def edge(self, here: int, there: int, *, alone: bool) -> None:
        self._from.append(here)
        self._to.append(there)
        self._alone.append(alone)

    def path(self, number: int) -> list[str]:
        words: list[str] = []
        here: int | None = number
        while here is not None:
            came_from, step = self._came[here]
            words.append(step)
            here = came_from
        return words[-2::-1]

    def cannot_reach(self, goals: Sequence[int], *, alone: bool) -> list[int]:
        """The states from which no goal can be reached, nearest first; with `alone`, by steps that need nobody."""
        states, edges = len(self.numbers), len(self._from)
        # Edges into a state, as a linked list in two arrays: a list of lists would not fit into memory.
        first, following = array("i", [-1]) * states, array("i", [-1]) * edges
        for edge in range(edges):
            if self._alone[edge] or not alone:
                following[edge] = first[self._to[edge]]
                first[self._to[edge]] = edge
        reached = bytearray(states)
        todo = list(goals)
        for goal in goals:
            reached[goal] = 1
        while todo:
            edge = first[todo.pop()]
            while edge >= 0:
                before = self._from[edge]
                if not reached[before]:
                    reached[before] = 1
                    todo.append(before)
                edge = following[edge]
        return [state for state in range(states) if not reached[state]]


def put(items: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    """A copy of `items` with one place changed."""
    return (*items[:at], value, *items[at + 1 :])

"""Which transaction waits for which: row locks of PostgreSQL, taken one by one, by two or three transactions at a time.

Every transaction of the protocol is the sequence of locks it takes; those of foreign keys are among them. What a locked
row says is left out, but for holds, where the kind of lock decides whether a held snapshot can be marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations_with_replacement
from typing import ClassVar, NamedTuple

from model.search import Model, Step

ORDER = (
    "project", "finalising", "session", "bases", "artifact", "comparison", "blob", "image index", "candidate", "tombstone",
    "deletion",
)  # fmt: skip
"""The one order of ARCHITECTURE.md, with the advisory locks 1 (finalising) and 2 (bases) and the unique index of live
images in their places."""

CONFLICTS = {
    "key share": {"update"},
    "share": {"no key update", "update"},
    "no key update": {"share", "no key update", "update"},
    "update": {"key share", "share", "no key update", "update"},
}
"""Row locks, from PostgreSQL's documentation. Advisory locks and places in an index are taken for `update` here."""


class Lock(NamedTuple):
    """Wait for a row; or with `skips` go on without it if it is not free."""

    row: tuple[str, int]
    mode: str
    skips: bool = False


class Look(NamedTuple):
    """Roll back if somebody has committed `fact`."""

    fact: str


class Write(NamedTuple):
    """Commit `fact` at the end."""

    fact: str


Act = Lock | Look | Write
HELD, MARKED = "snapshot 1 is held", "snapshot 1 is marked"


class Transaction(NamedTuple):
    """How far one has come: which steps it skipped, and whether it is over."""

    name: str
    at: int
    skipped: frozenset[int]


class State(NamedTuple):
    transactions: tuple[Transaction, ...]
    facts: frozenset[str]


def rows(table: str, numbers: Iterable[int], mode: str, *, skips: bool = False) -> list[Act]:
    """One lock after the other, in the order given."""
    return [Lock((table, number), mode, skips) for number in numbers]


class Locks(Model):
    GUARDS: ClassVar[dict[str, str]] = {
        "T4 bases first": "T4 chooses and locks the snapshots it compares with before it locks images",
        "T4 in id order": "T4 locks them in one statement by id, not pair by pair",
        "T5a in id order": "T5a locks its targets by id, whatever the order they were asked in",
        "project first": "a withdrawal locks its project before its artifacts",
        "artifacts before comparisons": "a withdrawal locks its artifacts before their comparisons",
        "pending in id order": "whoever gives up announced rows locks them by id",
        "one finalise": "one T3 at a time in a project",
        "hold locks": "a hold share-locks its artifact; the lock of its foreign key is not enough",
        "look under lock": "T5a looks for holds after it has locked, not before",
    }

    def __init__(self, without: Iterable[str] = (), *, together: int = 2) -> None:
        super().__init__(without)
        self.together = together
        self.acts = self.sequences()

    def sequences(self) -> dict[str, list[Act]]:
        """Artifact 1 is a head that waits for the commit of a base, 2 is a base, comparison 1 has both. Images 1 and 2 are
        live, 3 is an announced mask, 4 is the manifest of the create of session 1, 5 and 6 are announced for it, too."""
        images = rows("blob", (1, 2), "key share")
        mask = rows("blob", (3,), "update")
        pending = rows("blob", (5, 6), "update")
        sides = rows("artifact", (1, 2), "share")
        targets = rows("artifact", (1, 2), "no key update")
        asked_backwards = targets[::-1] if "T5a in id order" in self.without else targets
        look: list[Act] = [Look(HELD)]
        released = [*rows("artifact", (1, 2), "update"), *rows("comparison", (1,), "update"), *mask]
        early, late = (look, []) if "look under lock" in self.without else ([], look)
        hold = "key share" if "hold locks" in self.without else "share"
        given_up = pending[::-1] if "pending in id order" in self.without else pending
        return {
            "T1": [*rows("session", (1,), "share"), *images],
            "T2": [*rows("session", (1,), "share"), *rows("project", (1,), "key share")],
            "T3 of session 1": self._finalise(1, (5, 6), (1, 2)),
            "T3 of session 2": self._finalise(2, (7, 8), (2, 1)),
            "T4": self._commit(images, pending),
            "T5a by number": [*early, *targets, *late, *released, Write(MARKED)],
            "T5a by number, asked backwards": [*early, *asked_backwards, *late, *released, Write(MARKED)],
            "T5a by filter": [*rows("project", (1,), "no key update"), *targets, *late, *released, Write(MARKED)],
            "T5a withdrawal": self._withdraw(targets, mask, late),
            "T5b": [*released, *rows("deletion", (1,), "key share")],
            # T6 takes its candidates first; that is out of order, but nobody waits for a candidate.
            "T6": [
                *rows("candidate", (1,), "update", skips=True), *rows("session", (1,), "update", skips=True), *pending,
                *rows("blob", (1, 2), "update", skips=True),
            ],
            "T7 claim": rows("tombstone", (1, 2), "no key update", skips=True),
            "T7 confirm": rows("tombstone", (1, 2), "update"),
            "T8": [*rows("session", (1,), "update", skips=True), *pending],
            "T9": rows("deletion", (1,), "update", skips=True),
            "a failed put": given_up,
            "a comparison is claimed": rows("comparison", (1,), "no key update"),
            "a mask is announced": [
                *sides, *rows("comparison", (1,), "update"), *rows("project", (1,), "key share"),
            ],
            "a comparison is committed": [
                *rows("project", (1,), "share"), *sides, *rows("comparison", (1,), "update"),
                *rows("blob", (3,), "no key update"),
            ],
            "traces are claimed": rows("artifact", (1, 2), "share", skips=True),
            "a hold": [*rows("artifact", (1,), hold), Look(MARKED), Write(HELD)],
        }  # fmt: skip

    def _finalise(self, session: int, pending: Iterable[int], digests: Iterable[int]) -> list[Act]:
        alone = [] if "one finalise" in self.without else rows("finalising", (1,), "update")
        # The index of live images is entered in the order of the rows, which is not that of another uploader.
        return [
            *alone, *rows("session", (session,), "share"), *rows("blob", pending, "no key update"),
            *rows("image index", digests, "update"),
        ]  # fmt: skip

    def _commit(self, images: list[Act], pending: list[Act]) -> list[Act]:
        order = (2, 1) if "T4 in id order" in self.without else (1, 2)
        bases = [*rows("bases", (1,), "update"), *rows("artifact", order, "share")]
        named = [*images, *rows("blob", (4,), "no key update"), *pending]
        if "T4 bases first" in self.without:
            bases, named = named, bases
        return [*rows("project", (1,), "share"), *rows("session", (1,), "update"), *bases, *named]

    def _withdraw(self, targets: list[Act], mask: list[Act], look: list[Act]) -> list[Act]:
        project, compared = rows("project", (1,), "no key update"), rows("comparison", (1,), "update")
        first = [*targets, *project] if "project first" in self.without else [*project, *targets]
        if "artifacts before comparisons" in self.without:
            first = [*project, *compared, *targets]
        return [*first, *look, *compared, *mask]

    # --- What the search asks ---------------------------------------------------------------------------------------

    def starts(self) -> Iterable[State]:
        for names in combinations_with_replacement(self.acts, self.together):
            yield State(tuple(Transaction(name, 0, frozenset()) for name in names), frozenset())

    def at_rest(self, s: State) -> bool:
        return all(self._is_over(t) for t in s.transactions)

    def broken(self, s: State) -> str | None:
        if s.facts >= {HELD, MARKED}:
            return "L2 a held snapshot is marked"
        if stuck := self._deadlocked(s):
            return f"L1 deadlock: {', '.join(s.transactions[t].name for t in sorted(stuck))}"
        return None

    def steps(self, s: State) -> Iterator[Step]:
        for number, t in enumerate(s.transactions):
            if self._is_over(t):
                continue
            act = self.acts[t.name][t.at]
            free = not (isinstance(act, Lock) and self._blockers(s, number))
            if not free and not (isinstance(act, Lock) and act.skips):
                continue
            yield self._stepped(s, number, act, free=free)

    def _stepped(self, s: State, number: int, act: Act, *, free: bool) -> Step:
        t = s.transactions[number]
        over = len(self.acts[t.name])
        after = t._replace(at=t.at + 1, skipped=t.skipped if free else t.skipped | {t.at})
        facts = s.facts
        who = f"{t.name} ({number + 1})"
        match act:
            case Lock(row, mode, _):
                words = f"{who} {'locks' if free else 'passes over'} {' '.join(map(str, row))} for {mode}"
            case Look(fact) if fact in s.facts:
                words, after = f"{who} sees that {fact} and rolls back", t._replace(at=over, skipped=frozenset())
            case Look(fact):
                words = f"{who} does not see that {fact}"
            case Write(fact):
                words, facts = f"{who} commits that {fact}", facts | {fact}
        if after.at == over:
            after = after._replace(skipped=frozenset())
        done = (*s.transactions[:number], after, *s.transactions[number + 1 :])
        return Step(words, State(done, facts))

    def _is_over(self, t: Transaction) -> bool:
        return t.at == len(self.acts[t.name])

    def _blockers(self, s: State, number: int) -> set[int]:
        """Those who hold the row this transaction wants next, in a mode that conflicts."""
        t = s.transactions[number]
        wanted = self.acts[t.name][t.at]
        if not isinstance(wanted, Lock):
            return set()
        return {
            other
            for other, holder in enumerate(s.transactions)
            if other != number and not self._is_over(holder) and self._holds(holder, wanted)
        }

    def _holds(self, t: Transaction, wanted: Lock) -> bool:
        taken = (act for place, act in enumerate(self.acts[t.name][: t.at]) if place not in t.skipped)
        return any(
            isinstance(act, Lock) and act.row == wanted.row and act.mode in CONFLICTS[wanted.mode] for act in taken
        )

    def _deadlocked(self, s: State) -> set[int]:
        """The largest set of waiting transactions of which each waits for another of the set."""
        waits: dict[int, set[int]] = {}
        for number, t in enumerate(s.transactions):
            if not self._is_over(t):
                act = self.acts[t.name][t.at]
                if isinstance(act, Lock) and not act.skips and (blockers := self._blockers(s, number)):
                    waits[number] = blockers
        while free := [number for number, blockers in waits.items() if not blockers & waits.keys()]:
            for number in free:
                del waits[number]
        return set(waits)


def out_of_order(acts: Iterable[Act]) -> list[str]:
    """The rows that are locked later than the written order says."""
    found: list[str] = []
    held: set[tuple[str, int]] = set()
    highest = (-1, -1)
    for act in acts:
        # The key share of a foreign key to the project waits for nobody: only its removal would take more.
        if not isinstance(act, Lock) or act.row in held or (act.row[0] == "project" and act.mode == "key share"):
            continue
        held.add(act.row)
        place = (ORDER.index(act.row[0]), act.row[1])
        if place < highest:
            found.append(f"{act.row[0]} {act.row[1]}")
        highest = max(highest, place)
    return found
